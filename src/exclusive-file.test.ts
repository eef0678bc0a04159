import assert from 'node:assert/strict';
import {
  existsSync,
  globSync,
  linkSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { writeFileAtomically } from './atomic-file.ts';
import { saveConfig } from './cmd/cni/saved-config.ts';
import { readStartupError, recordStartupError } from './node-files/last-error.ts';

/** Every way in which the programs write a file, with the names that their temporary files have. */
const WRITERS: readonly {
  readonly what: string;
  readonly temporary: string;
  readonly write: (folder: string) => unknown;
  readonly written: (folder: string) => string | undefined;
}[] = [
  {
    what: 'subnet.env, what was known last and CNI configurations',
    temporary: `.target.${process.pid}`,
    write: (folder) => writeFileAtomically(join(folder, 'target'), 'text'),
    written: (folder) => readFileSync(join(folder, 'target'), 'utf8'),
  },
  {
    what: 'the last start-up error',
    temporary: `.last-error.${process.pid}`,
    write: (folder) => recordStartupError(folder, 'text'),
    written: (folder) => readStartupError(folder)?.text,
  },
  {
    what: 'what the CNI plugin keeps for a container',
    temporary: '.c1:eth0',
    write: (folder) => saveConfig(folder, { containerId: 'c1', ifName: 'eth0' }, 'text'),
    written: (folder) => readFileSync(join(folder, 'c1'), 'utf8'),
  },
];

describe('a temporary file', () => {
  let folder: string;
  let precious: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'weft-exclusive-'));
    precious = mkdtempSync(join(tmpdir(), 'weft-precious-'));
    writeFileSync(join(precious, 'file'), 'precious');
  });
  afterEach(() => {
    for (const made of [folder, precious]) rmSync(made, { recursive: true });
  });

  for (const { what, temporary, write, written } of WRITERS) {
    for (const [kind, plant] of [
      ['a symbolic link', (at: string) => symlinkSync(join(precious, 'file'), at)],
      ['a symbolic link to nothing', (at: string) => symlinkSync(join(precious, 'none'), at)],
      ['a hard link', (at: string) => linkSync(join(precious, 'file'), at)],
      ['a leftover', (at: string) => writeFileSync(at, 'half of an earlier and longer tex')],
    ] as const) {
      it(`of ${what} is a new one, although ${kind} has its name`, async () => {
        plant(join(folder, temporary));
        await write(folder);
        assert.equal(written(folder), 'text');
        assert.equal(readFileSync(join(precious, 'file'), 'utf8'), 'precious');
        assert.equal(existsSync(join(precious, 'none')), false);
        assert.equal(readdirSync(folder).includes(temporary), false);
      });
    }
  }

  it('is made nowhere else: the programs open no file for writing that they would have to make', () => {
    const root = fileURLToPath(new URL('..', import.meta.url));
    const found = globSync('src/**/*.ts', { cwd: root })
      .filter((path) => !path.endsWith('.test.ts') && !path.startsWith('src/lab/') && path !== 'src/exclusive-file.ts')
      .flatMap((path) => {
        const calls = readFileSync(join(root, path), 'utf8').match(
          /\b(?:writeFile(?:Sync)?|appendFile(?:Sync)?|createWriteStream|open(?:Sync)?)\((?!fd\b)[^;]*?\)/g,
        );
        const making = (calls ?? []).filter((call) => /^(?:writeFile|appendFile|createWrite)|'[wa]\+?'/.test(call));
        return making.filter((call) => !/flag: '(?:wx|r\+)'/.test(call)).map((call) => `${path}: ${call}`);
      });
    assert.deepEqual(
      found.filter((one) => !KNOWN.some((known) => one.startsWith(known))),
      [],
    );
  });
});

/** No temporary files: what the caller has named, /dev/stdout for instance; a compiler's output in memory. */
const KNOWN = [
  'src/cmd/weft/capture.ts: writeFile(bytes)',
  'src/cmd/weft/docker-opts.ts: writeFile(path, text)',
  'src/cmd/weft/test.ts: writeFile(path, text)',
  'src/atomic-file.ts: writeFile(text)',
  'src/dataplane/wasm/',
];
