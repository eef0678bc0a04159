import { isSign } from '../../src/dataplane/fast-path/sign.ts';
import type { IpAddr } from '../../src/ip/address.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { ipv6At, ipv6Of, parseIpv6 } from '../../src/ip/ipv6.ts';
import { containsAddr6, parsePrefix4, parsePrefix6 } from '../../src/ip/prefix.ts';
import { type MemoryHost, memoryHost, type PeerText, peer6Of, peerOf } from '../fakes/memory-dataplane.ts';
import {
  ACK,
  address,
  concat,
  hex,
  payloadOf,
  slowChecksum,
  tcpPacket,
  transportChecksum,
  udpPacket,
} from '../fakes/packets.ts';
import { address6, optionsHeader, tcp6Packet, transportChecksum6, udp6Packet } from '../fakes/packets6.ts';
import { mutated, PacketSource } from './packet-source.ts';
import {
  ETHERNET,
  ETHERNET_6,
  MARK,
  NEXT,
  OWN,
  OWN_6,
  PORT,
  type ProgramBench,
  REDIRECTED,
  runProgram,
  shortestRun,
  TAG,
  TAG_WHOLE,
  XDP_PASSED,
} from './program-bench.ts';
import { Random } from './random.ts';

/** Peers as an honest store has them, and what hostile or mistaken hosts write into one. */
const PEERS: readonly PeerText[] = [
  { slot: 1, subnet: '10.244.2.0/24', publicIp: '192.168.77.2', ipv6Subnet: 'fd00:244:0:2::/64' },
  { slot: 2, subnet: '10.244.3.0/24', publicIp: '192.168.77.3', ipv6Subnet: 'fd00:244:0:3::/64' },
  { slot: 3, subnet: '10.244.2.128/25', publicIp: '192.168.77.3', ipv6Subnet: 'fd00:244:0:2:8000::/65' },
  { slot: 4, subnet: '0.0.0.0/0', publicIp: '192.168.77.4', ipv6Subnet: '::/0' },
  { slot: 5, subnet: '127.0.0.0/8', publicIp: '192.168.77.5', ipv6Subnet: 'ff00::/8' },
  { slot: 6, subnet: '10.244.6.0/24', publicIp: '192.168.77.1', ipv6Subnet: 'fd00:244:0:6::/64' },
  { slot: 7, subnet: '10.244.7.0/24', publicIp: '127.0.0.1', ipv6Subnet: 'fd00:244:0:7::/64' },
  { slot: 8, subnet: '10.244.8.0/24', publicIp: '192.168.88.8', ipv6Subnet: 'fd00:244:0:8::/64' },
  { slot: 9, subnet: '10.244.9.0/24', publicIp: '192.168.77.9', ipv6Subnet: 'fd00:244:0:9::/64' },
  { slot: 10, subnet: '10.244.1.0/24', publicIp: '192.168.77.10', ipv6Subnet: 'fd00:244:86dd:1::/64' },
  // Its addresses are those of a host that takes IPv4 alone.
  { slot: 11, subnet: '192.168.0.0/16', publicIp: '192.168.77.11', publicIpv6: 'fd00:77::11' },
];

const IPV6_HOSTS: Readonly<Record<string, string>> = { '127.0.0.1': '::1', '192.168.88.8': 'fd00:88::8' };
/** Where hosts have IPv6 alone. */
const host6 = (text: string): string => IPV6_HOSTS[text] ?? text.replace('192.168.77.', 'fd00:77::');

/** By the version of IP between the hosts. */
export const FUZZ_PEERS = {
  4: PEERS,
  6: PEERS.map((peer): PeerText => ({ ...peer, publicIpv6: host6(peer.publicIp) })),
} as const;
/** Their addresses there. */
export const fuzzHosts = (underlay: 4 | 6): readonly string[] =>
  PEERS.map(({ publicIp }) => (underlay === 4 ? publicIp : host6(publicIp)));
const hostOf = (underlay: 4 | 6, publicIp: string): IpAddr =>
  underlay === 4 ? ipv4Of(address(publicIp)) : parseIpv6(host6(publicIp))!;
