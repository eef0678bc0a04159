import { Command, InvalidArgumentError, Option } from 'commander';
import type { ForwarderWish } from '../../agent/ports.ts';
import { udpHostState } from '../../backend/udp.ts';
import { DESTINATION_CHECKS, type DestinationCheck } from '../../dataplane/destination-check.ts';
import {
  FAST_PATH_IN_MODES,
  FAST_PATH_MODES,
  type FastPathInMode,
  type FastPathMode,
} from '../../dataplane/fast-path/mode.ts';
import type { Ipv4Peer } from '../../dataplane/peer-table.ts';
import { SOURCE_CHECKS, type SourceCheck } from '../../dataplane/source-check.ts';
import type { Forwarder } from '../../dataplane/supervisor.ts';
import { Reconciler } from '../../desired/reconciler.ts';
import { prefixed, WeftError } from '../../errors.ts';
import { overlaps } from '../../ip/address.ts';
import { formatIpv4, type Ipv4Addr, parseIpv4 } from '../../ip/ipv4.ts';
import {
  containsAddr4,
  containsPrefix4,
  formatPrefix4,
  type Ipv4Prefix,
  mask4,
  parsePrefix4,
  prefix4,
} from '../../ip/prefix.ts';
import { iproute2Kernel } from '../../linux/iproute2.ts';
import { PacketDescriptors } from '../../linux/packet-descriptors.ts';
import { TunHolder } from '../../linux/tun-holder.ts';
import { hostForwarder } from '../flanneld/open-forwarder.ts';
import type { ProcessLife } from '../process-life.ts';

interface Endpoint {
  readonly address: Ipv4Addr;
  readonly port: number;
}

interface TunnelAddress {
  readonly address: Ipv4Addr;
  readonly network: Ipv4Prefix;
}

interface PeerArgument {
  readonly subnet: Ipv4Prefix;
  readonly address: Ipv4Addr;
  /** undefined: the port we listen on, as flannel has it. */
  readonly port: number | undefined;
}

interface TunnelOptions {
  readonly dev: string;
  readonly address: TunnelAddress;
  readonly listen: Endpoint;
  readonly mtu: number;
  readonly peer: readonly PeerArgument[];
  readonly subnet?: Ipv4Prefix;
  readonly sourceCheck: SourceCheck;
  readonly destinationCheck: DestinationCheck;
  readonly fastPath: FastPathMode;
  readonly fastPathIn: FastPathInMode;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535)
    throw new InvalidArgumentError(`"${text}" is not a port (1 to 65535).`);
  return port;
}

function parseAddress(text: string): Ipv4Addr {
  const address = parseIpv4(text);
  if (address === undefined) throw new InvalidArgumentError(`"${text}" is not an IPv4 address.`);
  return address;
}

function parseListen(text: string): Endpoint {
  const [address = '', port, rest] = text.split(':');
  if (port === undefined || rest !== undefined)
    throw new InvalidArgumentError('Expected ADDRESS:PORT, such as 192.0.2.1:8285.');
  return { address: parseAddress(address), port: parsePort(port) };
}

function parseTunnelAddress(text: string): TunnelAddress {
  const [address = '', length, rest] = text.split('/');
  if (length === undefined || rest !== undefined || !/^\d+$/.test(length) || Number(length) > 32) {
    throw new InvalidArgumentError(
      'Expected ADDRESS/LENGTH: own address and length of the whole network, such as 10.244.1.0/16.',
    );
  }
  const own = parseAddress(address);
  return { address: own, network: prefix4(own, Number(length)) };
}

function parsePeer(text: string, previous: readonly PeerArgument[] = []): PeerArgument[] {
  const [cidr = '', endpoint, rest] = text.split('=');
  const subnet = parsePrefix4(cidr);
  if (subnet === undefined || endpoint === undefined || rest !== undefined) {
    throw new InvalidArgumentError('Expected SUBNET=ADDRESS[:PORT], such as 10.244.2.0/24=192.0.2.2.');
  }
  const [address = '', port] = endpoint.split(':');
  return [
    ...previous,
    { subnet, address: parseAddress(address), port: port === undefined ? undefined : parsePort(port) },
  ];
}

