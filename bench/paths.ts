/** The ways two hosts' containers can reach each other that the bench compares, each on two hosts of its own. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FastPathInMode, FastPathMode } from '../src/dataplane/fast-path/mode.ts';
import { WeftError } from '../src/errors.ts';
import { formatIpv4, ipv4Of } from '../src/ip/ipv4.ts';
import { formatPrefix4 } from '../src/ip/prefix.ts';
import { startAgent } from '../src/lab/agent.ts';
import { openLocalStore } from '../src/lab/local-store.ts';
import { type ContainerNetwork, HOST_DEVICE, type Underlay } from '../src/lab/namespaces.ts';
import { type LabHost, Topology } from '../src/lab/topology.ts';
import { type Child, lines } from '../src/linux/run.ts';
import { NETWORK, PORT, subnetOf, Tunnel } from '../test/netns/tunnel.ts';
import { assertFastPath, untilFastPath } from './fast-path-check.ts';
import { saysReady } from './says-ready.ts';

/**
 * `weft` and `forwarder` are udp mode with the fast path in the kernel and without it (every packet goes through user space);
 * `weftVxlan` and `hostGw` are agents with those backends, beside what was made by hand: `vxlan` and `direct`.
 */
export const PATHS = ['direct', 'vxlan', 'weft', 'forwarder', 'loop', 'wireguard', 'weftVxlan', 'hostGw'] as const;
export type PathName = (typeof PATHS)[number];

/** How the table names them. */
export const PATH_TITLES: Readonly<Record<PathName, string>> = {
  direct: 'direct routing',
  vxlan: 'kernel VXLAN',
  weft: 'weft (udp mode)',
  forwarder: 'weft, user space alone',
  loop: 'one packet per system call (socat)',
  wireguard: 'wireguard-go',
  weftVxlan: 'weft (vxlan)',
  hostGw: 'weft (host-gw)',
};

/** The wire-like one and the switch with an XDP program on each host's device: weft's own, or an empty one for the other paths. */
const WITH_XDP = { xdp: 'wire', switchXdp: 'switch' } as const satisfies Record<string, Underlay>;
type XdpUnderlay = keyof typeof WITH_XDP;
export type BenchUnderlay = Underlay | XdpUnderlay;

const hasXdp = (underlay: BenchUnderlay): underlay is XdpUnderlay => Object.hasOwn(WITH_XDP, underlay);

const UNDERLAY_MTU = 1500;
/** Outer headers: VXLAN 50, IPv4 + UDP 28, WireGuard over IPv4 60, which its users round to 80. */
const OVERHEAD: Readonly<Record<PathName, number>> = {
  direct: 0,
  vxlan: 50,
  weft: 28,
  forwarder: 28,
  loop: 28,
  wireguard: 80,
  weftVxlan: 50,
  hostGw: 0,
};

export interface BenchPath extends AsyncDisposable {
  readonly name: PathName;
  readonly underlay: BenchUnderlay;
  readonly topology: Topology;
  /** Processes that carry the packets in user space; empty when the kernel does. */
  readonly forwarders: readonly Child[];
  /** @throws WeftError WEFT_LAB_FAILED when packets do not take the way any longer that the path is named for. */
  assertWay(): void;
}