export const NETWORK = '10.244.0.0/16';
const OWN_SUBNET = '10.244.1.0/24';
/** The two bytes at 4 of an address are where BPF_PROG_TEST_RUN looks for the protocol of a packet that leaves: IPv6's. */
export const FUZZ_IPV6 = { network: 'fd00:244::/32', own: 'fd00:244:86dd:1::/64' } as const;
/** The forwarder's socket has never heard from it. */
const UNHEARD = '192.168.77.9';
/** The way back to it leads through another device, or is none. */
const BEHIND_ANOTHER_DEVICE = ['192.168.77.1', '127.0.0.1', '192.168.88.8'];
const OUTER_SOURCES = [...PEERS.map(({ publicIp }) => publicIp), '192.168.77.99'];
const INNER_SOURCES = [
  ...['10.244.2.9', '10.244.2.200', '10.244.3.9', '10.244.6.1', '10.244.7.1', '10.244.8.1', '10.244.9.1', '10.244.1.9'],
  ...['10.244.77.1', '127.0.0.1', '8.8.8.8', '192.168.77.2', '192.168.77.11', '224.0.0.1', '0.0.0.0'],
].map(address);
const INNER_DESTINATIONS = ['10.244.1.2', '10.244.1.200', '192.168.77.1', '10.244.3.5', '169.254.169.254'].map(address);
const INNER_SOURCES6 = [
  ...['fd00:244:0:2::9', 'fd00:244:0:2:8000::9', 'fd00:244:0:3::9', 'fd00:244:0:6::1', 'fd00:244:0:7::1'],
  ...['fd00:244:0:8::1', 'fd00:244:0:9::1', 'fd00:244:86dd:1::9', 'fd00:244:0:77::1', '::1', '2001:db8::8'],
  ...['fd00:77::11', 'ff02::1', '::', 'fe80::1'],
].map(address6);
const INNER_DESTINATIONS6 = [
  ...['fd00:244:86dd:1::2', 'fd00:244:86dd:1:ffff::2', 'fd00:77::1', 'fd00:244:0:3::5', 'fe80::1', '::1', 'ff02::1'],
].map(address6);
const OTHER_MACS = [0x02, 0x01, 0xff];
/** Of frames that are nothing but noise. */
const SHORTEST_NOISE = 54;
const LONGEST = 3_000;
const ROUTE_TTL_MS = 200;

export interface ProgramFuzzTotals {
  readonly packets: number;
  /** By the program for each kind of device. */
  readonly taken: number;
  readonly takenWhereCut: number;
  /** By the program for --destination-check=off. */
  readonly takenUnchecked: number;
  /** By the programs before GRO. */
  readonly takenByXdp: number;
  /** Left to the host, which would have given them to the forwarder. */
  readonly left: number;
  /** Of all that were taken, those of IPv6. */
  readonly takenIpv6: number;
  readonly takenIpv6ByXdp: number;
  /** … which would have passed them on. */
  readonly leftAndPassed: number;
}

/** A frame of which program and forwarder do not think alike. */
export class ProgramFuzzFailure extends Error {
  override readonly name = 'ProgramFuzzFailure';
}

export interface ProgramFuzzOptions {
  readonly packets: number;
  readonly seed: number;
}

function frameOf(source: PacketSource, random: Random, underlay: 4 | 6): Uint8Array {
  if (random.oneIn(200)) return random.bytes(SHORTEST_NOISE + random.below(200));
  const inner = random.oneIn(5)
    ? random.pick([acknowledgement, acknowledgement6])(random)
    : Uint8Array.from(source.packet(random).subarray(0, LONGEST - 200));
  if (!random.oneIn(4) && isIpv6(inner)) {
    inner.set(random.pick(INNER_SOURCES6), 8);
    inner.set(random.oneIn(4) ? random.pick(INNER_DESTINATIONS6) : INNER_DESTINATIONS6[0]!, 24);
    if (random.oneIn(2)) inner[7] = 1 + random.below(64);
    if (!random.oneIn(4)) finishChecksum6(inner);
  } else if (!random.oneIn(4) && inner.length >= 20) {
    const view = new DataView(inner.buffer);
    // A peer and a container of its own, more often than not.
    view.setUint32(12, random.pick(INNER_SOURCES));
    view.setUint32(16, random.oneIn(4) ? random.pick(INNER_DESTINATIONS) : INNER_DESTINATIONS[0]!);
    view.setUint16(10, 0);
    const headerLength = Math.min(inner.length, (view.getUint8(0) & 15) * 4);
    view.setUint16(10, slowChecksum(inner.subarray(0, headerLength)));
  }
  const packet = underlay === 4 ? around(inner, random) : around6(inner, random);
  if (random.oneIn(40)) packet[0] = random.pick(OTHER_MACS);
  const final = random.oneIn(3) ? mutated(random, packet, random.oneIn(8) ? 0 : ETHERNET.length) : packet;
  return final.length < shortestRun(final) ? packet : final.subarray(0, LONGEST);
}

