import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, rmdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { SubnetEnvContent } from '../node-files/subnet-env.ts';
import { SubnetEnvKeeper } from './subnet-env-keeper.ts';

const config = parseNetConf('{"Network": "10.244.0.0/16"}', {
  source: 'test',
  validation: 'full',
  backends: backendKind,
});
const never = new AbortController().signal;

function content(mtuBytes: number): SubnetEnvContent {
  return { config, subnets: { ipv4: parsePrefix4('10.244.1.0/24')!, ipv6: undefined }, mtuBytes, ipMasq: true };
}

test('what cannot be written is a failure, is tried again, and the last that was wanted counts', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'weft-subnet-env-'));
  try {
    const path = join(directory, 'subnet.env');
    // A directory in its place: no rename can replace it.
    await mkdir(path);
    const said: string[] = [];
    const log = { info: (text: string) => void said.push(text), warn: (text: string) => void said.push(text) };
    await using keeper = new SubnetEnvKeeper({ path, log, retryMs: 5 });
    assert.equal(keeper.failure, undefined);
    keeper.set(content(1400));
    await assert.rejects(keeper.settled(never), { code: 'WEFT_SUBNET_FILE_UNWRITABLE' });
    assert.match(keeper.failure ?? '', /^Failed to write subnet file: cannot write the subnet file/);
    keeper.set(content(1500));
    await rmdir(path);
    await eventually('it is written', () => keeper.failure === undefined);
    await keeper.settled(never);
    assert.match(await readFile(path, 'utf8'), /^FLANNEL_MTU=1500$/m);
    assert.deepEqual(said.length, 2, said.join('\n'));
    keeper.set(content(1300));
    await keeper.settled(never);
    assert.match(await readFile(path, 'utf8'), /^FLANNEL_MTU=1300$/m);
  } finally {
    await rm(directory, { recursive: true });
  }
});
