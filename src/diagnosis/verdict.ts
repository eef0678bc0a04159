import type { CheckResult } from '../doctor/check.ts';
import { FAMILIES, type Family } from '../ip/family.ts';
import type { Diagnosis } from '../probe/diagnose.ts';
import type { PathResult } from '../probe/probe-path.ts';
import type { WayFinding } from './way-to-host.ts';

/** Where packets start: on the host itself, or in a container behind its bridge. */
export type Origin = 'host' | 'container';

export interface MeasuredPath {
  readonly from: Origin;
  /** `10.244.2.0/24 on 192.168.77.2`. */
  readonly to: string;
  readonly result: PathResult;
}

/** Something that is wrong, on this host or between it and one peer. */
export interface Problem {
  /** `this host`, or the peer. */
  readonly where: string;
  /** Name of the check, or the fault of the path: stable, for scripts. */
  readonly fault: string;
  /** `warning`: packets pass, or may. */
  readonly severity: 'error' | 'warning';
  readonly cause: string;
  readonly remedy: string;
}

export const THIS_HOST = 'this host';

/**
 * What is wrong, the most likely cause first: what this host's own checks have found explains what paths show, and a path that fails for
 * containers alone is this host's affair.
 * @param ways what this host's kernel has in the way to the hosts of peers: the cause, where packets to such a peer fail.
 */
export function judge(
  checks: readonly CheckResult[],
  paths: readonly MeasuredPath[],
  ways: ReadonlyMap<string, WayFinding> = new Map(),
): readonly Problem[] {
  const own = checks.flatMap(problemOf);
  const host = paths.filter(({ from }) => from === 'host');
  const failing = new Set(host.filter(({ result }) => result.diagnosis !== undefined).map(({ to }) => to));
  const between = host.flatMap(({ to, result: { diagnosis } }) =>
    diagnosis === undefined ? [] : [problemBetween(to, ways.get(to) ?? diagnosis)],
  );
  const containers = paths.filter(
    ({ from, to, result }) => from === 'container' && result.diagnosis !== undefined && !failing.has(to),
  );
  return [
    ...own.filter(isError),
    ...between,
    ...FAMILIES.flatMap((family) => containersOf(containers.filter(isOf(family)), paths.filter(isOf(family)), family)),
    ...own.filter((one) => !isError(one)),
  ];
}

function isError({ severity }: Problem): boolean {
  return severity === 'error';
}

function problemOf(check: CheckResult): Problem[] {
  if (check.status === 'ok') return [];
  // On a busy host a check may not end in time, which says nothing about packets.
  const severity = check.status === 'fail' && check.isUnknown !== true ? 'error' : 'warning';
  return [{ where: check.where ?? THIS_HOST, fault: check.name, severity, cause: check.found, remedy: check.remedy }];
}

function problemBetween(where: string, { fault, cause, remedy }: Diagnosis | WayFinding): Problem {
  return { where, fault, severity: 'error', cause, remedy };
}

function isOf({ version }: Family): (path: MeasuredPath) => boolean {
  return ({ result: { id } }) => id.includes(':') === (version === 6);
}

/** Paths from containers that fail although those of the host pass, of one family. */
function containersOf(failing: readonly MeasuredPath[], paths: readonly MeasuredPath[], { name }: Family): Problem[] {
  const all = paths.filter(({ from }) => from === 'container').length;
  const [first] = failing;
  if (first === undefined) return [];
  const isSilent = failing.every(({ result }) => result.passes.small === 'no');
  if (failing.length === all && isSilent) {
    return [
      {
        ...{ where: THIS_HOST, fault: 'not-forwarded', severity: 'error' },
        cause: `this host reaches its peers, but its containers reach none of them over ${name}: this host does not forward their packets`,
        remedy:
          'See the results for ip-forward, forward-drops and the bridge of this host; IPv6 needs net.ipv6.conf.all.forwarding=1. If other failures are listed above, fix those first.',
      },
    ];
  }
  return failing.map(({ to, result }) => {
    const { fault, cause, remedy } = result.diagnosis!;
    return {
      where: to,
      fault,
      severity: 'error',
      cause: `from a container, while packets of this host pass: ${cause}`,
      remedy,
    };
  });
}
