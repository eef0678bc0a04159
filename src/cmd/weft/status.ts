import { setTimeout as delay } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import { wrapped } from '../../wrapped.ts';
import { untilStopped } from '../stop-signal.ts';
import { type Asked, askAll, clientsOf, lastStart, type TargetFlags, withTarget } from './agent-target.ts';
import { renderClusterStatus, type Status } from './cluster-status.ts';
import { isHealthy, problemsOf } from './status-problems.ts';
import { renderStatus } from './status-report.ts';

/** One that could not be asked; 2 is wrong usage. */
const EXIT_NOT_ASKED = 3;
const DEFAULT_WAIT_SECONDS = 60;
const LOOK_MS = 500;
/** So many of the last events are looked at. */
const EVENTS = 500;

interface StatusFlags extends TargetFlags {
  readonly wait?: number | true;
}

/**
 * `weft status`: one screen about an agent, and of a cluster about each that is not healthy. Exit code 0 when all are healthy, 1 when one
 * is not, 3 when one could not be asked; warnings do not count.
 */
export function statusCommand(): Command {
  return withTarget(new Command('status'))
    .summary('show the state of an agent, and what is wrong')
    .description(
      'Show the state of an agent, the problems that stop packets, and what to do about them. With --cluster, print a line for each node, and the full state of nodes that are not healthy. Exit codes: 0 healthy, 1 not healthy, 3 no answer from the agent.',
    )
    .option(
      '--wait [seconds]',
      `wait until it is healthy, at most this long (default: ${DEFAULT_WAIT_SECONDS})`,
      seconds,
    )
    .action((flags: StatusFlags) => show(flags));
}

function seconds(text: string): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (value < 1) throw new InvalidArgumentError('want whole seconds, 1 or more');
  return value;
}

async function show(flags: StatusFlags): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  const clients = await clientsOf(flags, signal);
  const waitMs = (flags.wait === true ? DEFAULT_WAIT_SECONDS : (flags.wait ?? 0)) * 1_000;
  const untilMs = performance.now() + waitMs;
  let asked = await askAll(clients, (client) => statusOf(client, signal), signal);
  while (exitCodeOf(asked) !== 0 && performance.now() < untilMs) {
    await delay(LOOK_MS, undefined, { signal });
    asked = await askAll(clients, (client) => statusOf(client, signal), signal);
  }
  process.stdout.write(flags.json === true ? jsonOf(asked, flags) : textOf(asked, flags));
  process.exitCode = exitCodeOf(asked);
}

async function statusOf(client: AgentClient, signal: AbortSignal): Promise<Status> {
  const { newestId } = await client.get('/events', signal, { limit: '0' });
  const [self, peers, readiness, { events }] = await Promise.all([
    client.get('/self', signal),
    client.get('/peers', signal),
    client.get('/readiness', signal),
    client.get('/events', signal, { after: String(Math.max(0, newestId - EVENTS)), limit: String(EVENTS) }),
  ]);
  const answers = { self, peers, readiness, events };
  return { ...answers, problems: problemsOf(answers) };
}

function exitCodeOf(asked: readonly Asked<Status>[]): number {
  if (asked.some((one) => 'error' in one)) return EXIT_NOT_ASKED;
  return asked.every((one) => 'answer' in one && isHealthy(one.answer.problems)) ? 0 : 1;
}

function isOne({ cluster }: StatusFlags): boolean {
  return cluster !== true;
}

function textOf(asked: readonly Asked<Status>[], flags: StatusFlags): string {
  if (!isOne(flags)) return renderClusterStatus(asked);
  const [one] = asked;
  if ('answer' in one!) return renderStatus(one.answer, one.answer.problems);
  const last = flags.host === undefined && flags.node === undefined ? lastStart(flags) : undefined;
  const lines = [`✖ ${one!.text}`, ...(last === undefined ? [] : [`! ${last}`])];
  return `${lines.flatMap((line) => wrapped(line, '  ')).join('\n')}\n`;
}

function jsonOf(asked: readonly Asked<Status>[], flags: StatusFlags): string {
  const shown = asked.map((one) => {
    if ('error' in one) return { name: one.name, healthy: false, error: one.text, lastStart: lastStart(flags) };
    const { self, peers, readiness, problems } = one.answer;
    return { name: one.name, healthy: isHealthy(problems), problems, self, peers: peers.peers, readiness };
  });
  return `${JSON.stringify(isOne(flags) ? shown[0] : { agents: shown })}\n`;
}