function around(inner: Uint8Array, random: Random): Uint8Array {
  const outer = udpPacket({
    ip: {
      source: address(random.oneIn(4) ? random.pick(OUTER_SOURCES) : ownerOf(inner)),
      destination: random.oneIn(50) ? random.word() : OWN,
      id: random.pick([TAG, TAG_WHOLE, TAG + 3, 0, random.below(65_536)]),
      dontFragment: !random.oneIn(30),
      moreFragments: random.oneIn(100),
      fragmentOffset: random.oneIn(100) ? random.below(100) : 0,
      ttl: random.oneIn(20) ? random.below(3) : 64,
      ...(random.oneIn(60) ? { options: new Uint8Array(4 * random.below(5)) } : {}),
    },
    sourcePort: random.oneIn(10) ? random.below(65_536) : PORT,
    destinationPort: random.oneIn(50) ? random.below(65_536) : PORT,
    withoutChecksum: !random.oneIn(6),
    payload: inner,
  });
  return concat(ETHERNET, outer);
}

/** The same where hosts have IPv6 alone. */
function around6(inner: Uint8Array, random: Random): Uint8Array {
  const outer = udp6Packet({
    ip: {
      source: address6(host6(random.oneIn(4) ? random.pick(OUTER_SOURCES) : ownerOf(inner))),
      destination: random.oneIn(50) ? random.bytes(16) : address6('fd00:77::1'),
      flowLabel: random.oneIn(20) ? random.below(1 << 20) : random.pick([TAG, TAG_WHOLE, TAG + 3, 0]),
      trafficClass: random.oneIn(20) ? random.below(256) : 0,
      hopLimit: random.oneIn(20) ? random.below(3) : 64,
      ...(random.oneIn(60) ? { extensions: [[60, optionsHeader()]] } : {}),
    },
    sourcePort: random.oneIn(10) ? random.below(65_536) : PORT,
    destinationPort: random.oneIn(50) ? random.below(65_536) : PORT,
    withoutChecksum: !random.oneIn(6),
    payload: inner,
  });
  return concat(ETHERNET_6, outer);
}

/** TCP's, mostly with nothing else in it: what the program takes where this host cuts super-packets. */
function acknowledgement(random: Random): Uint8Array {
  return tcpPacket({
    ip: {
      source: random.pick(INNER_SOURCES),
      destination: random.oneIn(4) ? random.pick(INNER_DESTINATIONS) : INNER_DESTINATIONS[0]!,
      ttl: 1 + random.below(64),
    },
    ...{ sourcePort: 1, destinationPort: 2, flags: random.oneIn(8) ? random.below(256) : ACK },
    options: payloadOf(4 * random.below(11), random.word()),
    payload: payloadOf(random.oneIn(8) ? random.below(9) : 0),
  });
}

/** The same over IPv6. */
function acknowledgement6(random: Random): Uint8Array {
  return tcp6Packet({
    ip: {
      source: random.pick(INNER_SOURCES6),
      destination: random.oneIn(4) ? random.pick(INNER_DESTINATIONS6) : INNER_DESTINATIONS6[0]!,
      hopLimit: 1 + random.below(64),
      ...(random.oneIn(20) ? { extensions: [[60, optionsHeader()]] } : {}),
    },
    ...{ sourcePort: 1, destinationPort: 2, flags: random.oneIn(8) ? random.below(256) : ACK },
    options: payloadOf(4 * random.below(11), random.word()),
    payload: payloadOf(random.oneIn(8) ? random.below(9) : 0),
  });
}

