import { ENDPOINT_VALUE_BYTES } from '../../src/dataplane/fast-path/layout.ts';
import { type IpAddr, isIpv4, parseAddr } from '../../src/ip/address.ts';
import { ipv6At, putIpv6 } from '../../src/ip/ipv6.ts';
import { memoryHost } from '../fakes/memory-dataplane.ts';
import { address, concat, frame, hex, slowChecksum } from '../fakes/packets.ts';
import { address6 } from '../fakes/packets6.ts';
import { PacketSource } from './packet-source.ts';
import {
  NEIGHBOUR,
  NEXT,
  OWN,
  OWN_6,
  OWN_MAC,
  PORT,
  type ProgramBench,
  REDIRECTED,
  runProgram,
  SEND_TAG,
  shortestRun,
} from './program-bench.ts';
import {
  FUZZ_IPV6,
  FUZZ_PEERS,
  fuzzHosts,
  NETWORK,
  ProgramFuzzFailure,
  type ProgramFuzzOptions,
  publishFuzzPeers,
} from './program-fuzz-run.ts';
import { Random } from './random.ts';

const MTU = { 4: 1_472, 6: 1_452 } as const;
const HEADERS = { 4: 14 + 28, 6: 14 + 48 } as const;
const LONGEST = 3_000;
/** Those of IPv4, and of what is damaged. */
const SHORTEST = 34;
const SHORTEST_6 = 54;
const SOURCES6 = ['fd00:244:86dd:1::2', 'fd00:244:86dd:1:ffff::9', 'fd00:244:86dd:2::2'].map(address6);
const DESTINATIONS6 = [
  ...['fd00:244:0:2::9', 'fd00:244:0:2:8000::9', 'fd00:244:0:3::9', 'fd00:244:0:8::1', 'fd00:244:0:77::1'],
  ...['2001:db8::8', 'ff02::1', 'fd00:244:86dd:1::7', 'fd00:77::11'],
].map(address6);
/** The programs stop sending TCP's data when nobody answers. */
const FORGET_EVERY = 50;
const DESTINATIONS = ['10.244.2.9', '10.244.2.200', '10.244.3.9', '10.244.8.1', '10.244.77.1', '8.8.8.8'].map(address);

export interface OutboundFuzzTotals {
  /** By the programs, of either kind. */
  readonly sent: number;
  /** Left to the forwarder, which sends them; and which does not. */
  readonly leftAndSent: number;
  readonly leftAndRefused: number;
  /** Of all that were sent, those of IPv6. */
  readonly sentIpv6: number;
}

/**
 * A packet as the TUN device is given one. BPF_PROG_TEST_RUN takes the first 14 bytes for an Ethernet header and the two behind its
 * addresses for the protocol: those are where an IP header has its source. One from 8.0.0.0/16 says that it is IPv4, one with 86dd in
 * its third group that it is IPv6; now and then a packet says what it is not.
 */
function packetOf(source: PacketSource, random: Random): Uint8Array {
  const packet = drawn(source, random);
  return padded(packet, shortestRun(packet), random);
}

function drawn(source: PacketSource, random: Random): Uint8Array {
  const packet = Uint8Array.from(source.packet(random).subarray(0, random.oneIn(10) ? LONGEST : 1_500));
  if (packet.length < SHORTEST) return padded(packet, SHORTEST, random);
  if (random.oneIn(20) ? random.oneIn(2) : packet[0]! >>> 4 === 6) return packet6Of(packet, random);
  const view = new DataView(packet.buffer);
  view.setUint32(12, (0x0800_0000 | random.below(65_536)) >>> 0);
  if (!random.oneIn(4)) view.setUint32(16, random.pick(DESTINATIONS));
  if (!random.oneIn(6)) {
    view.setUint16(10, 0);
    view.setUint16(10, slowChecksum(packet.subarray(0, Math.min(packet.length, (view.getUint8(0) & 15) * 4))));
  }
  return packet;
}

