import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { CommanderError } from 'commander';
import { ProcessLife } from '../process-life.ts';
import { VERSION } from '../version.ts';
import { weftProgram } from './program.ts';

/** What `weft WORDS` prints before it would exit, and the code. */
async function outputOf(...words: readonly string[]): Promise<{ out: string; exitCode: number }> {
  let out = '';
  const program = weftProgram(new ProcessLife('weft', () => {})).configureOutput({
    writeOut: (text) => (out += text),
    writeErr: (text) => (out += text),
  });
  const error = await program.parseAsync(words, { from: 'user' }).then(
    () => assert.fail('it does not exit'),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof CommanderError);
  return { out, exitCode: error.exitCode };
}

describe('weft', () => {
  for (const flag of ['--version', '-V']) {
    it(`prints its version: ${flag}`, async () => {
      assert.deepEqual(await outputOf(flag), { out: `${VERSION}\n`, exitCode: 0 });
    });
  }

  it('lists its commands by what they are for', async () => {
    const { out, exitCode } = await outputOf('--help');
    assert.equal(exitCode, 0);
    const groups = [...out.matchAll(/^(\S.*):$/gm)].map(([, title]) => title);
    assert.deepEqual(
      groups.filter((title) => title !== 'Options' && title !== 'Commands'),
      ['Ask the agent', 'Find what is broken', 'Set up and remove', 'Without a cluster'],
    );
  });
});
