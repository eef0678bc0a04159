import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { FakeKubeApi } from '../fakes/fake-kube-api.ts';
import { Flanneld, localFlags, subnetFileOf } from './flanneld.ts';
import { bringKubeApi, KUBE_API_URL } from './kube-api.ts';
import { assertPings, Overlay, ping } from './overlay.ts';
import { makeRecordedVxlan, type RecordedNode, recordedNodes, type VxlanHost } from './recorded-vxlan.ts';
import { attachStacked } from './stacked-overlay.ts';
import { eventually, eventuallyHolds, LineFeed } from './waiting.ts';

const NETWORK = '10.244.0.0/16';
/** Beyond what a host without a subnet chooses from. */
const OWN = '10.244.150';
const GONE: VxlanHost = { base: '10.244.151.0', address: '192.168.77.99', mac: '0a:8d:a6:07:29:f2' };
const signal = new AbortController().signal;

const netConf = (type: string): string => JSON.stringify({ Network: NETWORK, Backend: { Type: type } });

/** As flanneld writes it. */
function leaveSubnetEnv(host: LabHost, gateway: string, mtuBytes: number): void {
  const lines = [`FLANNEL_NETWORK=${NETWORK}`, `FLANNEL_SUBNET=${gateway}/24`, `FLANNEL_MTU=${mtuBytes}`];
  writeFileSync(subnetFileOf(host), [...lines, 'FLANNEL_IPMASQ=true', ''].join('\n'));
}

async function lines(topology: Topology, host: LabHost, ...argv: string[]): Promise<string[]> {
  const { stdout } = await topology.exec(host, argv);
  return stdout
    .split('\n')
    .map((line) => line.replace(/ linkdown/, '').trim())
    .filter((line) => line !== '');
}

/** Routes to a part of the network, by whomever, but those to this host's own containers. */
async function routesInside(topology: Topology, host: LabHost): Promise<string[]> {
  const all = await lines(topology, host, 'ip', '-N', '-d', 'route', 'show', 'root', NETWORK);
  return all
    .filter((line) => !/ dev cni0 /.test(line))
    .map((line) => line.replace(/^1 /, '').replace(/ scope 0\b/, ''));
}

