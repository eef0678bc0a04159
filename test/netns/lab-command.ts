/** `weft lab` as a person runs it. */
import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { lines, run, start } from '../../src/linux/run.ts';

export const weft: readonly string[] = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];

export async function namespacesOfLab(id: string): Promise<string[]> {
  const { stdout } = await run(['ip', 'netns', 'list']);
  return stdout.split('\n').filter((line) => line.startsWith(`weft-${id}-`));
}

export interface Interruption {
  readonly flags?: readonly string[];
  /** The title of the stage after which the signal comes; default `agents`. */
  readonly after?: string;
  readonly signal: NodeJS.Signals;
  /** That the command must end with; `undefined` when the signal itself ends it. */
  readonly exitCode: number | undefined;
}

/** A lab of two hosts that gets a signal in the middle; returns its id. */
export async function interruptedLab(interruption: Interruption): Promise<string> {
  const { flags = [], after = 'agents', signal, exitCode } = interruption;
  await using lab = await start([...weft, 'lab', '--hosts', '2', ...flags]);
  let id: string | undefined;
  for await (const line of lines(lab.stdout!)) {
    id ??= /^weft lab (\S+) /.exec(line)?.[1];
    if (line.includes(`✔ ${after}`)) break;
  }
  lab.stdout!.resume();
  lab.kill(signal);
  assert.equal((await lab.exited).code, exitCode, lab.tail());
  assert.ok(id);
  return id;
}
