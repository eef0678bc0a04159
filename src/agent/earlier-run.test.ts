import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { addresses } from '../../test/fakes/host-networks.ts';
import { backendKind } from '../backend/registry.ts';
import { type FlanneldOptions, parseFlanneldOptions } from '../config/flanneld-options.ts';
import { parseNetConf } from '../config/net-conf.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import type { NewEvent } from '../events/event.ts';
import { formatPrefix } from '../ip/address.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import { type Lease, leaseKey } from '../lease/lease.ts';
import { formatLastKnown, lastKnownPath } from '../node-files/last-known.ts';
import { EarlierRun } from './earlier-run.ts';
import { describeStore } from './store-name.ts';

const { signal } = new AbortController();
const AT = new Date(1_800_000_000_000);

function conf(text: string): NetworkConfig {
  return parseNetConf(text, { source: 'test', validation: 'full', backends: backendKind });
}

const UDP = conf('{"Network":"10.244.0.0/16"}');

function leaseOf(host: number, subnet = `10.244.${host}.0/24`): Lease {
  return {
    subnets: { ipv4: parsePrefix4(subnet), ipv6: undefined },
    attrs: {
      publicAddresses: addresses(`192.168.77.${host}`),
      ...{ backendType: '', backendData: { ipv4: undefined, ipv6: undefined } },
    },
    expiresAtMs: undefined,
  };
}

describe('an earlier run', () => {
  let folder: string;
  let options: FlanneldOptions;
  let said: string[];
  let earlier: EarlierRun;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'weft-earlier-run-'));
    const parsed = parseFlanneldOptions([`--subnet-file=${join(folder, 'subnet.env')}`], {});
    assert.ok(parsed.kind === 'run');
    options = parsed.options;
    said = [];
    earlier = new EarlierRun(options, { warn: (text) => void said.push(text) });
  });
  afterEach(() => rm(folder, { recursive: true }));

  async function leave(...peers: readonly Lease[]): Promise<void> {
    const known = {
      ...{ source: describeStore(options), config: UDP, node: undefined, own: leaseOf(1), peers },
      external: { name: 'eth0', addresses: addresses('192.168.77.1') },
    };
    await writeFile(lastKnownPath(options.subnetFile), formatLastKnown(known, AT));
  }

  it('that has left nothing is unknown, and had no networks', async () => {
    assert.equal(await earlier.read(), undefined);
    assert.deepEqual([earlier.known, earlier.hadConfig(UDP)], [undefined, false]);
    assert.deepEqual(await earlier.networks(signal), []);
    assert.deepEqual(said, []);
  });

  it('is known by its file: its leases, its configuration, and when it was', async () => {
    assert.equal(earlier.isFirst, false);
    await earlier.read();
    assert.equal(earlier.isFirst, true);
    await leave(leaseOf(2));
    const known = await earlier.read();
    assert.equal(earlier.isFirst, false);
    assert.deepEqual(known?.peers.map(leaseKey), ['10.244.2.0-24']);
    assert.deepEqual(earlier.writtenAt, AT);
    assert.ok(earlier.hadConfig(conf('{"Network":"10.244.0.0/16"}')));
    assert.equal(earlier.hadConfig(conf('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}')), false);
  });

  it('of another store is not believed, and the log says why', async () => {
    await leave();
    const text = formatLastKnown(
      {
        ...{ source: 'another store', config: UDP, node: undefined, own: leaseOf(1), peers: [] },
        external: { name: 'eth0', addresses: addresses('192.168.77.1') },
      },
      AT,
    );
    await writeFile(lastKnownPath(options.subnetFile), text);
    assert.equal(await earlier.read(), undefined);
    assert.match(said.join(), /last-known\.json is not used: it is about another store/);
  });

  it('is believed of its peers as far as the gate lets them through', async () => {
    await leave(leaseOf(2), leaseOf(3, '10.250.0.0/24'));
    const known = await earlier.read();
    const rules = {
      ...{
        ipv4: UDP.ipv4,
        ipv6: undefined,
        planned: true,
        routesWholeNetwork: true,
        networksBeside: [],
        ownAddresses: [],
        onLink: [],
      },
      ...{ requireNodeAddress: false, capacity: 100 },
    };
    assert.deepEqual(earlier.believe(known!, rules).peers.map(leaseKey), ['10.244.2.0-24']);
    assert.deepEqual(earlier.known?.peers.map(leaseKey), ['10.244.2.0-24']);
  });

  it('had the networks of subnet.env', async () => {
    await writeFile(
      options.subnetFile,
      'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n',
    );
    assert.deepEqual((await earlier.networks(signal)).map(formatPrefix), ['10.244.0.0/16']);
  });

  it('with another backend is an event', async () => {
    const events: NewEvent[] = [];
    const record = (event: NewEvent): void => void events.push(event);
    earlier.noteBackend('vxlan', record);
    await leave();
    await earlier.read();
    earlier.noteBackend('udp', record);
    assert.deepEqual(events, []);
    earlier.noteBackend('vxlan', record);
    assert.deepEqual(
      events.map(({ kind, subject }) => [kind, subject]),
      [['backend-changed', 'vxlan']],
    );
  });
});
