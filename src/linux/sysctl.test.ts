import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isSysctlWritable, readSysctl, setSysctl } from './sysctl.ts';

async function tree(): Promise<{ root: string } & AsyncDisposable> {
  const root = await mkdtemp(join(tmpdir(), 'weft-sysctl-'));
  await mkdir(join(root, 'net/ipv4'), { recursive: true });
  await writeFile(join(root, 'net/ipv4/ip_forward'), '0\n');
  return { root, [Symbol.asyncDispose]: () => rm(root, { recursive: true }) };
}

describe('sysctl', () => {
  it('reads the kernel', async () => {
    assert.match((await readSysctl('kernel/ostype')) ?? '', /^Linux$/);
    assert.equal(await readSysctl('net/ipv4/conf/no-such-if/rp_filter'), undefined);
  });

  it('changes what is different', async () => {
    await using t = await tree();
    assert.equal(await setSysctl('net/ipv4/ip_forward', '1', t), true);
    assert.equal(await readSysctl('net/ipv4/ip_forward', t), '1');
    assert.equal(await readFile(join(t.root, 'net/ipv4/ip_forward'), 'utf8'), '1\n');
    assert.equal(await setSysctl('net/ipv4/ip_forward', '1', t), false);
  });

  it('says what it could not do, to what, and what to do', async () => {
    await using t = await tree();
    await assert.rejects(setSysctl('net/ipv4/nothing', '1', t), {
      code: 'WEFT_SYSCTL_FAILED',
      message: `failed to set ${t.root}/net/ipv4/nothing to "1": ENOENT`,
      hint: 'This kernel does not have this setting: load the module that provides it.',
    });
    await assert.rejects(setSysctl('kernel/ostype', 'Plan 9'), {
      code: 'WEFT_SYSCTL_FAILED',
      message: /^failed to set \/proc\/sys\/kernel\/ostype to "Plan 9": E/,
    });
    await mkdir(join(t.root, 'net/ipv4/conf'));
    await assert.rejects(readSysctl('net/ipv4/conf', t), { message: `failed to read ${t.root}/net/ipv4/conf: EISDIR` });
  });

  it('knows what it could set', async () => {
    await using t = await tree();
    assert.equal(await isSysctlWritable('net/ipv4/ip_forward', t), true);
    assert.equal(await isSysctlWritable('net/ipv4/nothing', t), false);
    assert.equal(await isSysctlWritable('kernel/ostype'), false);
  });

  it('does not leave its folder', async () => {
    for (const name of ['', 'net', '../etc/passwd', 'net/../../etc/passwd', '/etc/passwd', 'net//x']) {
      await assert.rejects(readSysctl(name), TypeError, name);
    }
  });
});
