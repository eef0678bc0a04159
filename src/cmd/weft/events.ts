import { Command } from 'commander';
import type { AgentEvent } from '../../events/event.ts';
import { printable } from '../../printable.ts';
import { wrapped } from '../../wrapped.ts';
import { untilStopped } from '../stop-signal.ts';
import { askAll, clientsOf, type TargetFlags, withTarget } from './agent-target.ts';
import { terminalColumns } from './lists.ts';

const DEFAULT_COUNT = 50;
const ALL = 10_000;

interface EventsFlags extends TargetFlags {
  readonly follow?: true;
  readonly all?: true;
}

/** `weft events`: what happened, the oldest first; with `-f` also what comes. With `--json`, one object a line. */
export function eventsCommand(): Command {
  return withTarget(new Command('events'))
    .summary('list the agent’s recent events')
    .description('List recent events: changes of leases and peers, faults, repairs, and their causes.')
    .option('-f, --follow', 'keep printing new events until interrupted')
    .option('--all', `print all events that the agent keeps, up to ${ALL} (default: the last ${DEFAULT_COUNT})`)
    .action((flags: EventsFlags) => show(flags));
}

async function show(flags: EventsFlags): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  const clients = await clientsOf(flags, signal);
  const asked = await askAll(clients, (client) => client.get('/events', signal, { limit: String(ALL) }), signal);
  const isMany = clients.length > 1;
  const print = (name: string, event: AgentEvent): void => {
    const from = isMany ? `${printable(name)} ` : '';
    process.stdout.write(
      flags.json === true
        ? `${JSON.stringify(isMany ? { name, ...event } : event)}\n`
        : renderEvent(event, from, terminalColumns()),
    );
  };
  const found = asked
    .flatMap((one) => ('answer' in one ? one.answer.events.map((event) => ({ name: one.name, event })) : []))
    .sort((a, b) => a.event.atMs - b.event.atMs);
  for (const { name, event } of flags.all === true ? found : found.slice(-DEFAULT_COUNT)) print(name, event);
  for (const one of asked) {
    if (!('error' in one)) continue;
    process.stderr.write(`weft: ${one.text}\n`);
    process.exitCode = 1;
  }
  if (flags.follow !== true) return;
  const follow = async (at: number): Promise<void> => {
    const [client, one] = [clients[at]!, asked[at]!];
    if ('error' in one) return;
    for await (const event of client.events(one.answer.newestId, signal)) print(client.name, event);
    if (!signal.aborted) process.stderr.write(`weft: the agent at ${printable(client.name)} has ended\n`);
  };
  await Promise.all(clients.map((_, at) => follow(at)));
}

const MARKS = { info: ' ', warning: '!', error: '✖' } as const;

/** One event on one line, longer texts on several. Pure; times are UTC. */
export function renderEvent(event: AgentEvent, from: string, columns: number): string {
  const { atMs, severity, kind, subject, text, cause } = event;
  const time = new Date(atMs).toISOString().slice(0, 19).replace('T', ' ');
  const said = text.includes(subject) ? text : `${subject}: ${text}`;
  const line = `${time} ${MARKS[severity] ?? ' '} ${from}${kind}  ${printable(said)}`;
  const why = cause === undefined ? [] : wrapped(`    because ${printable(cause)}`, '      ', columns);
  return [...wrapped(line, '    ', columns), ...why].map((each) => `${each}\n`).join('');
}
