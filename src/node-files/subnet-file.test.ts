import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { WeftError } from '../errors.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import { previousSubnets, readSubnetFile, writeSubnetFile } from './subnet-file.ts';

const config = parseNetConf('{"Network":"10.42.0.0/16"}', {
  source: 'test',
  validation: 'full',
  backends: backendKind,
});
const content = {
  config,
  subnets: { ipv4: parsePrefix4('10.42.7.0/24')!, ipv6: undefined },
  mtuBytes: 1472,
  ipMasq: true,
};
const TEXT = 'FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';

async function temporaryDirectory(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), 'weft-subnet-file-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

async function modeOf(path: string): Promise<number> {
  return (await stat(path)).mode & 0o777;
}

describe('subnet file', () => {
  it('that is a directory says so, and what makes one', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'subnet.env');
    await mkdir(path);
    await assert.rejects(writeSubnetFile(path, content), {
      code: 'WEFT_SUBNET_FILE_UNWRITABLE',
      message: `cannot write the subnet file ${path}: it is a directory`,
      hint: /^Remove it \(rmdir .*container runtimes make a directory of what is to be mounted as a file/,
    });
    assert.deepEqual(await readdir(directory.path), ['subnet.env']);
  });

  it('is written into a new directory, readable by everyone whatever the umask, and leaves nothing else', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'run', 'flannel', 'subnet.env');
    const umask = process.umask(0o077);
    try {
      await writeSubnetFile(path, content);
    } finally {
      process.umask(umask);
    }
    assert.equal(await readFile(path, 'utf8'), TEXT);
    assert.equal(await modeOf(path), 0o644);
    assert.deepEqual(await readdir(join(directory.path, 'run', 'flannel')), ['subnet.env']);
  });

  it('is replaced, not rewritten: who has the old one open goes on reading it', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'subnet.env');
    await writeFile(path, 'old\n', { mode: 0o600 });
    const before = await stat(path);
    await writeSubnetFile(path, content);
    assert.notEqual((await stat(path)).ino, before.ino);
    assert.equal(await modeOf(path), 0o644);
    assert.equal(await readFile(path, 'utf8'), TEXT);
  });

  it('says what to do when it cannot be written, and keeps what is there', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'subnet.env');
    await mkdir(path);
    await assert.rejects(writeSubnetFile(path, content), (error: unknown) => {
      assert.ok(error instanceof WeftError);
      assert.equal(error.code, 'WEFT_SUBNET_FILE_UNWRITABLE');
      assert.ok(error.message.startsWith(`cannot write the subnet file ${path}: `), error.message);
      assert.match(error.hint ?? '', /--subnet-file/);
      return true;
    });
    assert.deepEqual(await readdir(directory.path), ['subnet.env']);
    const below = join(directory.path, 'file', 'subnet.env');
    await writeFile(join(directory.path, 'file'), '');
    await assert.rejects(writeSubnetFile(below, content), { code: 'WEFT_SUBNET_FILE_UNWRITABLE' });
  });

  it('gives the signal its way', async () => {
    await using directory = await temporaryDirectory();
    const reason = new Error('stopped');
    const signal = AbortSignal.abort(reason);
    await assert.rejects(writeSubnetFile(join(directory.path, 'subnet.env'), content, signal), reason);
    await assert.rejects(readSubnetFile(join(directory.path, 'subnet.env'), signal), reason);
    assert.deepEqual(await readdir(directory.path), []);
  });
});

describe('previous lease', () => {
  const both = parseNetConf(
    '{"Network":"10.42.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/56","Backend":{"Type":"vxlan"}}',
    { source: 'test', validation: 'full', backends: backendKind },
  );

  function recorder(): { lines: string[]; warn(message: string): void } {
    const lines: string[] = [];
    return { lines, warn: (message) => void lines.push(message) };
  }

  it('is what was written', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'subnet.env');
    const subnets = { ipv4: parsePrefix4('10.42.7.0/24'), ipv6: parsePrefix6('fd00:0:0:9::/64') };
    await writeSubnetFile(path, { ...content, config: both, subnets });
    const log = recorder();
    const file = await readSubnetFile(path);
    assert.deepEqual(previousSubnets(file, path, both, log), subnets);
    // IPv6 has been turned off since: the IPv4 subnet is still worth having.
    assert.deepEqual(previousSubnets(file, path, config, log), { ipv4: subnets.ipv4, ipv6: undefined });
    assert.deepEqual(log.lines, []);
  });

  it('is none, without a word, before the first start', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'subnet.env');
    const log = recorder();
    assert.equal(previousSubnets(await readSubnetFile(path), path, config, log), undefined);
    assert.deepEqual(log.lines, []);
  });

  it('is none, with a word, when the file is of no use', async () => {
    await using directory = await temporaryDirectory();
    const path = join(directory.path, 'subnet.env');
    await writeFile(path, 'FLANNEL_SUBNET=junk\n');
    const log = recorder();
    assert.equal(previousSubnets(await readSubnetFile(path), path, config, log), undefined);
    assert.deepEqual(log.lines, [
      `FLANNEL_SUBNET in ${path}: "junk" is not a subnet of that family`,
      `no subnet found for key: FLANNEL_SUBNET in file: ${path}`,
    ]);
    await rm(path);
    await mkdir(path);
    assert.equal(previousSubnets(await readSubnetFile(path), path, config, log), undefined);
    assert.match(log.lines.at(-1) ?? '', /^cannot read the previous subnet from .*: it is a directory$/);
  });
});
