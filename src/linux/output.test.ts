import assert from 'node:assert/strict';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openOutput } from './output.ts';
import { run, start } from './run.ts';

let dir: string;
before(() => {
  dir = mkdtempSync(join(tmpdir(), 'weft-output-'));
});
after(() => rmSync(dir, { recursive: true, force: true }));

const LINE = `${'x'.repeat(99)}\n`;

/** A pipe whose reader does nothing by itself. */
async function pipe(name: string): Promise<{ readonly reader: number; readonly writer: number }> {
  const path = join(dir, name);
  await run(['mkfifo', path]);
  const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  return { reader, writer: openSync(path, constants.O_WRONLY) };
}

function drain(reader: number): string {
  let text = '';
  const chunk = Buffer.alloc(65_536);
  for (;;) {
    try {
      const length = readSync(reader, chunk);
      if (length === 0) return text;
      text += chunk.toString('utf8', 0, length);
    } catch {
      return text;
    }
  }
}

test('a full pipe takes nothing more and is not waited for; once it is read it takes lines again, all of them whole', async () => {
  const { reader, writer } = await pipe('full');
  const output = openOutput(writer);
  let taken = 0;
  while (output(LINE)) taken++;
  assert.ok(taken > 100, `${taken}`);
  assert.equal(output(LINE), false);
  let text = drain(reader);
  assert.equal(output('again\n'), true);
  text += drain(reader);
  assert.match(text, /^(x{99}\n)+again\n$/);
  closeSync(reader);
  closeSync(writer);
});

test('a line that is longer than what fits is not torn by the next', async () => {
  const { reader, writer } = await pipe('long');
  const output = openOutput(writer);
  assert.equal(output(`${'y'.repeat(300_000)}\n`), true);
  assert.equal(output('no room yet\n'), false);
  let text = '';
  while (!text.endsWith('after\n')) {
    text += drain(reader);
    if (output('after\n')) text += drain(reader);
  }
  assert.equal(text, `${'y'.repeat(300_000)}\nafter\n`);
  closeSync(reader);
  closeSync(writer);
});

test('a pipe that nobody reads any more takes nothing, before and after it was opened', async () => {
  const { reader, writer } = await pipe('closed');
  const before = openOutput(writer);
  assert.equal(before(LINE), true);
  closeSync(reader);
  assert.equal(before(LINE), false);
  assert.equal(openOutput(writer)(LINE), false);
  closeSync(writer);
});

test('a full disk takes nothing', () => {
  const full = openSync('/dev/full', 'w');
  assert.equal(openOutput(full)(LINE), false);
  closeSync(full);
});

test('a file goes on where it is, also when others write to it', () => {
  const path = join(dir, 'file');
  const file = openSync(path, 'w');
  const output = openOutput(file);
  assert.equal(output('one\n'), true);
  assert.equal(openOutput(file)('two\n'), true);
  assert.equal(output('three\n'), true);
  assert.equal(readFileSync(path, 'utf8'), 'one\ntwo\nthree\n');
  closeSync(file);
});

test('a socket, as journald gives one, is not waited for either', { timeout: 60_000 }, async () => {
  const program = `
    const { openOutput } = await import(${JSON.stringify(new URL('./output.ts', import.meta.url).href)});
    const output = openOutput(2);
    let taken = 0;
    while (output('x'.repeat(1000))) taken++;
    require('node:fs').writeFileSync(${JSON.stringify(join(dir, 'taken'))}, String(taken));
  `;
  // Node's pipes to children are sockets; this one is not read while the child writes.
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', '-e', `(async () => {${program}})()`];
  await using child = await start(argv, { stderr: 'pipe', stdout: 'ignore' });
  child.stderr?.pause();
  for (;;) {
    const taken = Number(await run(['cat', join(dir, 'taken')], { okExitCodes: 'any' }).then(({ stdout }) => stdout));
    if (taken > 0) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
});
