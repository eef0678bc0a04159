import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../../test/fakes/fake-inspection.ts';
import { weft } from '../../../test/netns/lab-command.ts';
import { eventually } from '../../../test/netns/waiting.ts';
import { startApiServer } from '../../api/server.ts';
import { start } from '../../linux/run.ts';

const CTRL_C = '\u0003';
const CLEAR = '\u001b[2J\u001b[H';
const signal = AbortSignal.timeout(300_000);

/** What a command prints that goes on until Ctrl-C, and what it prints when this has changed. */
interface Case {
  readonly words: readonly string[];
  readonly first: string;
  readonly change: (agent: FakeInspection) => void;
  readonly next: string;
  /** Writes over what it printed before. */
  readonly isScreen: boolean;
}

const CASES: readonly Case[] = [
  {
    words: ['peers', '--watch'],
    first: '10.244.3.0/24',
    change: (agent) => void (agent.list = agent.list.slice(0, 1).map((peer) => ({ ...peer, holder: 'worker-99' }))),
    ...{ next: 'worker-99', isScreen: true },
  },
  {
    words: ['top'],
    first: 'node-1  ready',
    change: (agent) => void (agent.own = { ...agent.own, ready: false }),
    ...{ next: 'node-1  not ready', isScreen: true },
  },
  {
    words: ['events', '-f'],
    first: 'the first one',
    change: ({ events }) => void events.add({ kind: 'ready', severity: 'info', subject: 'node', text: 'the next one' }),
    ...{ next: 'the next one', isScreen: false },
  },
];

/** The modes of a terminal that a program switches on, and has not switched off again. */
function modesLeftOn(output: string): string[] {
  const on = new Set<string>();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: sequences that steer a terminal begin with one.
  for (const [, mode = '', change] of output.matchAll(/\u001b\[\?(\d+)([hl])/g)) {
    // A cursor is there at first; the others are off.
    if ((change === 'h') === (mode !== '25')) on.add(mode);
    else on.delete(mode);
  }
  return [...on];
}

describe('on a terminal', { concurrency: true }, () => {
  for (const { words, first, change, next, isScreen } of CASES) {
    it(`weft ${words.join(' ')} shows what changes until Ctrl-C, and leaves the terminal as it was`, async (t) => {
      const directory = mkdtempSync(join(tmpdir(), 'weft-terminal-'));
      t.after(() => rmSync(directory, { recursive: true, force: true }));
      const socketPath = join(directory, 'weft.sock');
      const agent = new FakeInspection();
      agent.events.add({ kind: 'ready', severity: 'info', subject: 'node', text: 'the first one' });
      const ownUid = process.getuid!();
      const problems: string[] = [];
      await using _api = await startApiServer(
        {
          ...{ inspection: agent, socketPath, listen: undefined, peerUid: () => ownUid, ownUid },
          onProblem: (text) => problems.push(text),
        },
        signal,
      );
      const command = [...weft, ...words, '--socket', socketPath].map((word) => `'${word}'`).join(' ');
      // The shell is in the foreground as well, and must not end by the same Ctrl-C.
      const script = `trap : INT; stty rows 24 cols 80; stty -g; ${command}; echo "code $?"; stty -g`;
      await using terminal = await start(['script', '-qec', script, '/dev/null'], {
        ...{ stdin: 'pipe', stdout: 'pipe', env: { SHELL: '/bin/sh', TERM: 'xterm' }, signal },
      });
      let output = '';
      terminal.stdout!.setEncoding('utf8').on('data', (text: string) => void (output += text));
      const shows = (text: string) =>
        eventually(`it shows ${text}`, () => output.includes(text)).catch((error: unknown) =>
          assert.fail(`${(error as Error).message}: ${JSON.stringify(output)}`),
        );
      await shows(first);
      assert.ok(!output.includes(next), output);
      change(agent);
      await shows(next);
      if (isScreen) assert.ok(output.split(CLEAR).length > 2, JSON.stringify(output));
      else assert.ok(!output.includes('\u001b['), JSON.stringify(output));
      terminal.stdin!.write(CTRL_C);
      assert.equal((await terminal.exited).code, 0, JSON.stringify(output));
      const lines = output.split(/\r?\n/).filter((line) => line !== '');
      assert.match(output, /code 0\r?\n/);
      assert.equal(lines.at(-1), lines[0], 'settings of the terminal');
      assert.match(lines[0]!, /^[0-9a-f]+(:[0-9a-f]+)+$/);
      assert.deepEqual(modesLeftOn(output), []);
      assert.deepEqual(problems, []);
    });
  }
});