/** Where the checksum of a transport header is. */
const CHECKSUM_AT: ReadonlyMap<number, number> = new Map([
  [6, 16],
  [17, 6],
  [58, 2],
]);

/** Of the transport header, where it comes directly behind that of IPv6. */
function finishChecksum6(packet: Uint8Array): void {
  const protocol = packet[6]!;
  const at = CHECKSUM_AT.get(protocol);
  const segment = packet.subarray(40);
  if (at === undefined || segment.length < at + 2) return;
  segment.set([0, 0], at);
  const checksum = transportChecksum6(packet.subarray(8, 24), packet.subarray(24, 40), protocol, segment);
  segment.set([checksum >>> 8, checksum & 255], at);
}

const isIpv6 = (packet: Uint8Array): boolean => packet.length >= 40 && packet[0]! >>> 4 === 6;

/** The host whose subnet the inner source is in, by longest prefix. */
function ownerOf(inner: Uint8Array): string {
  if (inner.length < 20) return OUTER_SOURCES[0]!;
  if (isIpv6(inner)) return ownerOf6(inner);
  const source = new DataView(inner.buffer, inner.byteOffset).getUint32(12);
  let best: { readonly length: number; readonly publicIp: string } | undefined;
  for (const peer of PEERS) {
    const { publicIp } = peer;
    const subnet = peerOf(peer).subnets.ipv4;
    const isIn = subnet.length === 0 || source >>> (32 - subnet.length) === subnet.addr >>> (32 - subnet.length);
    if (isIn && (best === undefined || subnet.length > best.length)) best = { length: subnet.length, publicIp };
  }
  return best?.publicIp ?? OUTER_SOURCES[0]!;
}

function ownerOf6(inner: Uint8Array): string {
  const source = ipv6Of(BigInt(`0x${hex(inner.subarray(8, 24))}`));
  const owners = PEERS.flatMap(({ publicIp, ipv6Subnet }) => {
    const subnet = ipv6Subnet === undefined ? undefined : parsePrefix6(ipv6Subnet)!;
    return subnet !== undefined && containsAddr6(subnet, source) ? { publicIp, length: subnet.length } : [];
  });
  const [best] = owners.sort((a, b) => b.length - a.length);
  return best?.publicIp ?? OUTER_SOURCES[0]!;
}

interface Delivered {
  readonly from: IpAddr;
  readonly port: number;
  readonly payload: Uint8Array;
}

/** What Linux would give the forwarder's socket of a frame: net/ipv4/ip_input.c and udp.c, the way of a good packet alone. */
function deliveredBy(frame: Uint8Array): Delivered | undefined {
  const ip = frame.subarray(ETHERNET.length);
  const view = new DataView(ip.buffer, ip.byteOffset, ip.byteLength);
  const isForUs = frame.subarray(0, 6).every((byte) => byte === 0);
  if (!isForUs || frame[12] !== 8 || frame[13] !== 0 || ip.length < 20) return undefined;
  const headerLength = (view.getUint8(0) & 15) * 4;
  const total = view.getUint16(2);
  if (view.getUint8(0) >>> 4 !== 4 || headerLength < 20 || total < headerLength || total > ip.length) return undefined;
  if (slowChecksum(ip.subarray(0, headerLength)) !== 0) return undefined;
  if ((view.getUint16(6) & 0x3fff) !== 0 || view.getUint8(9) !== 17 || view.getUint32(16) !== OWN) return undefined;
  const from = ipv4Of(view.getUint32(12));
  const first = from >>> 24;
  if (BEHIND_ANOTHER_DEVICE.map(address).includes(from) || first === 0 || first === 127 || first >= 224)
    return undefined;
  const udp = ip.subarray(headerLength, total);
  if (udp.length < 8 || view.getUint16(headerLength + 2) !== PORT) return undefined;
  const length = view.getUint16(headerLength + 4);
  if (length < 8 || length > udp.length) return undefined;
  const datagram = udp.subarray(0, length);
  const hasChecksum = view.getUint16(headerLength + 6) !== 0;
  if (hasChecksum && transportChecksum(from, OWN, 17, datagram) !== 0) return undefined;
  return { from, port: view.getUint16(headerLength), payload: datagram.slice(8) };
}

