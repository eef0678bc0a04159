import { counted } from '../../counted.ts';
import { printable } from '../../printable.ts';
import { shortSpan } from '../../time-span.ts';
import { wrapped } from '../../wrapped.ts';
import type { Asked } from './agent-target.ts';
import { isHealthy, type StatusAnswers, type StatusProblem } from './status-problems.ts';
import { peersText, renderStatus } from './status-report.ts';

/** What an agent says of itself, and what of it is a problem. */
export interface Status extends StatusAnswers {
  readonly problems: readonly StatusProblem[];
}

/** Longer names make their lines uneven. */
const NAME_COLUMNS = 32;

/** A line for each node, all that is known of those that are not healthy, and how many are. Pure. */
export function renderClusterStatus(asked: readonly Asked<Status>[]): string {
  const columns = Math.min(NAME_COLUMNS, Math.max(0, ...asked.map(({ name }) => printable(name).length)));
  const isWell = (one: Asked<Status>): boolean => 'answer' in one && isHealthy(one.answer.problems);
  const lines = asked.map((one) => lineOf(one, columns));
  for (const one of asked) {
    if (isWell(one)) continue;
    lines.push('', `== ${printable(one.name)}`);
    if ('answer' in one) lines.push(renderStatus(one.answer, one.answer.problems).trimEnd());
    else lines.push(...wrapped(`✖ ${one.text}`, '  '));
  }
  lines.push('', `${asked.filter(isWell).length} of ${asked.length} nodes are healthy.`);
  return lines.map((line) => `${line}\n`).join('');
}

function lineOf(one: Asked<Status>, columns: number): string {
  const name = printable(one.name).padEnd(columns);
  if ('error' in one) return `✖ ${name}  did not answer`;
  const { self, peers, problems } = one.answer;
  const count = (severity: StatusProblem['severity'], word: string): string[] => {
    const found = problems.filter((problem) => problem.severity === severity).length;
    return found === 0 ? [] : [counted(found, word)];
  };
  const parts = [
    ...count('error', 'problem'),
    ...count('warning', 'warning'),
    self.ready ? 'ready' : 'not ready',
    `up ${shortSpan(self.atMs - self.startedAtMs)}`,
    self.lease?.subnets.join(' and ') ?? 'no lease',
    `peers ${peersText(peers)}`,
  ];
  const mark = problems.length === 0 ? '✔' : isHealthy(problems) ? '!' : '✖';
  return `${mark} ${name}  ${printable(parts.join(', '))}`;
}
