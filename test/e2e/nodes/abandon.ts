import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type Child, start } from '../../../src/linux/run.ts';
import { eventually, LineFeed } from '../../netns/waiting.ts';
import { tracesOf } from './leftovers.ts';

const PATIENCE_MS = 300_000;

/** Runs a program that makes machines and prints the id of their lab, and kills it then; `alsoReaper`: and what would tidy up. */
export async function abandon(script: string, { alsoReaper = false, patienceMs = PATIENCE_MS } = {}): Promise<string> {
  const program = await startAbandoned(script);
  const { text: id } = await new LineFeed(program.stdout!).find((line) => /^[a-z0-9]+$/.test(line), 0, patienceMs);
  assert.ok(tracesOf(id).length > 3);
  const reaper = alsoReaper ? reaperOf(program.pid) : undefined;
  // The reaper first: it would be at work at once.
  if (reaper !== undefined) process.kill(reaper, 'SIGKILL');
  program.kill('SIGKILL');
  await program.exited;
  return id;
}

export function startAbandoned(script: string): Promise<Child> {
  return start([process.execPath, '--disable-warning=ExperimentalWarning', script]);
}

/** Resolves when nothing is left of a lab, without anything being done for it. */
export async function gone(id: string): Promise<void> {
  await eventually('nothing of it is left', () => (tracesOf(id).length === 0 ? true : undefined), PATIENCE_MS).catch(
    (error: unknown) => {
      throw new Error(`${String(error)}: ${tracesOf(id).join(' ')}`);
    },
  );
}

/** @throws Error when there is none. */
function reaperOf(pid: number): number {
  for (const child of readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean)) {
    const arguments_ = readFileSync(`/proc/${child}/cmdline`, 'utf8').split('\0');
    if (arguments_.some((argument) => argument.endsWith('/reaper.ts'))) {
      return arguments_[0] === 'sh' ? reaperOf(Number(child)) : Number(child);
    }
  }
  throw new Error(`process ${pid} has no reaper`);
}
