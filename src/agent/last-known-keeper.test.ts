import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { addresses } from '../../test/fakes/host-networks.ts';
import { eventually } from '../../test/netns/waiting.ts';
import { backendKind } from '../backend/registry.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import { type LastKnown, lastKnownPath, readLastKnown } from '../node-files/last-known.ts';
import { LastKnownKeeper } from './last-known-keeper.ts';

let folder: string;
let warnings: string[];
const log = { warn: (text: string) => void warnings.push(text) } as unknown as Log;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weft-keeper-'));
  warnings = [];
});
afterEach(() => rm(folder, { recursive: true }));

function known(peers: number): LastKnown {
  const lease = (index: number): Lease => ({
    subnets: { ipv4: parsePrefix4(`10.244.${index}.0/24`), ipv6: undefined },
    attrs: {
      publicAddresses: { ipv4: parseIpv4(`192.168.77.${index}`), ipv6: undefined },
      backendType: '',
      backendData: { ipv4: undefined, ipv6: undefined },
    },
    expiresAtMs: undefined,
  });
  return {
    source: 'test',
    config: parseNetConf('{"Network": "10.244.0.0/16"}', { source: 'test', validation: 'full', backends: backendKind }),
    node: undefined,
    external: { name: 'eth0', addresses: addresses('192.168.77.1') },
    own: lease(1),
    peers: Array.from({ length: peers }, (_, index) => lease(index + 2)),
  };
}

async function peersOnDisk(): Promise<number | undefined> {
  const result = await readLastKnown(join(folder, 'subnet.env'), 'test', backendKind);
  return result.kind === 'read' ? result.known.peers.length : undefined;
}

test('the first is written without being waited for, the last at the latest at the end', async () => {
  {
    await using keeper = new LastKnownKeeper(join(folder, 'subnet.env'), log);
    keeper.keep(() => known(1));
    assert.equal(await eventually('it is written', peersOnDisk), 1);
    for (let peers = 2; peers <= 30; peers++) keeper.keep(() => known(peers));
  }
  assert.equal(await peersOnDisk(), 30);
});

test('what cannot be written is said once, and stops nothing', async () => {
  const subnetFile = join(folder, 'subnet.env');
  await mkdir(lastKnownPath(subnetFile));
  {
    await using keeper = new LastKnownKeeper(subnetFile, log);
    keeper.keep(() => known(1));
    await eventually('it is said', () => warnings.length > 0 || undefined);
    keeper.keep(() => known(2));
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /last-known\.json/);
});
