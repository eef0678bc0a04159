import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, it, type TestContext } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { LAYOUT } from '../../src/dataplane/fast-path/layout.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { LabContainer, LabHost, Place, Topology } from '../../src/lab/topology.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { EchoConnection, longestGaps, serveEcho } from '../netns/echo-connection.ts';
import { IPV6_NET_CONF, Ipv6Hosts } from '../netns/ipv6-hosts.ts';
import { xdpOf } from '../netns/native-xdp.ts';
import { addressOf, ping } from '../netns/overlay.ts';
import { Pinging } from '../netns/pinging.ts';
import { addressIn, attachStacked, everyFamilyAnswers, type StackedContainer } from '../netns/stacked-overlay.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';
import { buildOfLayout, ReplacedAgent } from './replaced-agent.ts';

/** Maps of the fast path that are another agent's: of a build with another layout, or of another kind of network between the hosts. */

const BY_XDP = /, and XDP takes what eth0 receives from peers, even while the agent is down$/;
const OPEN = /Packets take the fast path in the kernel .*, even while the agent is down$/;
const OTHER = LAYOUT + 1;
const INTERVAL_SECONDS = 0.005;
const IPV4_NET_CONF = '{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}';
const signal = new AbortController().signal;

const stack = new AsyncDisposableStack();
/** Sources of a build with another layout. */
let otherBuild: string;

before(async () => {
  otherBuild = await buildOfLayout(OTHER, stack);
});
after(() => stack.disposeAsync());

/** Of each agent that has pinned something there. */
function layoutsIn(root: string): readonly (readonly string[])[] {
  return readdirSync(root).map((name) => readdirSync(join(root, name)).filter((each) => each.startsWith('layout-')));
}

interface ReplacedHost {
  /** What directories of its maps have behind the number of the layout. */
  readonly kind: '' | '-ipv6';
  /** Packets that the forwarder of an agent may have read by the time that its fast path carries. */
  readonly mostReads: number;
  /** Answers to pings from this host to the other, which go on all the time. */
  readonly flow: Pinging;
  readonly topology: Topology;
  /** A container of this host, and one of the other, with their addresses. */
  readonly ends: readonly [Place, Place];
  readonly addresses: readonly [string, string];
  /** Of the other host itself. */
  readonly otherAddress: string;
  readonly layouts: () => readonly (readonly string[])[];
  readonly metrics: () => Promise<string>;
  /** Ends the agent, and starts that of another build; resolves when its fast path is open. */
  readonly replace: (how: NodeJS.Signals, build: string) => Promise<void>;
}

/** In the namespace, ever. */
async function wrongChecksums(topology: Topology, place: Place): Promise<number> {
  const { stdout } = await topology.exec(place, ['nstat', '-asz', 'TcpInCsumErrors']);
  return Number(/^TcpInCsumErrors +(\d+)/m.exec(stdout)?.[1]);
}

/** Two builds whose maps of the fast path differ replace each other on a host: an upgrade, and the way back. */
async function losesNothing(
  t: TestContext,
  { kind, mostReads, flow, topology, ends, addresses, otherAddress, layouts, metrics, replace }: ReplacedHost,
): Promise<void> {
  await using resources = new AsyncDisposableStack();
  const [host, other] = topology.hosts as [LabHost, LabHost];
  for (const place of [...ends, other]) await serveEcho(topology, place, kind === '' ? 4 : 6);
  const beside = resources.use(await EchoConnection.between(topology, host, otherAddress));
  const echoes: EchoConnection[] = [];
  for (const [from, to] of [
    [ends[0], addresses[1]],
    [ends[1], addresses[0]],
  ] as const) {
    echoes.push(resources.use(await EchoConnection.between(topology, from, to)));
  }
  const figures = async () => ({
    reads: Number(/^weft_forwarder_operations_total\{operation="txReads"\} (\d+)$/m.exec(await metrics())?.[1]),
    answers: flow.answers,
  });
  /** Few of the pings are read by the forwarder. */
  const carried = async (): Promise<void> => {
    await eventually('the fast path carries the pings', async () => {
      const from = await figures();
      await flow.answered(100);
      const now = await figures();
      return (now.reads - from.reads) * 5 < now.answers - from.answers || undefined;
    });
  };
  await carried();
  assert.equal((await flow.lost()).lost, 0, 'before any change');
  for (const [build, layout, how] of [
    [otherBuild, OTHER, 'SIGTERM'],
    [ROOT, LAYOUT, 'SIGTERM'],
    [otherBuild, OTHER, 'SIGKILL'],
    [ROOT, LAYOUT, 'SIGKILL'],
  ] as const) {
    await replace(how, build);
    await carried();
    const { reads } = await figures();
    assert.ok(reads < mostReads, `${reads} packets through the forwarder of the new agent`);
    // The other host has the one of this build all the time.
    const found = layouts().flat().sort();
    assert.deepEqual(found, [`layout-${LAYOUT}${kind}`, `layout-${layout}${kind}`].sort());
    const { lost, of } = await flow.lost();
    for (const echo of echoes) await echo.flowing();
    t.diagnostic(`${lost} of ${of} lost, ${how} and then layout ${layout}; ${longestGaps(echoes, beside)}`);
    assert.equal(lost, 0, `${lost} of ${of}`);
    // What a peer's fast path has left to a device to finish, and a forwarder was given.
    for (const end of ends) assert.equal(await wrongChecksums(topology, end), 0, 'TCP segments are lost');
  }
}