function packet6Of(start: Uint8Array, random: Random): Uint8Array {
  const packet = padded(start, SHORTEST_6, random);
  if (random.oneIn(30)) packet[0]! ^= 1 << (4 + random.below(4));
  packet.set(random.pick(SOURCES6), 8);
  if (!random.oneIn(4)) packet.set(random.pick(DESTINATIONS6), 24);
  return packet;
}

function padded(packet: Uint8Array, length: number, random: Random): Uint8Array {
  return packet.length < length ? concat(packet, random.bytes(length - packet.length)) : packet;
}

/** What is wrong with the headers that a program has put in front of `payload`; undefined when nothing is. */
function headerFault(datagram: Uint8Array, to: number, port: number, payload: number): string | undefined {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
  const ip = datagram.subarray(14, 34);
  if (Buffer.compare(datagram.subarray(0, 14), concat(NEIGHBOUR, OWN_MAC, [8, 0])) !== 0) return 'Ethernet header';
  if (slowChecksum(ip) !== 0 || ip[0] !== 0x45 || ip[9] !== 17) return 'outer IP header';
  if (view.getUint16(16) !== payload + 28 || view.getUint16(20) !== 0x4000 || ip[8] !== 64)
    return 'length, flags or TTL';
  if (view.getUint16(18) !== SEND_TAG) return 'tag';
  if (view.getUint32(26) !== OWN || view.getUint32(30) !== to) return 'addresses';
  if (view.getUint16(34) !== PORT || view.getUint16(36) !== port) return 'ports';
  if (view.getUint16(38) !== payload + 8 || view.getUint16(40) !== 0) return 'UDP length or checksum';
  return undefined;
}

/** The same where hosts have IPv6 alone. */
function headerFault6(datagram: Uint8Array, to: bigint, port: number, payload: number): string | undefined {
  const view = new DataView(datagram.buffer, datagram.byteOffset, datagram.byteLength);
  if (Buffer.compare(datagram.subarray(0, 14), concat(NEIGHBOUR, OWN_MAC, [0x86, 0xdd])) !== 0)
    return 'Ethernet header';
  if (view.getUint32(14) !== 0x6000_0000 + SEND_TAG) return 'version, traffic class or tag';
  if (view.getUint16(18) !== payload + 8 || datagram[20] !== 17 || datagram[21] !== 64) return 'length or hop limit';
  if (ipv6At(view, 22) !== OWN_6 || ipv6At(view, 38) !== to) return 'addresses';
  if (view.getUint16(54) !== PORT || view.getUint16(56) !== port) return 'ports';
  if (view.getUint16(58) !== payload + 8 || view.getUint16(60) !== 0) return 'UDP length or checksum';
  return undefined;
}

/**
 * Runs packets through the outbound programs and through the forwarder: what a program sends must be what the forwarder sends, to
 * the same peer and to the byte, in sound headers; what it leaves must be as it was.
 * @throws ProgramFuzzFailure with the packet in hex.
 */
