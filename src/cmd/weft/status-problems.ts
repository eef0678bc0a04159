import { familyOf, familyPrefix, probesOf } from '../../api/peer-probes.ts';
import type { Answer } from '../../api/schema.ts';
import { counted } from '../../counted.ts';
import type { FastPathObstacle } from '../../dataplane/fast-path/mode.ts';
import { clockDoubt } from '../../doctor/clock-doubt.ts';
import type { AgentEvent } from '../../events/event.ts';
import { shortSpan } from '../../time-span.ts';

/** What was repaired a while ago is history, for `weft events`. */
const RECENT_MS = 600_000;
/** Of one kind of problem. */
const MAX_NAMED = 5;
/** By what keeps the fast path closed; its text has what was found. */
const FAST_PATH_REMEDIES: Readonly<Record<string, string>> = {
  'ipsec-policy': 'Nothing to do if you need IPsec. The fast path opens when the last policy is removed.',
  'ipv6-forwarding': 'sysctl -w net.ipv6.conf.all.forwarding=1. The fast path then opens by itself.',
} satisfies Partial<Record<FastPathObstacle, string>>;

/** What an agent says of itself, at one time. */
export interface StatusAnswers {
  readonly self: Answer<'/self'>;
  readonly peers: Answer<'/peers'>;
  readonly readiness: Answer<'/readiness'>;
  readonly events: readonly AgentEvent[];
}

/** Something that keeps packets from their way (`error`), or that somebody should look at. */
export interface StatusProblem {
  readonly severity: 'error' | 'warning';
  readonly text: string;
  readonly remedy: string;
}

const error = (text: string, remedy: string): StatusProblem => ({ severity: 'error', text, remedy });
const warning = (text: string, remedy: string): StatusProblem => ({ severity: 'warning', text, remedy });

/** Everything that is not as it should be, errors first. Pure. */
export function problemsOf(answers: StatusAnswers): StatusProblem[] {
  return [
    ...partProblems(answers),
    ...interfaceProblems(answers),
    ...storeProblems(answers),
    ...skippedPeers(answers),
    ...lossyPeers(answers),
    ...entryWarnings(answers),
    ...dataPathWarnings(answers),
    ...logWarnings(answers),
    ...repairWarnings(answers),
  ];
}

/** Warnings do not count. */
export function isHealthy(problems: readonly StatusProblem[]): boolean {
  return problems.every(({ severity }) => severity !== 'error');
}

function partProblems({ self, readiness }: StatusAnswers): StatusProblem[] {
  const failed = readiness.parts.flatMap(({ part, failure, remedy }) =>
    failure === undefined ? [] : error(`${part}: ${failure}`, remedy ?? 'See the log of the agent.'),
  );
  if (self.ready || failed.length > 0) return failed;
  const why = readiness.waitingFor ?? self.reason ?? 'start-up has not finished';
  return [
    error(`not ready: ${why}`, 'The agent continues by itself as soon as this is available. Its log has details.'),
  ];
}

function interfaceProblems({ self: { external } }: StatusAnswers): StatusProblem[] {
  if (external?.isUp !== false) return [];
  return [
    error(
      `the external interface ${external.name} is down`,
      `Bring it up (ip link set ${external.name} up), or name another one with --iface.`,
    ),
  ];
}

function storeProblems({ self: { store, atMs } }: StatusAnswers): StatusProblem[] {
  if (store.isReachable) return [];
  const since = store.lastAnswerAtMs === undefined ? '' : ` since ${shortSpan(atMs - store.lastAnswerAtMs)}`;
  const doubt = clockDoubt(store.failure, atMs);
  const why = doubt?.cause ?? store.failure;
  return [
    error(
      `the lease store (${store.name}) does not answer${since}${why === undefined ? '' : `: ${why}`}; packets still flow with the last known state`,
      doubt?.remedy ??
        'Check that the store runs and that this host can reach it (Kubernetes: API server, etcd: endpoints). The agent’s log has details.',
    ),
  ];
}

function skippedPeers({ peers: { peers } }: StatusAnswers): StatusProblem[] {
  const skipped = peers.filter(({ path }) => path === 'skipped');
  const named = skipped
    .slice(0, MAX_NAMED)
    .map(({ id, reason }) =>
      error(reason ?? `cannot reach ${id}`, 'docs/TROUBLESHOOTING.md lists all reasons ("Unreachable peers").'),
    );
  const more = skipped.length - named.length;
  return more === 0 ? named : [...named, error(`${more} more peers cannot be reached`, 'weft peers lists them.')];
}

function lossyPeers({ peers: { peers } }: StatusAnswers): StatusProblem[] {
  const lossy = peers.flatMap((peer) =>
    probesOf(peer).flatMap((probe) => (probe.lossRatio === 1 || probe.problem !== undefined ? [{ peer, probe }] : [])),
  );
  return lossy.slice(0, MAX_NAMED).map(({ peer, probe }) => {
    const what = [probe.fault, probe.problem ?? 'none of the last probes was answered'];
    const text = what.filter((part) => part !== undefined).join(': ');
    const target = peer.subnets.find((subnet) => familyOf(subnet) === (probe.family ?? 'IPv4')) ?? peer.id;
    return error(
      `${peer.id}: ${familyPrefix(peer, probe)}${text}`,
      probe.remedy ?? `weft ping ${target.split('/')[0]} shows where it ends.`,
    );
  });
}

function entryWarnings({ self: { store, peers } }: StatusAnswers): StatusProblem[] {
  const found: StatusProblem[] = [];
  if (store.isConfigOutdated) {
    found.push(
      warning('the network configuration has changed since the agent started', 'Restart the agent to apply it.'),
    );
  }
  if (peers.refusedEntries > 0) {
    found.push(
      warning(
        `${peers.refusedEntries} entries of the store are rejected`,
        'weft leases lists them with the reason; correct or delete them.',
      ),
    );
  }
  return found;
}

function dataPathWarnings({ self: { dataPath } }: StatusAnswers): StatusProblem[] {
  const { fastPath, forwardingOff = [] } = dataPath;
  const found: StatusProblem[] = [];
  if (fastPath !== undefined && !fastPath.isOpen && fastPath.obstacle !== undefined) {
    found.push(
      warning(
        `no fast path (${fastPath.obstacle}): ${fastPath.text}`,
        FAST_PATH_REMEDIES[fastPath.obstacle] ?? 'weft doctor --fast-path says what is missing.',
      ),
    );
  }
  for (const setting of forwardingOff) {
    found.push(
      warning(
        `${setting} is 0: containers on this host cannot reach other hosts`,
        `sysctl -w ${setting}=1, and find out what turned it off.`,
      ),
    );
  }
  return found;
}

function logWarnings({ self: { droppedLogLines } }: StatusAnswers): StatusProblem[] {
  if (droppedLogLines === 0) return [];
  return [
    warning(`${droppedLogLines} lines of the log could not be written`, 'Check what reads the agent’s standard error.'),
  ];
}

function repairWarnings({ self, events }: StatusAnswers): StatusProblem[] {
  const repairs = events.filter(
    ({ kind, atMs }) => (kind === 'kernel-repaired' || kind === 'rules-repaired') && self.atMs - atMs < RECENT_MS,
  );
  const last = repairs.at(-1);
  if (last === undefined) return [];
  return [
    warning(
      `${last.text} (${counted(repairs.length, 'repair')} in ${shortSpan(RECENT_MS)}, the last ${shortSpan(self.atMs - last.atMs)} ago)`,
      'Another program is changing what the agent manages on this host. weft events lists each change.',
    ),
  ];
}
