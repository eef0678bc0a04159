import { counted } from '../counted.ts';
import type { CheckResult } from '../doctor/check.ts';
import type { PathResult } from '../probe/probe-path.ts';
import { wrapped } from '../wrapped.ts';
import type { MeasuredPath, Problem } from './verdict.ts';

/** What a run did not look at, and why: no fault, and nothing to rely on. */
export interface Unchecked {
  /** Stable, for scripts; of a check, its name. */
  readonly name: string;
  readonly reason: string;
}

/** All that one run has found. */
export interface Report {
  /** Its subnets. */
  readonly host: string;
  readonly paths: readonly MeasuredPath[];
  readonly checks: readonly CheckResult[];
  readonly problems: readonly Problem[];
  readonly unchecked: readonly Unchecked[];
  readonly tookMs: number;
}

/** Longer names make their lines uneven. */
const NAME_COLUMNS = 42;

/** For people. */
export function renderReport({ host, paths, checks, problems, unchecked, tookMs }: Report): string {
  const nameOf = ({ from, to }: MeasuredPath): string => `${from} → ${to}`;
  const columns = Math.min(NAME_COLUMNS, Math.max(...paths.map((path) => nameOf(path).length)));
  const good = checks.filter(({ status }) => status === 'ok').length;
  const lines = [
    `${host}: ${good} of ${checks.length} checks of this host passed`,
    ...paths.flatMap((path) =>
      wrapped(`${markOf(path.result)} ${nameOf(path).padEnd(columns)} ${describeResult(path.result)}`, '    '),
    ),
    ...unchecked.flatMap(({ name, reason }) => wrapped(`? ${name}: not checked: ${reason}`, '    ')),
  ];
  for (const { where, fault, severity, cause, remedy } of problems) {
    lines.push('', ...wrapped(`${severity === 'error' ? '✖' : '!'} ${where}: ${fault}: ${cause}`, '  '));
    lines.push(...wrapped(`  → ${remedy}`, '    '));
  }
  const errors = problems.filter(({ severity }) => severity === 'error').length;
  const well = unchecked.length === 0 ? 'All paths work' : 'All that was checked works';
  lines.push('', `${errors === 0 ? well : counted(errors, 'problem')} (${tookMs} ms).`);
  return `${lines.join('\n')}\n`;
}

function markOf({ diagnosis }: PathResult): string {
  return diagnosis === undefined ? '✔' : '✖';
}

function describeResult({ diagnosis, rttMs, underlayRttMs, pathMtuBytes }: PathResult): string {
  const figures = [
    rttMs === undefined ? undefined : `${rttMs.median.toFixed(2)} ms`,
    underlayRttMs === undefined ? undefined : `underlay ${underlayRttMs.toFixed(2)} ms`,
    pathMtuBytes === undefined ? undefined : `MTU ${pathMtuBytes}`,
  ];
  return [diagnosis?.fault, ...figures].filter((text) => text !== undefined).join(', ');
}

/** For build servers: a test case a check and a path, in the form that Jenkins and GitLab read. */
export function renderJunit({ host, paths, checks, unchecked, tookMs }: Report): string {
  const cases: readonly JunitCase[] = [
    ...checks.map((check) => ({
      group: 'host',
      name: check.name,
      failure:
        check.status === 'fail' && check.isUnknown !== true
          ? { fault: check.name, cause: check.found, remedy: check.remedy }
          : undefined,
    })),
    ...paths.map(({ from, to, result: { diagnosis } }) => ({ group: from, name: to, failure: diagnosis })),
    ...unchecked.map(({ name, reason }) => ({ group: 'host', name, failure: undefined, skipped: reason })),
  ];
  return junitOf(host, cases, tookMs);
}

export interface JunitCase {
  readonly group: string;
  readonly name: string;
  readonly failure: { readonly fault: string; readonly cause: string; readonly remedy: string } | undefined;
  /** Why nothing is known, which is no failure. */
  readonly skipped?: string;
}

/** The report of that name. */
export function junitOf(name: string, list: readonly JunitCase[], tookMs: number): string {
  const cases = list.map(caseOf);
  const failures = cases.filter((text) => text.includes('<failure')).length;
  const skipped = cases.filter((text) => text.includes('<skipped')).length;
  return (
    '<?xml version="1.0" encoding="UTF-8"?>\n' +
    `<testsuite name="${xml(`weft ${name}`)}" tests="${cases.length}" failures="${failures}" skipped="${skipped}" time="${(tookMs / 1e3).toFixed(3)}">\n` +
    `${cases.join('')}</testsuite>\n`
  );
}

function caseOf({ group, name, failure, skipped }: JunitCase): string {
  const head = `  <testcase classname="weft.${xml(group)}" name="${xml(name)}"`;
  if (skipped !== undefined) return `${head}><skipped message="${xml(skipped)}"/></testcase>\n`;
  if (failure === undefined) return `${head}/>\n`;
  const { fault, cause, remedy } = failure;
  return `${head}><failure type="${xml(fault)}" message="${xml(cause)}">${xml(remedy)}</failure></testcase>\n`;
}

function xml(text: string): string {
  // Characters that XML 1.0 cannot have at all go.
  const allowed = text.replaceAll(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd]/g, '');
  return allowed.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
