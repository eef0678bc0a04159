import { setTimeout as delay } from 'node:timers/promises';
import type { Command } from 'commander';
import type { AgentClient } from '../../api/client.ts';
import { untilStopped } from '../stop-signal.ts';
import { type Asked, askAll, clientsOf, type TargetFlags, withTarget } from './agent-target.ts';

const WATCH_MS = 2_000;
/** Clears the screen and goes to its corner (ECMA-48). */
const CLEAR = '\u001b[2J\u001b[H';

export interface ListFlags extends TargetFlags {
  readonly watch?: true;
}

export interface Listing<T> {
  readonly ask: (client: AgentClient, signal: AbortSignal) => Promise<T>;
  /** @param columns of the terminal. */
  readonly render: (answer: T, columns: number) => string;
}

/** A command that shows a table of each agent that is asked; exit code 1 when one did not answer. */
export function listCommand<T>(command: Command, listing: Listing<T>): Command {
  return withTarget(command)
    .option('--watch', `print it again every ${WATCH_MS / 1_000} s until interrupted`)
    .action((flags: ListFlags) => list(flags, listing));
}

async function list<T>(flags: ListFlags, { ask, render }: Listing<T>): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  const clients = await clientsOf(flags, signal);
  const { stdout } = process;
  do {
    const asked = await askAll(clients, (client) => ask(client, signal), signal).catch((error: unknown) => {
      if (signal.aborted) return undefined;
      throw error;
    });
    if (asked === undefined) return;
    const text = flags.json === true ? jsonText(asked, flags) : tableText(asked, flags, render);
    if (stdout.isTTY && flags.watch === true && flags.json !== true) stdout.write(CLEAR);
    stdout.write(text);
    process.exitCode = asked.some((one) => 'error' in one) ? 1 : 0;
    if (flags.watch === true) await delay(WATCH_MS, undefined, { signal }).catch(() => {});
  } while (flags.watch === true && !signal.aborted);
}

function jsonText<T>(asked: readonly Asked<T>[], { cluster }: ListFlags): string {
  const shown = asked.map((one) => ('answer' in one ? one.answer : { error: one.text }));
  if (cluster !== true) return `${JSON.stringify(shown[0])}\n`;
  return `${JSON.stringify({ agents: asked.map(({ name }, at) => ({ name, ...shown[at] })) })}\n`;
}

function tableText<T>(asked: readonly Asked<T>[], { cluster }: ListFlags, render: Listing<T>['render']): string {
  const columns = terminalColumns();
  return asked
    .map((one) => {
      const head = cluster === true ? `== ${one.name}\n` : '';
      return `${head}${'answer' in one ? render(one.answer, columns) : `✖ ${one.text}\n`}`;
    })
    .join('\n');
}

/** 80 where there is no terminal. */
export function terminalColumns(): number {
  return Math.max(80, process.stdout.columns ?? 80);
}