function parseSubnet(text: string): Ipv4Prefix {
  const subnet = parsePrefix4(text);
  if (subnet === undefined) throw new InvalidArgumentError('Expected a subnet, such as 10.244.1.0/24.');
  return subnet;
}

/** This host's own subnet: as given, or as long as the peers'. */
function ownSubnet({ subnet, address: { address, network }, peer }: TunnelOptions): Ipv4Prefix {
  const lengths = new Set(peer.map((each) => each.subnet.length));
  const length = lengths.values().next().value;
  if (subnet === undefined) {
    if (length !== undefined && lengths.size === 1) return prefix4(address, length);
    throw new WeftError(
      'WEFT_USAGE',
      "the peers' subnets have several lengths, so this host's own subnet is not known",
      {
        hint: 'Name it with --subnet, such as --subnet 10.244.1.0/24',
      },
    );
  }
  if (!containsPrefix4(network, subnet) || !containsAddr4(subnet, address)) {
    throw new WeftError(
      'WEFT_USAGE',
      `--subnet ${formatPrefix4(subnet)} does not fit --address ${formatIpv4(address)}`,
      {
        hint: `It must contain that address and be inside ${formatPrefix4(network)}`,
      },
    );
  }
  const taken = peer.find((each) => overlaps(each.subnet, subnet));
  if (taken !== undefined) {
    throw new WeftError(
      'WEFT_USAGE',
      `--subnet ${formatPrefix4(subnet)} overlaps ${formatPrefix4(taken.subnet)}, a peer's`,
    );
  }
  return subnet;
}

function parseMtu(text: string): number {
  const mtu = Number(text);
  if (!/^\d+$/.test(text) || mtu < 68 || mtu > 65_507)
    throw new InvalidArgumentError(`"${text}" is not an MTU (68 to 65507).`);
  return mtu;
}

/** All that is wrong with the combination, at once. */
function checkPeers({ address, network }: TunnelAddress, peers: readonly PeerArgument[]): void {
  const problems = peers.flatMap((peer, index) => {
    const found: string[] = [];
    if (!containsPrefix4(network, peer.subnet)) found.push(`peer ${index + 1}: its subnet is not inside the network`);
    if ((address & mask4(peer.subnet.length)) >>> 0 === peer.subnet.addr) {
      found.push(`peer ${index + 1}: its subnet contains this host’s own address`);
    }
    const twin = peers.findIndex((other, at) => at < index && overlaps(other.subnet, peer.subnet));
    if (twin >= 0) found.push(`peer ${index + 1}: its subnet overlaps that of peer ${twin + 1}`);
    return found;
  });
  if (problems.length > 0) throw new WeftError('WEFT_USAGE', `the peers do not fit together: ${problems.join('; ')}`);
}

/** Counters since the start, for people and scripts: one JSON object. */
function describeCounters(peers: readonly Ipv4Peer[], forwarder: Forwarder): string {
  const both = (slot: number) => {
    const { tx: sent, rx: received } = forwarder.traffic(slot);
    return { sent, received };
  };
  return JSON.stringify({
    peers: peers.map(({ slot, subnets, publicAddresses, port }) => ({
      subnet: formatPrefix4(subnets.ipv4),
      endpoint: `${formatIpv4(publicAddresses.ipv4)}:${port}`,
      ...both(slot),
    })),
    nobody: both(0),
    totals: forwarder.counters.readGauges(),
  });
}

/** Writes the counters to standard error at each SIGUSR1, until disposed. Node's own use of it, the debugger, is replaced. */
function showCountersOnSignal(peers: readonly Ipv4Peer[], forwarder: Forwarder): Disposable {
  const show = (): void => void process.stderr.write(`${describeCounters(peers, forwarder)}\n`);
  process.on('SIGUSR1', show);
  return { [Symbol.dispose]: () => void process.removeListener('SIGUSR1', show) };
}

const END_LIMITS = { stopMs: 3_000, fatalMs: 1_250 };

