import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, assertPings, Overlay, ping } from './overlay.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

const FAR = '10.99.0.3';
const NEAR = '192.168.77.203';
const ROUTER = '10.99.0.254';
const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}';

const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));

interface StatusJson {
  readonly healthy: boolean;
  readonly problems: readonly { readonly severity: string; readonly text: string; readonly remedy: string }[];
  readonly peers: readonly { readonly id: string; readonly path: string }[];
}

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

  it('is a problem in weft status, which says so with its exit code', async () => {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'status', '--json'];
    const subnet = formatPrefix4(overlay.agents[far.index]!.network.subnet);
    // The agent may yet have to hear of the host on the link, and a busy machine may lose probes to it.
    await eventuallyHolds(async () => {
      const { stdout, exitCode } = await overlay.topology.exec(
        here,
        [...argv, '--socket', join(here.stateDirectory, 'weft.sock')],
        { okExitCodes: 'any' },
      );
      const { healthy, problems, peers } = JSON.parse(stdout) as StatusJson;
      assert.deepEqual([exitCode, healthy, problems.length], [1, false, 1], stdout);
      const [problem] = problems;
      assert.equal(problem?.severity, 'error');
      assert.ok(problem.text.includes(`Cannot reach ${subnet}: its address ${FAR} is not on the link of eth0`));
      assert.ok(problem.remedy !== '');
      assert.deepEqual(peers.map(({ id, path }) => [id === subnet, path]).sort(), [
        [false, 'direct'],
        [true, 'skipped'],
      ]);
    });
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

describe('vxlan with DirectRouting', () => {
  it('goes straight to a host on the link, and through the tunnel to one behind a router', async () => {
    const signal = AbortSignal.timeout(120_000);
    const topology = await Topology.create({ hosts: 3, containersPerHost: 1, store: true, purpose: 'test' }, signal);
    const netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": true}}';
    await using overlay = Overlay.on(topology, await openSubnetStore('local', topology, netConf, signal));
    const [here, near, far] = topology.hosts as unknown as [LabHost, LabHost, LabHost];
    const router = topology.store!;
    await topology.ipBatch(router, `address add ${ROUTER}/24 dev eth0\n`);
    const quiet = ['all', 'eth0'].map((name) => `net.ipv4.conf.${name}.send_redirects=0`);
    await topology.exec(router, ['sysctl', '-qw', 'net.ipv4.ip_forward=1', ...quiet]);
    for (const host of [here, near])
      await topology.ipBatch(host, `route add 10.99.0.0/24 via ${formatIpv4(router.address)}\n`);
    const moved = [`address flush dev eth0`, `address add ${FAR}/24 dev eth0`, `route add default via ${ROUTER}`];
    await topology.ipBatch(far, `${moved.join('\n')}\n`);
    await overlay.startAll(signal);

    const subnet = (host: LabHost) => overlay.agents[host.index]!.network.subnet;
    const base = formatIpv4(subnet(far).addr);
    await eventuallyHolds(async () => {
      const { stdout } = await topology.exec(here, ['ip', 'route', 'show', 'proto', '241']);
      assert.deepEqual(
        stdout
          .split('\n')
          .map((line) => line.trim())
          .filter((line) => line !== '')
          .sort(),
        [
          `${formatPrefix4(subnet(near))} via ${formatIpv4(near.address)} dev eth0`,
          `${formatPrefix4(subnet(far))} via ${base} dev flannel.1 onlink`,
        ].sort(),
      );
      await assertPings(topology, topology.hosts);
    });
    const fdb = (await topology.exec(here, ['bridge', 'fdb', 'show', 'dev', 'flannel.1'])).stdout;
    assert.deepEqual(
      [...fdb.matchAll(/ dst (\S+) /g)].map((match) => match[1]),
      [FAR],
    );
    assert.match(await overlay.ask(here, '/metrics'), /^weft_skipped_peers 0$/m);
  });
});
