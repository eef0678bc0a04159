import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually } from './waiting.ts';

const FAR = '10.99.0.3';
const NEAR = '192.168.77.203';
const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}';

describe('a peer with host-gw that is not on the link', () => {
  let overlay: Overlay;
  let here: LabHost;
  let near: LabHost;
  let far: LabHost;

  before(async () => {
    const signal = AbortSignal.timeout(120_000);
    const topology = await Topology.create({ hosts: 3, containersPerHost: 1, purpose: 'test' }, signal);
    overlay = Overlay.on(topology, await openSubnetStore('local', topology, NET_CONF, signal));
    [here, near, far] = topology.hosts as unknown as [LabHost, LabHost, LabHost];
    await topology.ipBatch(far, `address flush dev eth0\naddress add ${FAR}/24 dev eth0\n`);
    await overlay.startAll(signal);
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  const skipped = (count: number) =>
    eventually(
      `weft_skipped_peers is ${count}`,
      async () =>
        new RegExp(`^weft_skipped_peers ${count}$`, 'm').test(await overlay.ask(here, '/metrics')) || undefined,
    );
  const pings = async (to: LabHost) =>
    (await ping(overlay.topology, here.containers[0]!, addressOf(to.containers[0]!))).ok;

  it('is named by log, metric and doctor, with the reason and what to do', async () => {
    await skipped(1);
    const subnet = formatPrefix4(overlay.agents[far.index]!.network.subnet);
    const line = `Cannot reach ${subnet}: its address ${FAR} is not on the link of eth0, so it cannot be reached without a gateway`;
    assert.ok((await overlay.log(here)).includes(line));
    const found = await overlay.examine(here, 'skipped-peers');
    assert.equal(found.status, 'warn');
    assert.equal(found.found, `${line}.`);
    assert.match(found.remedy, /vxlan/);
  });

  it('keeps the node neither from being ready nor from the other peers', async () => {
    assert.match(await overlay.ask(here, '/readyz'), /^HTTP\/1\.1 200 /);
    await eventually('packets pass to the peer on the link', async () => (await pings(near)) || undefined);
  });

  it('is skipped no longer once it is on the link', async () => {
    await overlay.topology.ipBatch(far, `address flush dev eth0\naddress add ${NEAR}/24 dev eth0\n`);
    await skipped(0);
    await eventually('packets pass to it', async () => (await pings(far)) || undefined);
    assert.equal((await overlay.examine(here, 'skipped-peers')).status, 'ok');
  });
});
