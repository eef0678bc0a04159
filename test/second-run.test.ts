import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../scripts/packaging/architecture.ts';
import { run } from '../src/linux/run.ts';

const SCRIPT = fileURLToPath(new URL('../scripts/test.sh', import.meta.url));

const FLAKY = `
import { existsSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
const mark = import.meta.filename + '.mark';
describe('a group', () => it('fails once', () => {
  if (existsSync(mark)) return;
  writeFileSync(mark, '');
  throw new Error('too busy');
}));
`;
const BROKEN = `
import { before, describe, it } from 'node:test';
describe('a group', () => {
  before(() => { throw new Error('never ready'); });
  it('never passes', () => {});
});
`;
const GOOD = `import { it } from 'node:test'; console.log('good runs'); it('passes', () => {});`;
const CRASHES = `import { it } from 'node:test'; it('passes', () => {}); setTimeout(() => process.exit(3), 100);`;

describe('scripts/test.sh: files of a suite that failed', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'weft-second-run-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  async function suite(files: Readonly<Record<string, string>>, { ci = true, name = 'netns' } = {}) {
    const paths = Object.entries(files).map(([file, text]) => {
      const path = join(folder, `${file}.test.ts`);
      writeFileSync(path, text);
      return path;
    });
    const { exitCode, stdout } = await run(['env', `CI=${ci}`.replace('false', ''), SCRIPT, name, ...paths], {
      okExitCodes: 'any',
      timeoutMs: 120_000,
    });
    const list = (title: string): string[] =>
      new RegExp(`^===== ${title}: (.*)$`, 'm').exec(stdout)?.[1]?.match(/[\w-]+(?=\.test\.ts)|none/g) ?? [];
    return { exitCode, stdout, passedAlone: list('failed at first, passed alone'), failedTwice: list('failed twice') };
  }

  it('are run once more, alone: one that passes then is named, with what failed at first', async () => {
    const { exitCode, stdout, passedAlone, failedTwice } = await suite({ 'flaky-one': FLAKY, good: GOOD });
    assert.deepEqual([exitCode, passedAlone, failedTwice], [0, ['flaky-one'], ['none']], stdout);
    assert.match(
      stdout,
      /^===== what failed at first:\n\S*flaky-one\.test\.ts\n {4}✖ fails once\n {4}Error: too busy$/m,
    );
    assert.equal(stdout.match(/^good runs$/gm)?.length, 1);
  });

  it('have said when they started and ended, like the others', async () => {
    const { stdout } = await suite({ 'flaky-nine': FLAKY, quick: GOOD });
    const lines = stdout.match(/^weft: after \d+ s: .*$/gm)?.map((line) => line.replace(/.*\/|\d+ s$/g, ''));
    assert.deepEqual(lines?.toSorted(), [
      'flaky-nine.test.ts failed, ',
      'flaky-nine.test.ts starts',
      'quick.test.ts passed, ',
      'quick.test.ts starts',
    ]);
  });

  it('are those of the unit tests, too', async () => {
    const { exitCode, passedAlone } = await suite({ 'flaky-8': FLAKY }, { name: 'unit' });
    assert.deepEqual([exitCode, passedAlone], [0, ['flaky-8']]);
  });

  it('fail the suite when they fail again, whatever else passes', async () => {
    const { exitCode, stdout, passedAlone, failedTwice } = await suite({ 'flaky-two': FLAKY, broken: BROKEN });
    assert.deepEqual([exitCode, passedAlone, failedTwice], [1, ['flaky-two'], ['broken']], stdout);
    assert.match(stdout, /^===== what failed at first:\n(?:.*\n)+ {4}Error: never ready$/m);
  });

  it('are those whose process failed, too', async () => {
    const { exitCode, stdout, failedTwice } = await suite({ crashes: CRASHES });
    assert.deepEqual([exitCode, failedTwice], [1, ['crashes']], stdout);
  });

  it('are not run again when they are many, or are named by hand', async () => {
    const many = { 'flaky-3': FLAKY, 'flaky-4': FLAKY, 'flaky-5': FLAKY, 'flaky-6': FLAKY };
    for (const { exitCode, stdout } of [await suite(many), await suite({ 'flaky-7': FLAKY }, { ci: false })]) {
      assert.equal(exitCode, 1, stdout);
      assert.doesNotMatch(stdout, /=====/);
    }
  });
});

describe('scripts/test.sh browser', () => {
  const folder = mkdtempSync(join(tmpdir(), 'weft-make-'));
  after(() => rmSync(folder, { recursive: true }));

  it('builds the page before its tests, or does not run them', async () => {
    writeFileSync(join(folder, 'make'), `#!/bin/sh\necho "$@" >>${folder}/made\nexit 7\n`, { mode: 0o755 });
    writeFileSync(join(folder, 'good.test.ts'), GOOD);
    const suite = (name: string) =>
      run(['env', `PATH=${folder}:${process.env.PATH}`, SCRIPT, name, join(folder, 'good.test.ts')], {
        okExitCodes: 'any',
      });
    assert.equal((await suite('unit')).exitCode, 0);
    const { exitCode, stdout } = await suite('browser');
    assert.deepEqual([exitCode, stdout], [7, '']);
    assert.match(readFileSync(join(folder, 'made'), 'utf8'), /^\S* ?dist\/page\/index\.html\n$/);
  });

  it('has a page that is built anew when something that goes into it has changed, or is gone', async () => {
    const { stdout } = await run(['make', '-pn', 'dist/page/index.html'], { cwd: ROOT });
    const [, files = ''] = /^dist\/page\/index\.html: (.*)$/m.exec(stdout) ?? [];
    for (const path of ['web/src/app.tsx', 'web/src/model', 'package-lock.json', 'scripts/packaging/page.ts'])
      assert.ok(files.split(' ').includes(path), path);
    assert.doesNotMatch(files, /\.test\.ts/);
  });
});