/** The same of IPv6: net/ipv6/ip6_input.c and udp.c, of a socket that takes datagrams without a checksum. */
function deliveredBy6(frame: Uint8Array): Delivered | undefined {
  const ip = frame.subarray(ETHERNET_6.length);
  const view = new DataView(ip.buffer, ip.byteOffset, ip.byteLength);
  const isForUs = frame.subarray(0, 6).every((byte) => byte === 0);
  if (!isForUs || frame[12] !== 0x86 || frame[13] !== 0xdd || ip.length < 40 || ip[0]! >>> 4 !== 6) return undefined;
  const end = 40 + view.getUint16(4);
  if (end > ip.length || end < 48 || ip[6] !== 17 || ipv6At(view, 24) !== OWN_6) return undefined;
  const from = ipv6At(view, 8);
  const isBehind = BEHIND_ANOTHER_DEVICE.some((text) => parseIpv6(host6(text)) === from);
  if (isBehind || ip[8] === 0xff || view.getUint16(42) !== PORT) return undefined;
  const length = view.getUint16(44);
  if (length < 8 || length > end - 40) return undefined;
  const datagram = ip.subarray(40, 40 + length);
  const hasChecksum = view.getUint16(46) !== 0;
  if (hasChecksum && transportChecksum6(ip.subarray(8, 24), ip.subarray(24, 40), 17, datagram) !== 0) return undefined;
  return { from, port: view.getUint16(40), payload: datagram.slice(8) };
}

/** What the forwarder writes to its TUN for a datagram: nothing, or the packet. */
function forwarded(host: MemoryHost, { from, port, payload }: Delivered): Uint8Array | undefined {
  const { core, conn, tun } = host.rx;
  conn.incoming.push({ address: from, port, data: payload, segment: 0 });
  while (conn.incoming.length > 0) core.step();
  host.rx.icmp.sent.length = 0;
  host.rx.icmp6.sent.length = 0;
  const [written] = tun.written.splice(0);
  return written?.subarray(10);
}

/** The peers in the programs' tables. @param ownSubnet of IPv4. @param mtu longest inner packet. */
export function publishFuzzPeers({ tables, underlay }: ProgramBench, ownSubnet: string, mtu: number): void {
  const ipv6 = { network: parsePrefix6(FUZZ_IPV6.network)!, own: parsePrefix6(FUZZ_IPV6.own)! };
  if (underlay === 6) {
    tables.publish({ ipv4: undefined, ipv6, mtu, peers: FUZZ_PEERS[6].map(peer6Of) });
  } else {
    const ipv4 = { network: parsePrefix4(NETWORK)!, own: parsePrefix4(ownSubnet)! };
    tables.publish({ ipv4, ipv6, mtu, peers: PEERS.map(peerOf) });
  }
}

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

/**
 * Runs frames through the inbound programs, by BPF_PROG_TEST_RUN, and through the forwarder with the strictest checks. What a
 * program takes must be what the host gives the forwarder and the forwarder passes on, to the byte; what it leaves must be as it
 * was; and it does nothing else.
 * @throws ProgramFuzzFailure with the frame in hex.
 */
