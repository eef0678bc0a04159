import assert from 'node:assert/strict';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { installPlugins } from './install-plugins.ts';
import { PLUGIN_MARK } from './plugin-mark.ts';

let folder: string;
let binDir: string;
let source: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-install-'));
  [binDir, source] = [join(folder, 'host', 'bin'), join(folder, 'image')];
  mkdirSync(source);
});
afterEach(() => rmSync(folder, { recursive: true }));

const program = (path: string, text: string, mode = 0o755): void => {
  writeFileSync(path, text);
  chmodSync(path, mode);
};
const ours = (version: string): string => `#!/bin/sh\n# ${'x'.repeat(3_000_000)} ${PLUGIN_MARK} ${version}\n`;
const install = (plugins: readonly string[], sources = [source]) => installPlugins({ plugins, binDir, sources });
const text = (name: string): string => readFileSync(join(binDir, name), 'utf8');

describe('installPlugins', () => {
  it('puts what is missing into a folder it makes, executable, from the first source that has it; again does nothing', async () => {
    const other = join(folder, 'other');
    mkdirSync(other);
    program(join(source, 'bridge'), 'bridge of the image');
    program(join(other, 'bridge'), 'another bridge');
    program(join(other, 'portmap'), 'portmap', 0o6755);
    const outcomes = await install(['bridge', 'portmap'], [join(folder, 'none'), source, other]);
    assert.deepEqual(outcomes, [
      { name: 'bridge', status: 'installed', from: join(source, 'bridge') },
      { name: 'portmap', status: 'installed', from: join(other, 'portmap') },
    ]);
    assert.equal(text('bridge'), 'bridge of the image');
    // No program is setuid, whatever the source is.
    for (const name of ['bridge', 'portmap']) assert.equal(statSync(join(binDir, name)).mode & 0o7777, 0o755, name);
    assert.deepEqual(
      (await install(['bridge', 'portmap'])).map(({ status }) => status),
      ['present', 'present'],
    );
    assert.deepEqual(readdirSync(binDir).sort(), ['bridge', 'portmap']);
  });

  it('overwrites nothing that is there, also not when it comes while the copy is made', async () => {
    mkdirSync(binDir, { recursive: true });
    program(join(source, 'bridge'), 'ours');
    program(join(source, 'host-local'), 'y'.repeat(30_000_000));
    program(join(binDir, 'bridge'), "the administrator's");
    assert.deepEqual(await install(['bridge']), [{ name: 'bridge', status: 'present' }]);
    assert.equal(text('bridge'), "the administrator's");
    const [first, second] = await Promise.all([install(['host-local']), install(['host-local'])]);
    assert.deepEqual([first[0]!.status, second[0]!.status].sort(), ['installed', 'present']);
    assert.deepEqual(readdirSync(binDir).sort(), ['bridge', 'host-local']);
  });

  it("replaces the plugin flannel when it is an older one of weft's, and leaves flannel's own", async () => {
    mkdirSync(binDir, { recursive: true });
    program(join(source, 'flannel'), ours('2'));
    program(join(binDir, 'flannel'), ours('1'));
    assert.deepEqual(await install(['flannel']), [
      { name: 'flannel', status: 'updated', from: join(source, 'flannel') },
    ]);
    assert.equal(text('flannel'), ours('2'));
    assert.deepEqual(await install(['flannel']), [{ name: 'flannel', status: 'present' }]);
    program(join(binDir, 'flannel'), 'CNI Plugin flannel version v1.9.1-flannel3');
    assert.deepEqual(await install(['flannel']), [{ name: 'flannel', status: 'present' }]);
    assert.equal(text('flannel'), 'CNI Plugin flannel version v1.9.1-flannel3');
    assert.deepEqual(readdirSync(binDir), ['flannel']);
  });

  it('says what is missing, or there and of no use, and how to get it', async () => {
    mkdirSync(binDir, { recursive: true });
    program(join(source, 'tuning'), 'text', 0o644);
    program(join(binDir, 'bridge'), 'text', 0o644);
    program(join(binDir, 'portmap'), '');
    symlinkSync(join(folder, 'nowhere'), join(binDir, 'loopback'));
    mkdirSync(join(binDir, 'host-local'));
    const outcomes = await install(['tuning', 'my-own', 'bridge', 'portmap', 'loopback', 'host-local']);
    assert.deepEqual(
      outcomes.map((outcome) => outcome.status),
      Array(6).fill('missing'),
    );
    const remedies = outcomes.map((outcome) => (outcome.status === 'missing' ? outcome.remedy : ''));
    assert.match(remedies[0]!, /tuning does not exist\. (?:Install the reference CNI plugins|It is in)/);
    assert.match(remedies[1]!, /my-own does not exist\. Install that CNI plugin there/);
    assert.equal(remedies[2], `${join(binDir, 'bridge')} is not executable. chmod 755 ${join(binDir, 'bridge')}`);
    assert.match(remedies[3]!, /is empty/);
    assert.match(remedies[4]!, /is a dangling symbolic link/);
    assert.match(remedies[5]!, /is not a file/);
  });

  it('names the folder that cannot be written', async () => {
    program(join(source, 'bridge'), 'text');
    writeFileSync(join(folder, 'host'), '');
    await assert.rejects(install(['bridge']), {
      code: 'WEFT_OUTPUT_UNWRITABLE',
      message: /could not install the CNI plugin .*host\/bin\/bridge: /,
    });
  });
});