describe('weft on a host where flanneld with vxlan ran, beside one where it still does', () => {
  const [own, peer, gone] = recordedNodes() as [RecordedNode, RecordedNode, RecordedNode];
  const resources = new AsyncDisposableStack();
  let topology: Topology;
  let host: LabHost;
  let other: LabHost;
  let api: FakeKubeApi;
  let indexBefore: string[];
  /** What the kernel of the host has said since before the agent was started. */
  let monitor: LineFeed;

  before(async () => {
    topology = resources.use(await Topology.create({ hosts: 2, containersPerHost: 1, purpose: 'test' }, signal));
    [host, other] = topology.hosts as [LabHost, LabHost];
    api = resources.use(await FakeKubeApi.start());
    for (const { name, annotations, podCIDR, podCIDRs } of [own, peer])
      api.put({ kind: 'Node', metadata: { name, annotations }, spec: { podCIDR, podCIDRs } });
    resources.use(await bringKubeApi(topology, host, api.port));
    for (const [at, { base, address }] of [[host, own] as const, [other, peer] as const]) {
      await topology.ipBatch(at, `address flush dev eth0\naddress add ${address}/24 dev eth0\n`);
      leaveSubnetEnv(at, base.replace(/0$/, '1'), 1450);
    }
    await makeRecordedVxlan(topology, host, own, [peer, gone]);
    await makeRecordedVxlan(topology, other, peer, [own]);
    indexBefore = await lines(topology, host, 'cat', '/sys/class/net/flannel.1/ifindex');
    const child = await topology.start(host, ['ip', 'monitor', 'route', 'neigh'], { stdout: 'pipe' });
    monitor = new LineFeed(resources.use(child).stdout!);
    const kube = ['--subnet-mgr=kube', `--kube-api-url=${KUBE_API_URL}`, '--iface=eth0', '--ip-masq'];
    const env = { NODE_NAME: own.name, KUBERNETES_SERVICE_HOST: '127.0.0.1' };
    const flags = [...localFlags(host, netConf('vxlan')), ...kube];
    const agent = resources.use(await Flanneld.start(topology, host, { flags, env }));
    await agent.logged(/^flannel is ready/);
  });
  after(() => resources[Symbol.asyncDispose]());

  it('takes away what is of a host that has gone, and nothing of the one that is there, not for a moment', async () => {
    const state = async () => ({
      routes: await routesInside(topology, host),
      neighbours: await lines(topology, host, 'ip', 'neigh', 'show', 'dev', 'flannel.1', 'nud', 'permanent'),
      fdb: (await lines(topology, host, 'bridge', 'fdb', 'show', 'dev', 'flannel.1')).filter((one) =>
        / dst /.test(one),
      ),
    });
    await eventuallyHolds(async () => {
      assert.deepEqual(await state(), {
        routes: [`${peer.podCIDR} via ${peer.base} dev flannel.1 proto 241 onlink`],
        neighbours: [`${peer.base} lladdr ${peer.mac} PERMANENT`],
        fdb: [`${peer.mac} dst ${peer.address} self permanent`],
      });
    });
    await monitor.find((text) => text.startsWith(`Deleted ${gone.podCIDR} `));
    const lost = monitor.seen.filter(
      ({ text }) => text.startsWith('Deleted') && [peer.base, peer.address].some((word) => text.includes(word)),
    );
    assert.deepEqual(lost, []);
  });

  it('keeps device, MAC address, subnet and annotations', async () => {
    const device = (file: string) => lines(topology, host, 'cat', `/sys/class/net/flannel.1/${file}`);
    assert.deepEqual([await device('ifindex'), await device('address')], [indexBefore, [own.mac]]);
    const said = api.node(own.name)?.metadata.annotations ?? {};
    for (const [key, value] of Object.entries(own.annotations)) assert.equal(said[key], value, key);
    assert.match(readFileSync(subnetFileOf(host), 'utf8'), /^FLANNEL_SUBNET=10\.244\.0\.1\/24$/m);
  });

  it('reaches the other one, and is reached, with packets of any size that fits', async () => {
    const [here, there] = [await attachStacked(topology, host, signal), await attachStacked(topology, other, signal)];
    for (const [from, to] of [[here, there] as const, [there, here] as const]) {
      for (const bytes of [56, 1450 - 28]) {
        const { ok, output } = await ping(topology, from, to.addresses[0]!, '-M', 'do', '-s', String(bytes));
        assert.ok(ok, `${from.host.name} to ${to.host.name}, ${bytes} bytes: ${output}`);
      }
    }
  });
});