export async function runProgramFuzz(
  bench: ProgramBench,
  { packets, seed }: ProgramFuzzOptions,
): Promise<ProgramFuzzTotals> {
  const random = new Random(seed);
  const source = new PacketSource(new Random(seed ^ 0x2545_f491));
  const { underlay } = bench;
  const networks = { network: NETWORK, own: OWN_SUBNET, ipv6: FUZZ_IPV6 };
  const checked = { peers: FUZZ_PEERS[underlay], underlay, ...networks, sourceCheck: 'strict' } as const;
  const host = memoryHost({ ...checked, destinationCheck: 'strict' });
  const lax = memoryHost({ ...checked, destinationCheck: 'off' });
  publishFuzzPeers(bench, OWN_SUBNET, 1_472);
  const unheard = hostOf(underlay, UNHEARD);
  for (const { publicIp } of PEERS) if (publicIp !== UNHEARD) bench.grant(hostOf(underlay, publicIp));
  const ethernet = underlay === 4 ? ETHERNET : ETHERNET_6;
  const totals = {
    packets: 0,
    taken: 0,
    takenWhereCut: 0,
    takenUnchecked: 0,
    takenByXdp: 0,
    left: 0,
    leftAndPassed: 0,
    takenIpv6: 0,
    takenIpv6ByXdp: 0,
  };
  let bytes = 0;
  for (; totals.packets < packets; totals.packets++) {
    const frame = frameOf(source, random, underlay);
    const fail = (what: string): never => {
      throw new ProgramFuzzFailure(`${what}\n${hex(frame)}`);
    };
    const delivered = underlay === 4 ? deliveredBy(frame) : deliveredBy6(frame);
    const passed = delivered && forwarded(host, delivered);
    const passedLax = delivered && forwarded(lax, delivered);
    if (delivered !== undefined) totals.left++;
    for (const [segmentation, program] of Object.entries({ ...bench.programs, unchecked: bench.unchecked })) {
      const { verdict, packet } = runProgram(program, frame);
      if (verdict === NEXT) {
        if (!equal(packet, frame)) fail(`${segmentation}: left, but changed to ${hex(packet)}`);
        if (segmentation === 'beyond' && passed !== undefined) totals.leftAndPassed++;
        continue;
      }
      if (verdict !== REDIRECTED) fail(`${segmentation}: verdict ${verdict}`);
      if (delivered === undefined) return fail(`${segmentation}: taken, but the host gives it to nobody`);
      if (delivered.from === unheard) fail(`${segmentation}: taken from a host that the socket has not heard`);
      if (isSign(new DataView(delivered.payload.buffer), 0, delivered.payload.length)) fail(`${segmentation}: a sign`);
      const forwards = segmentation === 'unchecked' ? passedLax : passed;
      if (forwards === undefined) return fail(`${segmentation}: taken, but the forwarder refuses it`);
      const expected = concat(ethernet, forwards);
      expected.set(frame.subarray(0, 12));
      if (!equal(packet, expected)) fail(`${segmentation}: made ${hex(packet)}, the forwarder makes ${hex(forwards)}`);
      bytes += forwards.length;
      if (segmentation === 'beyond') totals.taken++;
      else if (segmentation === 'host') totals.takenWhereCut++;
      else totals.takenUnchecked++;
      if (isIpv6(forwards)) totals.takenIpv6++;
    }
    for (const [segmentation, program] of Object.entries(bench.xdp)) {
      const { verdict, packet } = runProgram(program, frame);
      if (verdict !== XDP_PASSED) fail(`XDP, ${segmentation}: verdict ${verdict}`);
      if (equal(packet, frame)) continue;
      if (passed === undefined) return fail(`XDP, ${segmentation}: taken, but host or forwarder refuse it`);
      if (delivered?.from === unheard) fail(`XDP, ${segmentation}: taken from a host not heard`);
      const protocol = isIpv6(passed) ? [0x86, 0xdd] : [8, 0];
      const expected = concat(MARK, frame.subarray(0, ETHERNET.length - 2), protocol, passed);
      if (!equal(packet, expected)) fail(`XDP, ${segmentation}: made ${hex(packet)}, not ${hex(expected)}`);
      bytes += passed.length;
      totals.takenByXdp++;
      if (isIpv6(passed)) totals.takenIpv6ByXdp++;
    }
    // Routing is asked anew only so often: the programs are to meet it with every peer.
    if (totals.packets % 100_000 === 99_999) await new Promise((resolve) => setTimeout(resolve, ROUTE_TTL_MS));
  }
  const counted = PEERS.map(({ slot }) => bench.tables.read(slot).rx);
  const sum = (field: 'packets' | 'bytes'): number => counted.reduce((all, one) => all + one[field], 0);
  const taken = totals.taken + totals.takenWhereCut + totals.takenUnchecked + totals.takenByXdp;
  if (sum('packets') !== taken || sum('bytes') !== bytes) {
    throw new ProgramFuzzFailure(
      `${taken} packets of ${bytes} bytes taken, ${sum('packets')} of ${sum('bytes')} counted`,
    );
  }
  totals.left -= totals.taken;
  return totals;
}