async function runTunnel(options: TunnelOptions, life: ProcessLife): Promise<void> {
  const { dev, address: own, listen, mtu } = options;
  checkPeers(own, options.peer);
  const subnet = ownSubnet(options);
  // Packets do not stop because nobody reads what is said about them any more.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  using stopped = life.untilStopped(END_LIMITS);
  const { signal } = stopped;
  const notice = (text: string): void => void process.stderr.write(`weft tunnel: ${text}\n`);
  const wish: ForwarderWish = {
    underlay: () => ({ tunName: dev, listenAddress: listen.address, listenPort: listen.port, carriesIpv6: false }),
    persistent: false,
    sourceCheck: options.sourceCheck,
    destinationCheck: options.destinationCheck,
    fastPath: options.fastPath,
    fastPathIn: options.fastPathIn,
    fastPathRoot: undefined,
    onNotice: notice,
    onFastPath: ({ text }) => notice(text),
    onEvent: (event) => {
      if (event.type === 'failed') notice(`${event.reason}; starting again in ${event.retryInMs} ms`);
      if (event.type === 'stuck') life.fatal(new WeftError('WEFT_FORWARDER_FAILED', event.reason));
    },
  };
  using descriptors = new PacketDescriptors(notice);
  await using forwarder = hostForwarder(wish, new TunHolder(descriptors), descriptors);
  const peers = options.peer.map(
    (peer, index): Ipv4Peer => ({
      slot: index + 1,
      subnets: { ipv4: peer.subnet, ipv6: undefined },
      publicAddresses: { ipv4: peer.address, ipv6: undefined },
      port: peer.port ?? listen.port,
    }),
  );
  forwarder.publish({ ipv4: { network: own.network, own: subnet }, ipv6: undefined, mtu, peers });
  using _counters = showCountersOnSignal(peers, forwarder);
  await forwarder.start({ ipv4: own.address, ipv6: undefined }, signal);
  await using reconciler = new Reconciler({ kernel: iproute2Kernel({ onLost: notice }) });
  const tun = { name: dev, mtuBytes: mtu };
  reconciler.set({
    ...udpHostState(tun, [{ own: prefix4(own.address, 32), network: own.network }]),
    staleRoutes: 'own-links',
  });
  try {
    await reconciler.settled(signal);
  } catch (error) {
    throw prefixed(`could not set up ${dev}: `, error);
  }
  process.stdout.write('ready\n');
  await stopped.promise;
}

/** `weft tunnel`: the data plane with peers given by hand and no subnet manager. */
export function tunnelCommand(life: ProcessLife): Command {
  return new Command('tunnel')
    .summary('carry packets between hosts, with peers given on the command line')
    .description(
      'Run the udp data plane without a subnet manager: a TUN device, its address and route, and the given peers. ' +
        'Print "ready" on standard output when it forwards packets. SIGINT or SIGTERM stops it and removes the device.',
    )
    .requiredOption(
      '--address <address/length>',
      'overlay address of this host, and the prefix length of the whole network',
      parseTunnelAddress,
    )
    .requiredOption('--listen <address:port>', 'underlay address and UDP port of this host', parseListen)
    .requiredOption('--peer <subnet=address[:port]>', 'a subnet and the host that owns it; may be repeated', parsePeer)
    .option(
      '--subnet <subnet>',
      "subnet of this host (default: the one that contains its address, with the peers' prefix length)",
      parseSubnet,
    )
    .option('--dev <name>', 'name of the TUN device', 'flannel0')
    .option('--mtu <bytes>', 'MTU of the TUN device: the MTU of the underlay minus 28', parseMtu, 1472)
    .addOption(
      new Option('--source-check <mode>', 'required source address of packets from peers')
        .choices(SOURCE_CHECKS)
        .default('loose'),
    )
    .addOption(
      new Option('--destination-check <mode>', 'allowed destination address of packets from peers')
        .choices(DESTINATION_CHECKS)
        .default('loose'),
    )
    .addOption(
      new Option('--fast-path <mode>', 'use the fast path in the kernel (eBPF) where available')
        .choices(FAST_PATH_MODES)
        .default('auto'),
    )
    .addOption(
      new Option('--fast-path-in <mode>', 'receive packets from peers with XDP, before the kernel coalesces them')
        .choices(FAST_PATH_IN_MODES)
        .default('auto'),
    )
    .addHelpText(
      'after',
      '\nOn SIGUSR1, it writes one line of JSON to standard error: packets, bytes and drops by reason for each peer and for\n' +
        '"nobody" (packets that belong to no peer), and totals such as system calls and ICMP errors sent.',
    )
    .action(async (options: TunnelOptions) => {
      await runTunnel(options, life);
    });
}
