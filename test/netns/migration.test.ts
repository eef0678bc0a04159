import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { type RecordedFlannel, startRecordedFlannel } from './recorded-flannel.ts';
import { eventually, LineFeed } from './waiting.ts';

const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
const NETWORK = '10.244.0.0/16';
const OURS = `${NETWORK} dev flannel0 proto 241 metric 100`;

/** A host that changes from weft to flannel and back, beside one that stays with weft. */
describe('a host that changes between weft and flannel', () => {
  const { signal } = new AbortController();
  let overlay: Overlay;
  let topology: Topology;
  let host: LabHost;
  let other: LabHost;

  before(async () => {
    overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, agentFlags: ['--fast-path=auto'] }, signal);
    ({ topology } = overlay);
    [other, host] = [topology.hosts[0]!, topology.hosts[1]!];
  });
  after(() => topology?.[Symbol.asyncDispose]());

  const routes = async (): Promise<string[]> => {
    const { stdout } = await topology.exec(host, ['ip', '-N', 'route', 'show', NETWORK]);
    return stdout
      .split('\n')
      .filter(Boolean)
      .map((line) => line.replace(/ linkdown/, '').trim());
  };
  const flannelDevices = async (): Promise<string[]> =>
    Array.from(
      (await topology.exec(host, ['ip', '-o', 'link', 'show'])).stdout.matchAll(/^\d+: (flannel\d+)/gm),
      (match) => match[1]!,
    );
  const reach = async (): Promise<void> => {
    const [here, there] = [host.containers[0]!, other.containers[0]!];
    for (const [from, to] of [
      [here, there],
      [there, here],
    ] as const) {
      await eventually(
        `${from.name} reaches ${to.name}`,
        async () => (await ping(topology, from, addressOf(to))).ok || undefined,
      );
    }
  };
  const stopWeft = async (how: NodeJS.Signals): Promise<void> => {
    const { child } = overlay.agents[host.index]!;
    child.kill(how);
    await child.exited;
  };
  const startFlannel = (): Promise<RecordedFlannel> => {
    const subnetBase = formatIpv4(host.network!.subnet.addr);
    return startRecordedFlannel(topology, host, other, { subnetBase, network: NETWORK, mtuBytes: 1472 });
  };
  const cleanup = async (): Promise<void> => {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'cleanup'];
    const files = ['--subnet-file', `${host.stateDirectory}/subnet.env`, '--cni-conf-dir', host.stateDirectory];
    await topology.exec(host, [...argv, ...files]);
  };

  for (const how of ['SIGTERM', 'SIGKILL'] as const) {
    it(`to flannel without weft cleanup (${how}): flannel makes a second device, and its route goes before ours`, async () => {
      await reach();
      assert.deepEqual(await routes(), [OURS]);
      await stopWeft(how);
      await using flannel = await startFlannel();
      assert.equal(flannel.device, 'flannel1');
      assert.deepEqual(await routes(), [`${NETWORK} dev flannel1`, OURS]);
      await reach();
    });

    it(`and to weft again (${how}): its own device and route are taken up, and nothing of flannel is left`, async () => {
      await overlay.startAgent(host, signal);
      await reach();
      assert.deepEqual(await flannelDevices(), ['flannel0']);
      assert.deepEqual(await routes(), [OURS]);
    });
  }

  it('to flannel after weft cleanup: flannel finds the host as if weft had never been there', async () => {
    await stopWeft('SIGTERM');
    await cleanup();
    assert.deepEqual([await flannelDevices(), await routes()], [[], []]);
    await using flannel = await startFlannel();
    assert.equal(flannel.device, 'flannel0');
    assert.deepEqual(await routes(), [`${NETWORK} dev flannel0`]);
    await reach();
    await flannel[Symbol.asyncDispose]();
    await overlay.startAgent(host, signal);
    await reach();
    assert.deepEqual(await routes(), [OURS]);
  });

  it('from a weft whose route had no metric: the new route is there before the old one goes, and no other stays', async () => {
    await stopWeft('SIGTERM');
    await topology.ipBatch(host, `route del ${NETWORK}\nroute add ${NETWORK} dev flannel0 proto 241\n`);
    await using monitor = await topology.start(host, ['ip', '-N', 'monitor', 'route'], { stdout: 'pipe' });
    const feed = new LineFeed(monitor.stdout!);
    await overlay.startAgent(host, signal);
    const gone = await feed.find((text) => text.startsWith(`Deleted ${NETWORK} dev flannel0`));
    const added = await feed.find((text) => text.startsWith(NETWORK) && text.includes('metric 100'));
    assert.ok(feed.seen.indexOf(added) < feed.seen.indexOf(gone), 'the new one first');
    assert.deepEqual(await routes(), [OURS]);
    await reach();
  });

  it('a route of somebody else’s to the network is told of, and ours counts again when it is gone', async () => {
    await topology.ipBatch(host, `route add ${NETWORK} dev eth0\n`);
    await eventually(
      'a warning',
      async () => (await overlay.log(host)).includes('already routed by another program') || undefined,
    );
    await topology.ipBatch(host, `route del ${NETWORK} dev eth0 metric 0\n`);
    await reach();
    assert.deepEqual(await routes(), [OURS]);
  });
});
