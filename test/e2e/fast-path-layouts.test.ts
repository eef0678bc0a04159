import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it, type TestContext } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { LAYOUT } from '../../src/dataplane/fast-path/layout.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { agentCommand } from '../../src/lab/agent.ts';
import type { LabHost, Place, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { EchoConnection, longestGaps, serveEcho } from '../netns/echo-connection.ts';
import { IPV6_NET_CONF, Ipv6Hosts } from '../netns/ipv6-hosts.ts';
import { addressOf, Overlay, ping } from '../netns/overlay.ts';
import { Pinging } from '../netns/pinging.ts';
import { addressIn, attachStacked, everyFamilyAnswers, type StackedContainer } from '../netns/stacked-overlay.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';

/** Maps of the fast path that are another agent's: of a build with another layout, or of another kind of network between the hosts. */

const OPEN = /Packets take the fast path in the kernel .*, also while the agent is away$/;
const SOURCE = 'src/dataplane/fast-path/layout.ts';
const OTHER = LAYOUT + 1;
const INTERVAL_SECONDS = 0.005;
const IPV4_NET_CONF = '{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}';
const signal = new AbortController().signal;

const stack = new AsyncDisposableStack();
/** Sources of a build with another layout. */
let otherBuild: string;

before(async () => {
  otherBuild = await mkdtemp(join(tmpdir(), 'weft-other-build-'));
  stack.defer(() => rm(otherBuild, { recursive: true }));
  await cp(join(ROOT, 'src'), join(otherBuild, 'src'), { recursive: true });
  await cp(join(ROOT, 'package.json'), join(otherBuild, 'package.json'));
  await symlink(join(ROOT, 'node_modules'), join(otherBuild, 'node_modules'));
  const text = await readFile(join(ROOT, SOURCE), 'utf8');
  const changed = text.replace(`export const LAYOUT = ${LAYOUT};`, `export const LAYOUT = ${OTHER};`);
  assert.notEqual(changed, text);
  await writeFile(join(otherBuild, SOURCE), changed);
});
after(() => stack.disposeAsync());

/** Of each agent that has pinned something there. */
function layoutsIn(root: string): readonly (readonly string[])[] {
  return readdirSync(root).map((name) => readdirSync(join(root, name)).filter((each) => each.startsWith('layout-')));
}

interface ReplacedHost {
  /** What directories of its maps have behind the number of the layout. */
  readonly kind: '' | '-ipv6';
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
  { kind, flow, topology, ends, addresses, otherAddress, layouts, metrics, replace }: ReplacedHost,
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
    // With IPv6 the kernel has packets of its own for the device.
    if (kind === '') assert.ok(reads < 10, `${reads} packets through the forwarder of the new agent`);
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

it('loses no packet with an upgrade to a build with another layout, nor with the way back', async (t) => {
  await using resources = new AsyncDisposableStack();
  const root = await folderOnBpffs(resources);
  const agentFlags = ['--fast-path', 'auto', '--fast-path-dir', root];
  const overlay = resources.use(
    await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native', agentFlags }, signal),
  );
  const { topology } = overlay;
  const [host] = topology.hosts as [LabHost];
  const [a, b] = topology.containers;
  const logPath = join(host.stateDirectory, 'flanneld.log');
  const opened = async (): Promise<number> =>
    (await readFile(logPath, 'utf8')).split('\n').filter((line) => OPEN.test(line)).length;
  let agent: Child = overlay.agents[0]!.child;
  await losesNothing(t, {
    kind: '',
    topology,
    ends: [a!, b!],
    addresses: [addressOf(a!), addressOf(b!)],
    otherAddress: formatIpv4(topology.hosts[1]!.address),
    flow: resources.use(await Pinging.start(topology, a!, addressOf(b!), INTERVAL_SECONDS)),
    layouts: () => layoutsIn(root),
    metrics: () => overlay.ask(host, '/metrics'),
    replace: async (how, build) => {
      const before = await opened();
      agent.kill(how);
      await agent.exited;
      const argv = agentCommand(host, overlay.store, overlay.agents[0]!.subnetFile).map((word) =>
        word.startsWith(`${ROOT}/`) && word.endsWith('/src/cmd/flanneld/main.ts')
          ? join(build, 'src/cmd/flanneld/main.ts')
          : word,
      );
      agent = await topology.startLogged(host, [...argv, ...agentFlags], logPath);
      await eventually('its fast path is open', async () => (await opened()) > before || undefined);
    },
  });
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

it('a cluster goes from IPv4 between the hosts to IPv6, and back: each finds the maps of the other kind, and leaves its own', async () => {
  await using resources = new AsyncDisposableStack();
  const root = await folderOnBpffs(resources);
  const flags = [`--fast-path-dir=${root}`];
  const hosts = resources.use(await Ipv6Hosts.create('native', [flags, flags], IPV4_NET_CONF));
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