/** Two hosts with one container each, connected this way. */
export async function createPath(name: PathName, underlay: BenchUnderlay, signal: AbortSignal): Promise<BenchPath> {
  await using stack = new AsyncDisposableStack();
  const between = hasXdp(underlay) ? WITH_XDP[underlay] : underlay;
  const topology = stack.use(
    await Topology.create(
      {
        hosts: 2,
        containersPerHost: 1,
        underlay: between,
        backToBack: between !== 'switch',
        purpose: `bench ${name}`,
      },
      signal,
    ),
  );
  const forwarders: Child[] = [];
  const tunnels: Tunnel[] = [];
  for (const host of topology.hosts) {
    const other = topology.hosts[1 - host.index]!;
    if (hasXdp(underlay) && name !== 'weft') await attachEmptyXdp(topology, host);
    const connected = await connect[name](topology, host, other, signal, underlay);
    forwarders.push(...(connected.forwarders ?? []));
    if (connected.tunnel !== undefined) tunnels.push(connected.tunnel);
    await topology.attachContainers(host, connected.network ?? networkOf(host, name), signal);
  }
  const target = formatIpv4(topology.containers[1]!.address!);
  await topology.exec(topology.containers[0]!, ['ping', '-q', '-c', '3', '-i', '0.1', '-w', '10', target], { signal });
  const way = hasXdp(underlay) ? 'xdp' : 'fast path';
  if (name === 'weft') await untilFastPath(topology, tunnels, way);
  const held = stack.move();
  return {
    ...{ name, underlay, topology, forwarders },
    assertWay: () => {
      if (name === 'weft') assertFastPath(tunnels, way);
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

interface Connected {
  /** Default: none. */
  readonly forwarders?: readonly Child[];
  readonly tunnel?: Tunnel;
  /** Default: {@link networkOf}. */
  readonly network?: ContainerNetwork;
}

type Connect = (
  topology: Topology,
  host: LabHost,
  other: LabHost,
  signal: AbortSignal,
  underlay: BenchUnderlay,
) => Promise<Connected>;

function networkOf(host: LabHost, name: PathName): ContainerNetwork {
  const subnet = subnetOf(host);
  return { subnet, gateway: ipv4Of(subnet.addr + 1), mtuBytes: UNDERLAY_MTU - OVERHEAD[name] };
}

const connect: Readonly<Record<PathName, Connect>> = {
  direct: async (topology, host, other, signal) => {
    await topology.ipBatch(
      host,
      `route add ${formatPrefix4(subnetOf(other))} via ${formatIpv4(other.address)}\n`,
      signal,
    );
    return {};
  },

  vxlan: async (topology, host, other, signal) => {
    const mac = (index: number): string => `02:00:00:00:00:0${index + 1}`;
    const base = formatIpv4(subnetOf(other).addr);
    await topology.ipBatch(
      host,
      [
        `link add flannel.1 address ${mac(host.index)} mtu ${UNDERLAY_MTU - OVERHEAD.vxlan} type vxlan id 1 dev ${HOST_DEVICE} local ${formatIpv4(host.address)} dstport 8472 nolearning`,
        `address add ${formatIpv4(subnetOf(host).addr)}/32 dev flannel.1`,
        'link set flannel.1 up',
        `neighbour add ${base} lladdr ${mac(other.index)} dev flannel.1 nud permanent`,
        `route add ${formatPrefix4(subnetOf(other))} via ${base} dev flannel.1 onlink`,
        '',
      ].join('\n'),
      signal,
    );
    const fdb = [
      'bridge',
      'fdb',
      'add',
      mac(other.index),
      'dev',
      'flannel.1',
      'dst',
      formatIpv4(other.address),
      'self',
    ];
    await topology.exec(host, [...fdb, 'permanent'], { signal });
    return {};
  },

  weft: (topology, host, other, _signal, underlay) =>
    connectByTunnel(topology, host, other, 'auto', hasXdp(underlay) ? 'xdp' : 'auto'),
  forwarder: (topology, host, other) => connectByTunnel(topology, host, other, 'off', 'auto'),

  /** A program in C that moves one packet per system call, as flannel's udp proxy does. */
  loop: async (topology, host, other, signal) => {
    const child = await topology.start(
      host,
      [
        'socat',
        `TUN:${formatIpv4(subnetOf(host).addr)}/${NETWORK.length},tun-name=loop0,tun-type=tun,iff-no-pi,iff-up`,
        `UDP4-DATAGRAM:${formatIpv4(other.address)}:${PORT},bind=${formatIpv4(host.address)}:${PORT}`,
      ],
      { stdout: 'ignore' },
    );
    await deviceUp(topology, host, 'loop0', child, signal);
    await topology.ipBatch(host, `link set loop0 mtu ${UNDERLAY_MTU - OVERHEAD.loop}\n`, signal);
    return { forwarders: [child] };
  },

  wireguard: async (topology, host, other, signal) => {
    // Its control socket is named after the device and not part of the namespace: the name is unique on the machine.
    const device = `wg${topology.id}${host.index}`;
    const child = await topology.start(host, ['wireguard-go', '--foreground', device], { stdout: 'ignore' });
    await deviceUp(topology, host, device, child, signal);
    const key = async (index: number): Promise<{ secret: string; open: string }> => {
      const secret = Buffer.from(`${topology.id}${index}`.padEnd(32, 'k')).toString('base64');
      const { stdout } = await topology.exec(host, ['wg', 'pubkey'], { stdin: secret, signal });
      return { secret, open: stdout.trim() };
    };
    const config =
      `[Interface]\nPrivateKey = ${(await key(host.index)).secret}\nListenPort = 51820\n` +
      `[Peer]\nPublicKey = ${(await key(other.index)).open}\nEndpoint = ${formatIpv4(other.address)}:51820\n` +
      `AllowedIPs = ${formatPrefix4(subnetOf(other))}\n`;
    const file = join(host.stateDirectory, 'wg.conf');
    await writeFile(file, config, { mode: 0o600 });
    await topology.exec(host, ['wg', 'setconf', device, file], { signal });
    await topology.ipBatch(
      host,
      [
        `address add ${formatIpv4(subnetOf(host).addr)}/32 dev ${device}`,
        `link set ${device} mtu ${UNDERLAY_MTU - OVERHEAD.wireguard} up`,
        `route add ${formatPrefix4(subnetOf(other))} dev ${device}`,
        '',
      ].join('\n'),
      signal,
    );
    return { forwarders: [child] };
  },

  weftVxlan: (topology, host, _other, signal) => connectByAgent(topology, host, 'vxlan', signal),
  hostGw: (topology, host, _other, signal) => connectByAgent(topology, host, 'host-gw', signal),
};

/** A real agent, without its probes: they would be the only packets in this bench that the others do not send. */
async function connectByAgent(
  topology: Topology,
  host: LabHost,
  type: 'vxlan' | 'host-gw',
  signal: AbortSignal,
): Promise<Connected> {
  const netConf = JSON.stringify({ Network: formatPrefix4(NETWORK), Backend: { Type: type } });
  const store = await openLocalStore(topology, netConf, signal);
  const agent = await startAgent(topology, host, store, { extraFlags: ['--probe=off'] }, signal);
  return { network: agent.network };
}

async function connectByTunnel(
  topology: Topology,
  host: LabHost,
  other: LabHost,
  fastPath: FastPathMode,
  fastPathIn: FastPathInMode,
): Promise<Connected> {
  const tunnel = await Tunnel.start(topology, host, { peers: [{ host: other }], fastPath, fastPathIn });
  return { forwarders: [tunnel.child], tunnel };
}

async function attachEmptyXdp(topology: Topology, host: LabHost): Promise<void> {
  const program = new URL('./empty-xdp.ts', import.meta.url).pathname;
  const child = await topology.start(host, [process.execPath, '--disable-warning=ExperimentalWarning', program]);
  await saysReady(child, /^ready$/);
}

/** Waits until the program has made its device: the kernel tells, by `ip monitor`. */
async function deviceUp(
  topology: Topology,
  host: LabHost,
  device: string,
  owner: Child,
  signal: AbortSignal,
): Promise<void> {
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(5_000)]);
  const exists = async (): Promise<boolean> => {
    const { exitCode } = await topology.exec(host, ['ip', 'link', 'show', device], { okExitCodes: 'any', signal });
    return exitCode === 0;
  };
  await using monitor = await topology.start(host, ['ip', '-o', 'monitor', 'link']);
  const changes = lines(monitor.stdout!)[Symbol.asyncIterator]();
  while (!(await exists())) {
    const expired = deadline.aborted ? Promise.resolve('expired') : once(deadline, 'abort').then(() => 'expired');
    const outcome = await Promise.race([changes.next(), owner.exited.then(() => 'ended'), expired]);
    if (outcome === 'ended' || outcome === 'expired') {
      throw new WeftError(
        'WEFT_LAB_FAILED',
        `${owner.argv[0]} on ${host.name} did not make ${device}: ${owner.tail()}`,
      );
    }
  }
}
