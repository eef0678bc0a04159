import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Underlay } from '../../src/lab/namespaces.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, type Place, Topology } from '../../src/lab/topology.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { Flanneld, HEALTHZ_PORT } from '../netns/flanneld.ts';
import { ping } from '../netns/overlay.ts';
import {
  addressIn,
  attachStacked,
  carriedByFastPath,
  neighbourComesBack,
  type StackedContainer,
  transferStacked,
} from '../netns/stacked-overlay.ts';

/** IPv6 packets by the fast path; test/netns/udp-ipv6.test.ts has the case that super-packets arrive in one piece. */

const NET_CONF = '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"udp"}}';
const START_MS = 150_000;
const FILE_BYTES = 8 * 1024 * 1024;
const signal = new AbortController().signal;

interface Hosts {
  readonly topology: Topology;
  readonly agents: readonly Flanneld[];
  readonly containers: readonly [StackedContainer, StackedContainer];
}

/** Two, with an agent and a container of both families each. */
async function startHosts(underlay: Underlay, flags: readonly string[], stack: AsyncDisposableStack): Promise<Hosts> {
  const topology = stack.use(
    await Topology.create({ hosts: 2, containersPerHost: 1, underlay, purpose: 'test' }, signal),
  );
  const store = await openSubnetStore('local', topology, NET_CONF, signal);
  const start = async (host: LabHost): Promise<readonly [Flanneld, StackedContainer]> => {
    await topology.ipBatch(host, `addr add fd77::${host.index + 1}/64 dev eth0 nodad\n`, signal);
    await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1'], { signal });
    const own = [...store.agentFlags(host), '--iface=eth0', `--healthz-port=${HEALTHZ_PORT}`];
    const agent = await Flanneld.start(topology, host, { flags: [...own, ...flags] });
    await agent.logged(/^flannel is ready$/, 0, START_MS);
    return [agent, await attachStacked(topology, host, signal)];
  };
  const [one, other] = [await start(topology.hosts[0]!), await start(topology.hosts[1]!)];
  return { topology, agents: [one[0], other[0]], containers: [one[1], other[1]] };
}

/** Of a namespace’s UDP, in either family: what was refused for its checksum. */
async function checksumErrors(topology: Topology, place: Place): Promise<number> {
  const { stdout } = await topology.exec(place, ['nstat', '-asz', 'UdpInCsumErrors', 'Udp6InCsumErrors']);
  const counts = [...stdout.matchAll(/InCsumErrors +(\d+)/g)].map(([, count]) => Number(count));
  assert.equal(counts.length, 2, stdout);
  return counts[0]! + counts[1]!;
}

for (const [way, flags, limits] of [
  // The way in is the forwarder’s: it is given joined datagrams, some hundred of 5,700.
  ['out', [], { txReads: 60, rxReceives: 2_000 }],
  ['out and, by XDP, in', ['--fast-path-in=xdp'], { txReads: 60, rxReceives: 60 }],
] as const) {
  describe(`IPv6 packets by the fast path, ${way}, where datagrams are cut`, () => {
    const stack = new AsyncDisposableStack();
    let hosts: Hosts;

    before(async () => {
      hosts = await startHosts('wire', flags, stack);
    });
    after(() => stack.disposeAsync());

    for (const family of [4, 6] as const) {
      it(`TCP over IPv${family} passes the forwarders, both ways, and every datagram is right`, async () => {
        const { topology, agents, containers } = hosts;
        await carriedByFastPath(topology, agents, containers, family, { bytes: FILE_BYTES, limits });
        for (const place of [...topology.hosts, ...containers.map(({ namespace }) => namespace)]) {
          assert.equal(await checksumErrors(topology, place), 0);
        }
      });
    }

    it('ages packets as the forwarders do, and leaves what must be answered to them', async () => {
      const { topology, containers } = hosts;
      const { ok, output } = await ping(topology, containers[0], addressIn(6, containers[1]));
      assert.ok(ok && output.includes('ttl=60'), output);
      const expired = await ping(topology, containers[0], addressIn(6, containers[1]), '-t', '3');
      assert.match(expired.output, /Time exceeded: Hop limit/);
    });
  });
}

for (const underlay of ['native', 'wire'] as const) {
  it(`IPv6 packets pass while no agent runs, and keep the neighbour entries true (${underlay})`, async () => {
    await using stack = new AsyncDisposableStack();
    const flags = [`--fast-path-dir=${await folderOnBpffs(stack)}`];
    const { topology, agents, containers } = await startHosts(underlay, flags, stack);
    await carriedByFastPath(topology, agents, containers, 6, { bytes: FILE_BYTES, limits: { txReads: 60 } });
    for (const { child } of agents) {
      child.kill('SIGKILL');
      await child.exited;
    }

    const [one, other] = containers;
    await transferStacked(topology, [one, other], 6, FILE_BYTES);
    await transferStacked(topology, [other, one], 6, FILE_BYTES);
    const neighbour = `192.168.77.${topology.hosts[1]!.index + 1}`;
    await neighbourComesBack(topology, [one, other], 6, neighbour);
  });
}