describe('what flanneld has left on a host, at the first start of weft there', () => {
  /** A host with an agent, and one that flanneld has left with that subnet of its own. */
  async function withNeighbour(
    type: string,
  ): Promise<{ overlay: Overlay; host: LabHost; other: LabHost; peer: string }> {
    const topology = await Topology.create({ hosts: 2, containersPerHost: 1, purpose: 'test' }, signal);
    const [other, host] = topology.hosts as [LabHost, LabHost];
    try {
      const overlay = Overlay.on(topology, await openSubnetStore('local', topology, netConf(type), signal));
      const { network } = await overlay.startAgent(other, signal);
      await topology.attachContainers(other, network, signal);
      leaveSubnetEnv(host, `${OWN}.1`, 1450);
      return { overlay, host, other, peer: formatPrefix4(network.subnet) };
    } catch (error) {
      await topology[Symbol.asyncDispose]();
      throw error;
    }
  }

  it('udp after vxlan: the device goes with its routes, and that of another network does not', async () => {
    const { overlay, host, other, peer } = await withNeighbour('udp');
    await using _ = overlay;
    const { topology } = overlay;
    const own: VxlanHost = { base: `${OWN}.0`, address: formatIpv4(host.address), mac: '42:6e:8c:75:48:16' };
    const live = { base: peer.replace('/24', ''), address: formatIpv4(other.address), mac: 'f2:76:fa:b7:8b:f4' };
    await makeRecordedVxlan(topology, host, own, [live, GONE]);
    const elsewhere =
      'link add flannel.9 type vxlan id 9 dev eth0 dstport 8473\naddress add 10.9.1.0/32 dev flannel.9\n';
    await topology.ipBatch(host, elsewhere);
    const agent = await overlay.startAgent(host, signal);
    await topology.attachContainers(host, agent.network, signal);
    assert.equal(formatPrefix4(agent.network.subnet), `${OWN}.0/24`);
    await eventuallyHolds(async () => {
      assert.deepEqual(await routesInside(topology, host), [`${NETWORK} dev flannel0 proto 241 metric 100`]);
    });
    const links = (await lines(topology, host, 'ip', '-br', 'link')).map((line) => line.split(/[ @]/)[0]);
    assert.deepEqual(links.filter((name) => name?.startsWith('flannel')).sort(), ['flannel.9', 'flannel0']);
    assert.match(await overlay.log(host), /Left over from the previous agent: flannel\.1\./);
    await assertPings(topology, [host, other]);
  });

  it('host-gw: its routes are taken over or go, those of others stay and are named, and once weft has run so does every one', async () => {
    const { overlay, host, other, peer } = await withNeighbour('host-gw');
    await using _ = overlay;
    const { topology } = overlay;
    const via = 'via 192.168.77.99 dev eth0';
    // To the host that is there by an address that it had before, and to one that has gone.
    const left = [`${peer} ${via}`, `10.244.151.0/24 ${via}`];
    const others = [`10.244.152.0/24 ${via} proto 4`, `10.244.153.0/25 ${via}`, `10.250.0.0/24 ${via}`];
    await topology.ipBatch(host, [...left, ...others].map((route) => `route add ${route}\n`).join(''));
    const agent = await overlay.startAgent(host, signal);
    await topology.attachContainers(host, agent.network, signal);
    const wanted = `${peer} via ${formatIpv4(other.address)} dev eth0 proto 241`;
    const foreign = [`10.244.152.0/24 ${via} proto 4`, `10.244.153.0/25 ${via} proto 3`];
    await eventuallyHolds(async () => {
      assert.deepEqual((await routesInside(topology, host)).sort(), [wanted, ...foreign].sort());
    });
    assert.deepEqual(await lines(topology, host, 'ip', 'route', 'show', '10.250.0.0/24'), [`10.250.0.0/24 ${via}`]);
    const firsts = /Left over from flanneld: 2 routes by eth0, the first (\S+)/.exec(await overlay.log(host));
    assert.ok(firsts?.[1] === peer || firsts?.[1] === '10.244.151.0/24', String(firsts?.[0]));
    await assertPings(topology, [host, other]);
    const named = await overlay.examine(host, 'peer-routes');
    assert.equal(named.status, 'warn');
    for (const route of foreign) assert.ok(named.found.includes(route), named.found);

    await topology.ipBatch(host, `route add ${left[1]}\n`);
    const { child } = overlay.agents[host.index]!;
    child.kill('SIGTERM');
    await child.exited;
    await overlay.startAgent(host, signal);
    const now = await overlay.examine(host, 'peer-routes');
    assert.ok(now.found.includes(`${left[1]} proto 3`), now.found);
    await topology.ipBatch(host, `route replace ${peer} ${via} proto 4\n`);
    await eventually(
      'the log names who has taken the route',
      async () =>
        (await overlay.log(host)).includes(`${peer} is already routed by another program (${peer} ${via} proto 4)`) ||
        undefined,
    );
    const taken = await overlay.examine(host, 'peer-routes');
    assert.ok(taken.found.includes(`${peer} ${via} proto 4`), taken.found);
    assert.match(readFileSync(subnetFileOf(host), 'utf8'), new RegExp(`FLANNEL_SUBNET=${OWN}\\.1/24`));
    assert.match(await overlay.ask(host, '/readyz'), /^HTTP\/1\.[01] 200 /);
  });
});