for (const [underlay, moreFlags, open, mostReads] of [
  ['native', [], OPEN, 10],
  // There the first packets of an agent that knows nothing go through its forwarder.
  ['wire', ['--fast-path-in', 'xdp'], BY_XDP, Number.POSITIVE_INFINITY],
] as const)
  it(`loses no packet with an upgrade to a build with another layout, nor with the way back (${[underlay, ...moreFlags].join(' ')})`, async (t) => {
    await using replacing = await ReplacedAgent.on(underlay, moreFlags);
    const { overlay, root, host } = replacing;
    const { topology } = overlay;
    const [a, b] = topology.containers;
    await using flow = await Pinging.start(topology, a!, addressOf(b!), INTERVAL_SECONDS);
    await losesNothing(t, {
      ...{ kind: '', flow, topology, mostReads },
      ends: [a!, b!],
      addresses: [addressOf(a!), addressOf(b!)],
      otherAddress: formatIpv4(topology.hosts[1]!.address),
      layouts: () => layoutsIn(root),
      metrics: () => overlay.ask(host, '/metrics'),
      replace: (how, build) => replacing.replace(how, build, open),
    });
  });

it('leaves no XDP of a build with another layout on the device where IPsec policies close the fast path', async () => {
  await using replacing = await ReplacedAgent.on('wire', ['--fast-path-in', 'xdp']);
  const { overlay, host } = replacing;
  const { topology } = overlay;
  const [a, b] = topology.containers as [LabContainer, LabContainer];
  await eventually('XDP is there', async () => (await replacing.said(BY_XDP)) > 0 || undefined);
  assert.ok((await xdpOf(topology, host)) !== undefined);
  const policy = ['src', '192.0.2.1', 'dst', '192.0.2.2', 'dir', 'out'];
  // The agent must not be there to notice.
  await replacing.end('SIGKILL');
  await topology.exec(host, ['ip', 'xfrm', 'policy', 'add', ...policy]);
  await replacing.start(otherBuild);
  await eventually('the fast path is closed', async () => (await replacing.said(/would bypass IPsec/)) > 0);
  assert.equal(await xdpOf(topology, host), undefined);
  await eventually('containers reach each other', async () => (await ping(topology, b, addressOf(a))).ok);
});

it('loses no packet with such an upgrade, nor with the way back, between hosts that have IPv6 alone', async (t) => {
  await using resources = new AsyncDisposableStack();
  const root = await folderOnBpffs(resources);
  const flags = [`--fast-path-dir=${root}`];
  const hosts = resources.use(await Ipv6Hosts.create('native', [flags, flags]));
  const { topology } = hosts;
  const [host] = topology.hosts as [LabHost];
  const [a, b] = hosts.containers as [StackedContainer, StackedContainer];
  // Bridges and containers do not answer before the kernel has looked for others with their link-local addresses.
  await everyFamilyAnswers(topology, hosts.containers);
  await losesNothing(t, {
    kind: '-ipv6',
    // The kernel has packets of its own for the device.
    mostReads: Number.POSITIVE_INFINITY,
    topology,
    ends: [a.namespace, b.namespace],
    addresses: [addressIn(6, a), addressIn(6, b)],
    otherAddress: hosts.addressOf(topology.hosts[1]!),
    flow: resources.use(await Pinging.start(topology, a.namespace, addressIn(6, b), INTERVAL_SECONDS)),
    layouts: () => layoutsIn(root),
    metrics: async () => (await hosts.agents[host.index]!.get('/metrics')).body,
    replace: async (how, build) => {
      const { child } = hosts.agents[host.index]!;
      child.kill(how);
      await child.exited;
      const agent = await hosts.startAgent(host, flags, build);
      await agent.logged(OPEN);
    },
  });
});

for (const [underlay, moreFlags] of [
  ['native', []],
  ['wire', ['--fast-path-in=xdp']],
] as const)
  it(`a cluster goes from IPv4 between the hosts to IPv6, and back: each finds the maps of the other kind, and leaves its own (${[underlay, ...moreFlags].join(' ')})`, async () => {
    await using resources = new AsyncDisposableStack();
    const root = await folderOnBpffs(resources);
    const flags = [`--fast-path-dir=${root}`, ...moreFlags];
    const hosts = resources.use(await Ipv6Hosts.create(underlay, [flags, flags], IPV4_NET_CONF));
    const { topology } = hosts;
    const isCarried = async (family: 4 | 6, layout: string, containers: readonly StackedContainer[]): Promise<void> => {
      const [one, other] = containers as [StackedContainer, StackedContainer];
      await everyFamilyAnswers(topology, containers);
      await eventuallyHolds(async () => {
        const { ok, output } = await ping(topology, one, addressIn(family, other), '-c', '5', '-i', '0.05');
        assert.ok(ok, output);
        assert.deepEqual(Object.values(await hosts.pathsFrom(one.host)), ['fast-path']);
      });
      assert.deepEqual(layoutsIn(root), [[layout], [layout]]);
      for (const host of topology.hosts) assert.equal((await xdpOf(topology, host)) !== undefined, underlay === 'wire');
    };
    await isCarried(4, `layout-${LAYOUT}`, hosts.containers);
    for (const [netConf, family, layout] of [
      [IPV6_NET_CONF, 6, `layout-${LAYOUT}-ipv6`],
      [IPV4_NET_CONF, 4, `layout-${LAYOUT}`],
    ] as const) {
      const containers: StackedContainer[] = [];
      for (const host of topology.hosts) {
        const { child } = hosts.agents[host.index]!;
        // Programs and maps of the network that was are there when the next agent comes.
        child.kill('SIGKILL');
        await child.exited;
        hosts.configure(host, netConf);
        await hosts.startAgent(host, flags);
        await topology.ipBatch(host, `link delete cni0\nlink delete ${host.containers[0]!.hostDevice}\n`);
        containers.push(await attachStacked(topology, host, signal));
      }
      await isCarried(family, layout, containers);
    }
  });