export function runOutboundFuzz(bench: ProgramBench, { packets, seed }: ProgramFuzzOptions): OutboundFuzzTotals {
  const random = new Random(seed ^ 0x1234_5678);
  const source = new PacketSource(new Random(seed ^ 0x2545_f491));
  const { underlay } = bench;
  const host = memoryHost({
    peers: FUZZ_PEERS[underlay],
    underlay,
    network: NETWORK,
    mtu: MTU[underlay],
    ipv6: FUZZ_IPV6,
  });
  const { core, tun, conn, icmp, icmp6 } = host.tx;
  const hosts = grantAll(bench);
  const totals = { sent: 0, leftAndSent: 0, leftAndRefused: 0, sentIpv6: 0 };
  for (let index = 0; index < packets; index++) {
    if (index % FORGET_EVERY === 0) {
      skipLongWay(bench, hosts);
    }
    const packet = packetOf(source, random);
    tun.incoming.push(frame(packet));
    while (tun.incoming.length > 0) core.step();
    const [datagram] = conn.sent.splice(0);
    conn.messages.length = 0;
    icmp.sent.length = 0;
    icmp6.sent.length = 0;
    for (const [segmentation, program] of Object.entries(bench.outbound)) {
      const fail = (what: string): never => {
        throw new ProgramFuzzFailure(`outbound, ${segmentation}: ${what}\n${hex(packet)}`);
      };
      const { verdict, packet: left } = runProgram(program, packet);
      if (verdict === NEXT) {
        if (Buffer.compare(left, packet) !== 0) fail(`left, but changed to ${hex(left)}`);
        if (datagram === undefined) totals.leftAndRefused++;
        else totals.leftAndSent++;
        continue;
      }
      if (verdict !== REDIRECTED) fail(`verdict ${verdict}`);
      if (datagram === undefined) return fail('sent, but the forwarder refuses it');
      if (datagram.fragmentable) fail('sent, but the forwarder lets it be fragmented');
      if (Buffer.compare(left.subarray(HEADERS[underlay]), datagram.data) !== 0)
        fail(`sent ${hex(left)}, the forwarder ${hex(datagram.data)}`);
      const outer = segmentation === 'host' ? withTag(left, underlay) : left;
      const { address: to, port, data } = datagram;
      const fault =
        typeof to === 'number'
          ? headerFault(outer, to >>> 0, port, data.length)
          : headerFault6(outer, to, port, data.length);
      if (fault !== undefined) fail(`${fault}: ${hex(left)}`);
      totals.sent++;
      if (datagram.data[0]! >>> 4 === 6) totals.sentIpv6++;
    }
  }
  return totals;
}

/** All peers may be sent to by the programs. Returns their addresses. */
function grantAll(bench: ProgramBench): readonly IpAddr[] {
  publishFuzzPeers(bench, '8.0.0.0/16', MTU[bench.underlay]);
  const hosts = fuzzHosts(bench.underlay).map((text) => parseAddr(text)!);
  for (const each of hosts) bench.grant(each);
  return hosts;
}

function skipLongWay(bench: ProgramBench, hosts: readonly IpAddr[]): void {
  for (const each of hosts) bench.tables.maps.endpoints.update(keyOf(each), new Uint8Array(ENDPOINT_VALUE_BYTES));
}

/** What each program makes of these packets; `undefined` where it leaves one as it is. */
export function sentByPrograms(bench: ProgramBench, packets: readonly Uint8Array[]): (Uint8Array | undefined)[] {
  const hosts = grantAll(bench);
  return packets.flatMap((packet) =>
    Object.values(bench.outbound).map((program) => {
      skipLongWay(bench, hosts);
      const { verdict, packet: left } = runProgram(program, packet);
      if (verdict === REDIRECTED) return left;
      const isUntouched = verdict === NEXT && Buffer.compare(left, packet) === 0;
      if (!isUntouched) throw new ProgramFuzzFailure(`verdict ${verdict}, and left is ${hex(left)}`);
      return undefined;
    }),
  );
}

/** Where this host cuts super-packets, datagrams have no tag: identification or flow label 0. */
function withTag(datagram: Uint8Array, underlay: 4 | 6): Uint8Array {
  const copy = datagram.slice();
  const view = new DataView(copy.buffer);
  if (underlay === 6) {
    if (view.getUint16(16) === 0) view.setUint16(16, SEND_TAG);
    return copy;
  }
  if (view.getUint16(18) !== 0) return copy;
  const sum = view.getUint16(24) + (~SEND_TAG & 0xffff);
  view.setUint16(18, SEND_TAG);
  view.setUint16(24, (sum & 0xffff) + (sum >>> 16));
  return copy;
}

function keyOf(host: IpAddr): Uint8Array {
  const key = new DataView(new ArrayBuffer(isIpv4(host) ? 4 : 16));
  if (isIpv4(host)) key.setUint32(0, host);
  else putIpv6(key, 0, host);
  return new Uint8Array(key.buffer);
}
