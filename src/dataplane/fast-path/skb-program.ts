// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/**
 * What the programs of the fast path share: the parts of Linux' interface for classifiers that they use, and pieces of
 * code. All keep the packet's context in R6 and leave by one of three doors:
 *
 *   pass   the packet is untouched and goes on as if there were no program: to the forwarder in user space, which has the
 *          last word on everything unusual (and counts it, and answers it by ICMP)
 *   drop   it was changed half way when the kernel ran out of memory
 *   a redirect to another device
 */

import type { IpAddr } from '../../ip/address.ts';
import type { DestinationCheck } from '../destination-check.ts';
import { PROTO_TCP, PROTO_UDP, TCP_ACK, UDP_HEADER } from '../wire.ts';
import { type Assembler, type MapReference, type Register, reg } from './assembler.ts';
import type { Family, FastPathMaps } from './family.ts';
import { be16, FRAME, frameAddress } from './frame-words.ts';
import { AGENT_UNTIL, GRANT_VALUE_BYTES, LONG_WAY_UNTIL, OWN_SUBNET } from './layout.ts';
import { addressWords, type Outer, outerOf } from './outer.ts';

/** Offsets in `struct __sk_buff` (include/uapi/linux/bpf.h). */
export const SKB_LENGTH = 0;
export const SKB_PACKET_TYPE = 4;
export const SKB_PROTOCOL = 16;
export const SKB_VLAN_PRESENT = 20;
export const SKB_DATA = 76;
export const SKB_DATA_META = 140;
export const SKB_WIRE_LENGTH = 160;
const SKB_GSO_SEGMENTS = 164;
export const SKB_GSO_SIZE = 176;

/** Helper functions by number (`enum bpf_func_id`). */
export const MAP_LOOKUP = 1;
export const MAP_UPDATE = 2;
const KTIME_GET_NS = 5;
export const SKB_STORE_BYTES = 9;
export const L4_CSUM_REPLACE = 11;
export const REDIRECT = 23;
export const SKB_LOAD_BYTES = 26;
export const SKB_CHANGE_HEAD = 43;
export const SKB_ADJUST_ROOM = 50;
const FIB_LOOKUP = 69;
const SK_LOOKUP_UDP = 85;
const SK_RELEASE = 86;
const REDIRECT_NEIGH = 152;
/** `struct bpf_redir_neigh`: address family, next hop. */
export const NEXT_HOP_BYTES = 20;

/** `bpf_skb_adjust_room`: room is made or taken behind the MAC header; the size of segments stays. */
export const ADJ_ROOM_MAC = 1;
export const ADJ_ROOM_FIXED_GSO = 1;
export const ADJ_ROOM_ENCAP_L4_UDP = 16;
/** `bpf_redirect`: to the receiving side of the device. */
export const REDIRECT_INGRESS = 1;

/** `TCX_NEXT` and `TCX_DROP` (enum tcx_action_base). */
const TCX_NEXT = -1;
const TCX_DROP = 2;

export const CONTEXT: Register = 6;

export const ETHERNET_HEADER = 14;

/** What a program is made for. */
export interface ProgramOptions {
  readonly maps: FastPathMaps;
  /** Address and port datagrams are sent from: those of the forwarder's socket. The family is that of the network between the hosts. */
  readonly ownAddress: IpAddr;
  readonly ownPort: number;
  readonly tunIndex: number;
  readonly underlayIndex: number;
  /**
   * Who cuts super-packets. `host`: the kernel, before the underlay's device, which cannot (no TSO): every peer gets plain
   * datagrams. `beyond`: the device, something behind it, or, between namespaces and machines on one host, nobody: a peer
   * that does not know what to do with a whole super-packet must not get one.
   */
  readonly segmentation: 'host' | 'beyond';
  /** The program takes what is for this host's own subnet, and with `off` whatever comes; the rest is the forwarder's. */
  readonly destinationCheck: DestinationCheck;
  /** Whether the network has IPv6; the programs leave packets of it to the forwarder otherwise. */
  readonly carriesIpv6: boolean;
}

/** What a subnet's key takes in the frame, IPv6's, in whole double words. */
export const LONGEST_KEY_BYTES = 24;

export const SECOND_NS = 1_000_000_000;
export const MS = 1_000_000;

/** Words of the frame: the time, and the time that knowledge ages by, which stands still while this host has no agent. */
export interface Clock {
  readonly now: number;
  readonly known: number;
}

/** Goes to `label` unless the kernel takes the packet for one of that protocol. */
export function requireEtherType(asm: Assembler, etherType: number, label: string): void {
  asm.load(4, 1, CONTEXT, SKB_PROTOCOL);
  asm.jumpIf('ne', 1, etherType, label);
}

/** @param verdicts what the program says of a packet that passes, and of one that it drops; those of tcx by default. */
export function end(asm: Assembler, verdicts = { pass: TCX_NEXT, drop: TCX_DROP }): void {
  asm.label('pass');
  asm.op('mov', 0, verdicts.pass);
  asm.exit();
  asm.label('drop');
  asm.op('mov', 0, verdicts.drop);
  asm.exit();
}

/** Copies bytes of the packet into the frame; a packet that has not got them passes. */
export function loadBytes(asm: Assembler, packetOffset: number, frameOffset: number, length: number): void {
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, packetOffset);
  frameAddress(asm, 3, frameOffset);
  asm.op('mov', 4, length);
  asm.call(SKB_LOAD_BYTES);
  asm.jumpIf('ne', 0, 0, 'pass');
}

/** Copies bytes of the frame into the packet, or drops it. */
export function storeBytes(asm: Assembler, packetOffset: number, frameOffset: number, length: number): void {
  asm.op('mov', 1, reg(CONTEXT));
  asm.op('mov', 2, packetOffset);
  frameAddress(asm, 3, frameOffset);
  asm.op('mov', 4, length);
  asm.op('mov', 5, 0);
  asm.call(SKB_STORE_BYTES);
  asm.jumpIf('ne', 0, 0, 'drop');
}

/** R0 = address of the value; a packet whose key is not there goes to `missing`. */
export function mapLookup(asm: Assembler, map: MapReference, keyOffset: number, missing = 'pass'): void {
  asm.loadMap(1, map);
  frameAddress(asm, 2, keyOffset);
  asm.call(MAP_LOOKUP);
  asm.jumpIf('eq', 0, 0, missing);
}

/** R8 = what is known of the host whose public address is at `addressOffset`. Anybody else's packet passes. */
export function endpointLookup(asm: Assembler, maps: FastPathMaps, addressOffset: number): void {
  mapLookup(asm, maps.endpoints, addressOffset);
  asm.op('mov', 8, reg(0));
}

/** Copies what the agent grants the host at `addressOffset` into the frame; without a grant the packet passes. */
export function loadGrant(asm: Assembler, maps: FastPathMaps, addressOffset: number, grantOffset: number): void {
  mapLookup(asm, maps.grants, addressOffset);
  for (let offset = 0; offset < GRANT_VALUE_BYTES; offset += 8) {
    asm.load(8, 1, 0, offset);
    asm.store(8, FRAME, grantOffset + offset, reg(1));
  }
}

/** Reads the time by a helper function; R0 = now. @param key 4 bytes of the frame. */
export function readClock(asm: Assembler, maps: FastPathMaps, clock: Clock, key: number, helper = KTIME_GET_NS): void {
  const { now, known } = clock;
  asm.call(helper);
  asm.store(8, FRAME, now, reg(0));
  asm.store(4, FRAME, key, 0);
  mapLookup(asm, maps.agent, key);
  asm.load(8, 1, 0, AGENT_UNTIL);
  asm.load(8, 0, FRAME, now);
  asm.jumpIf('le', 1, reg(0), 'clock-stands');
  asm.op('mov', 1, reg(0));
  asm.label('clock-stands');
  asm.store(8, FRAME, known, reg(1));
}

/** Goes to `label` when nobody has been at the end of the way through the forwarder for a moment. R1 and R2 are lost. */
export function jumpIfUnattended(asm: Assembler, { now, known }: Clock, label: string): void {
  asm.load(8, 1, FRAME, known);
  asm.load(8, 2, FRAME, now);
  asm.jumpIf('lt', 1, reg(2), label);
}

/** `BPF_F_CURRENT_NETNS` */
const CURRENT_NETWORK_NAMESPACE = -1;
/** An agent that starts opens its socket long before it reads from it; what has one later than that is another program. */
const SOCKET_COUNTS_AFTER_SECONDS = 30;

/**
 * Goes to `label` when nobody reads what comes for the forwarder's socket: there is none; or there is one, but no agent since a moment
 * ago, so that it is one that is about to start. Later a socket is that of another program on this port, such as flannel's.
 * @param at the outer IP header in the frame, and the UDP header behind it.
 * @param tuple 36 bytes of the frame.
 */
export function jumpIfUnread(
  asm: Assembler,
  { family }: Outer,
  { now, known }: Clock,
  at: number,
  tuple: number,
  label: string,
): void {
  asm.load(8, 1, FRAME, known);
  asm.load(8, 2, FRAME, now);
  asm.jumpIf('ge', 1, reg(2), 'look-for-socket');
  asm.op('sub', 2, reg(1));
  asm.op('mov', 1, SECOND_NS);
  asm.op('mul', 1, SOCKET_COUNTS_AFTER_SECONDS);
  asm.jumpIf('le', 2, reg(1), label);
  asm.label('look-for-socket');
  const tupleBytes = 2 * family.addressBytes + 4;
  for (let word = 0; word < tupleBytes; word += 4) {
    asm.load(4, 1, FRAME, at + family.sourceAt + word);
    asm.store(4, FRAME, tuple + word, reg(1));
  }
  jumpWithoutSocket(asm, tuple, tupleBytes, label);
}

/** @param tuple `struct bpf_sock_tuple` in the frame: addresses and ports, as they lie in the headers of what the socket would receive. */
function jumpWithoutSocket(asm: Assembler, tuple: number, tupleBytes: number, label: string): void {
  asm.op('mov', 1, reg(CONTEXT));
  frameAddress(asm, 2, tuple);
  asm.op('mov', 3, tupleBytes);
  asm.op('mov', 4, CURRENT_NETWORK_NAMESPACE);
  asm.op('mov', 5, 0);
  asm.call(SK_LOOKUP_UDP);
  asm.jumpIf('eq', 0, 0, label);
  asm.op('mov', 1, reg(0));
  asm.call(SK_RELEASE);
}

/** Whom a packet is for, by offsets in the frame. */
export interface Recipient {
  readonly address: number;
  /** be16 */
  readonly port: number;
}

/**
 * Goes to `label` when the forwarder would not get what this program leaves to it: there has been no agent for a moment, or the
 * socket is gone, as with an agent that was killed just now. For packets that would take the long way: others need not know so soon.
 * R0 to R5 are lost.
 * @param tuple 36 bytes of the frame.
 */
export function jumpIfForwarderIsGone(
  asm: Assembler,
  options: Pick<ProgramOptions, 'ownAddress' | 'ownPort'>,
  clock: Clock,
  { address, port }: Recipient,
  tuple: number,
  label: string,
): void {
  jumpIfUnattended(asm, clock, label);
  const { addressBytes } = outerOf(options).family;
  for (let word = 0; word < addressBytes; word += 4) {
    asm.load(4, 1, FRAME, address + word);
    asm.store(4, FRAME, tuple + word, reg(1));
  }
  for (const [index, word] of addressWords(options.ownAddress).entries()) {
    asm.store(4, FRAME, tuple + addressBytes + 4 * index, word);
  }
  asm.load(2, 1, FRAME, port);
  asm.store(2, FRAME, tuple + 2 * addressBytes, reg(1));
  asm.store(2, FRAME, tuple + 2 * addressBytes + 2, be16(options.ownPort));
  jumpWithoutSocket(asm, tuple, 2 * addressBytes + 4, label);
}

/**
 * Sends the packet to the next hop that `findWay` has found, through its neighbour entry, which then knows that it is used.
 * @param nextHop NEXT_HOP_BYTES of the frame.
 */
export function sendToNeighbour(asm: Assembler, options: ProgramOptions, fib: number, nextHop: number): void {
  const { family, addressFamily } = outerOf(options);
  asm.store(4, FRAME, nextHop, addressFamily);
  for (let word = 0; word < family.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, fib + FIB_DESTINATION + word);
    asm.store(4, FRAME, nextHop + 4 + word, reg(1));
  }
  const end = 4 + family.addressBytes;
  for (let offset = end; offset < NEXT_HOP_BYTES; offset += 4) asm.store(4, FRAME, nextHop + offset, 0);
  asm.op('mov', 1, options.underlayIndex);
  frameAddress(asm, 2, nextHop);
  asm.op('mov', 3, NEXT_HOP_BYTES);
  asm.op('mov', 4, 0);
  asm.call(REDIRECT_NEIGH);
  asm.exit();
}

/** `struct bpf_fib_lookup`. */
export const FIB_BYTES = 64;
export const FIB_SOURCE_MAC = 52;
const FIB_DESTINATION = 32;
export const FIB_DESTINATION_MAC = 58;
const FIB_INDEX = 8;
const FIB_SOURCE = 16;
/** Loopback's: routing is asked as for what a socket of this host sends, `ip rule` included. */
const LOOPBACK_INDEX = 1;
/** `BPF_FIB_LOOKUP_SKIP_NEIGH`, Linux 6.3. */
export const FIB_LOOKUP_SKIP_NEIGH = 4;

/** `BPF_FIB_LKUP_RET_NO_NEIGH`: the route and the next hop's address are in the answer, and no MAC address. */
export const FIB_NO_NEIGHBOUR = 7;

/** What `findWay` asks about, by offsets in the frame. */
export interface Way {
  /** The answer, FIB_BYTES that are zero before. */
  readonly fib: number;
  readonly address: number;
  /** be16; our own by default. */
  readonly port?: number;
  /** 8 bytes, length of the inner packet; the shortest by default. */
  readonly length?: number;
  readonly flags: number;
  /** What to do when the answer, in R0, is not 0: go to `way-found` or `pass`. By default the packet passes. */
  readonly otherwise?: () => void;
}

/**
 * Asks the kernel's routing for the way of a datagram that the forwarder's socket would send to an address. It must lead out of
 * the underlay's device, by the family of that address; else the packet passes.
 */
export function findWay(
  asm: Assembler,
  { ownAddress, ownPort, underlayIndex }: Pick<ProgramOptions, 'ownAddress' | 'ownPort' | 'underlayIndex'>,
  { fib, address, port, length, flags, otherwise }: Way,
): void {
  const { family, addressFamily, overhead } = outerOf({ ownAddress });
  asm.store(1, FRAME, fib, addressFamily);
  asm.store(1, FRAME, fib + 1, PROTO_UDP);
  asm.store(2, FRAME, fib + 2, be16(ownPort));
  asm.store(2, FRAME, fib + 4, be16(ownPort));
  asm.store(2, FRAME, fib + 6, overhead);
  if (port !== undefined) {
    asm.load(2, 1, FRAME, port);
    asm.store(2, FRAME, fib + 4, reg(1));
  }
  if (length !== undefined) {
    asm.load(8, 1, FRAME, length);
    asm.op('add', 1, overhead);
    asm.store(2, FRAME, fib + 6, reg(1));
  }
  asm.store(4, FRAME, fib + FIB_INDEX, LOOPBACK_INDEX);
  for (const [index, word] of addressWords(ownAddress).entries()) {
    asm.store(4, FRAME, fib + FIB_SOURCE + 4 * index, word);
  }
  for (let word = 0; word < family.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, address + word);
    asm.store(4, FRAME, fib + FIB_DESTINATION + word, reg(1));
  }
  asm.op('mov', 1, reg(CONTEXT));
  frameAddress(asm, 2, fib);
  asm.op('mov', 3, FIB_BYTES);
  asm.op('mov', 4, flags);
  asm.call(FIB_LOOKUP);
  if (otherwise === undefined) asm.jumpIf('ne', 0, 0, 'pass');
  else {
    asm.jumpIf('eq', 0, 0, 'way-found');
    otherwise();
    asm.label('way-found');
  }
  asm.load(4, 1, FRAME, fib + FIB_INDEX);
  asm.jumpIf('ne', 1, underlayIndex, 'pass');
  // The next hop of an IPv4 route may have an IPv6 address.
  asm.load(1, 1, FRAME, fib);
  asm.jumpIf('ne', 1, addressFamily, 'pass');
}

/**
 * The peer whose subnet has the address at `addressOffset`: R0 = its value. Anybody else's packet passes.
 * @param keyOffset LONGEST_KEY_BYTES of the frame.
 */
export function subnetLookup(
  asm: Assembler,
  maps: FastPathMaps,
  family: Family,
  keyOffset: number,
  addressOffset: number,
): void {
  asm.store(4, FRAME, keyOffset, 8 * family.addressBytes);
  for (let word = 0; word < family.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, addressOffset + word);
    asm.store(4, FRAME, keyOffset + 4 + word, reg(1));
  }
  mapLookup(asm, family.subnets(maps), keyOffset);
}

/** An address, at `addressOffset`, that is not of this host's own subnet passes. @param keyOffset 4 bytes of the frame. */
export function requireOwn(
  asm: Assembler,
  maps: FastPathMaps,
  family: Family,
  keyOffset: number,
  addressOffset: number,
): void {
  asm.store(4, FRAME, keyOffset, 0);
  mapLookup(asm, family.own(maps), keyOffset);
  for (let word = OWN_SUBNET; word < family.addressBytes; word += 4) {
    asm.load(4, 1, FRAME, addressOffset + word);
    asm.load(4, 2, 0, family.addressBytes + word);
    asm.op('and', 1, reg(2));
    asm.load(4, 2, 0, word);
    asm.jumpIf('ne', 1, reg(2), 'pass');
  }
}

/** R1 = length of IP and TCP header; `at` is the data offset, and what shares its byte, in the frame. */
function tcpHeadersLength(asm: Assembler, { header }: Family, at: number): void {
  asm.load(1, 1, FRAME, at);
  asm.op('shr', 1, 4);
  asm.op('shl', 1, 2);
  asm.op('add', 1, header);
}

/**
 * R1 = length of IP and transport header of a super-packet, TCP's or UDP's; any other passes.
 * @param ipOffset of its IP header in the frame.
 * @param transportOffset of its transport header in the packet.
 * @param scratch 8 bytes of the frame.
 */
function headersLength(
  asm: Assembler,
  family: Family,
  ipOffset: number,
  transportOffset: number,
  scratch: number,
): void {
  asm.load(1, 2, FRAME, ipOffset + family.protocolAt);
  asm.op('mov', 1, family.header + UDP_HEADER);
  asm.jumpIf('eq', 2, PROTO_UDP, 'headers-measured');
  asm.jumpIf('ne', 2, PROTO_TCP, 'pass');
  loadBytes(asm, transportOffset + 12, scratch, 1);
  tcpHeadersLength(asm, family, scratch);
  asm.label('headers-measured');
}

/**
 * For so long after a super-packet, or what the kernel has joined, went through the forwarder, what follows it may overtake it: longer
 * than a forwarder needs that has a processor, so that the pauses of a stream do not count.
 */
export const LONG_WAY_NS: number = 100 * MS;

/** Goes to `label` when nothing is on the way through the forwarder that this packet could overtake. In: R8 what is known of the peer. */
export function jumpIfLongWayEmpty(asm: Assembler, { now }: Clock, label: string): void {
  asm.load(8, 1, 8, LONG_WAY_UNTIL);
  asm.load(8, 2, FRAME, now);
  asm.jumpIf('le', 1, reg(2), label);
}

/**
 * Passes unless the packet is TCP's word that data arrived and nothing else: no payload, no flag but ACK. One that overtakes
 * data of its own flow does no harm, for it says nothing about them. In: R9 length of the packet. Arguments as above.
 */
export function requireBareAck(
  asm: Assembler,
  family: Family,
  ipOffset: number,
  transportOffset: number,
  scratch: number,
  otherwise = 'pass',
): void {
  asm.load(1, 1, FRAME, ipOffset + family.protocolAt);
  asm.jumpIf('ne', 1, PROTO_TCP, otherwise);
  loadBytes(asm, transportOffset + 12, scratch, 2);
  asm.load(1, 1, FRAME, scratch + 1);
  asm.jumpIf('ne', 1, TCP_ACK, otherwise);
  tcpHeadersLength(asm, family, scratch);
  asm.jumpIf('ne', 1, reg(9), otherwise);
}

/** Goes to `label` when a TCP packet, R9 bytes long, has no payload. Arguments as above. */
export function jumpIfNoPayload(
  asm: Assembler,
  family: Family,
  transportOffset: number,
  scratch: number,
  label: string,
): void {
  loadBytes(asm, transportOffset + 12, scratch, 1);
  tcpHeadersLength(asm, family, scratch);
  asm.jumpIf('ge', 1, reg(9), label);
}

/** Where a program counts a packet before it adds the sums to a peer's: two 64-bit words of its frame. */
export interface Measured {
  readonly packets: number;
  readonly bytes: number;
}

/** One packet, R9 bytes long. */
export function measurePacket(asm: Assembler, { packets, bytes }: Measured): void {
  asm.store(8, FRAME, packets, 1);
  asm.store(8, FRAME, bytes, reg(9));
}

/**
 * A super-packet, R9 bytes long, as the forwarder counts it: as what it is cut into, headers included each time. R1 = length of
 * those; one that is neither TCP's nor UDP's passes. Arguments as above.
 */
export function measureSuperPacket(
  asm: Assembler,
  family: Family,
  { packets, bytes }: Measured,
  ipOffset: number,
  transportOffset: number,
  scratch: number,
): void {
  headersLength(asm, family, ipOffset, transportOffset, scratch);
  asm.load(4, 2, CONTEXT, SKB_GSO_SEGMENTS);
  asm.jumpIf('gt', 2, 0, 'segments-known');
  asm.op('mov', 2, 1);
  asm.label('segments-known');
  asm.store(8, FRAME, packets, reg(2));
  asm.op('sub', 2, 1);
  asm.op('mul', 2, reg(1));
  asm.op('add', 2, reg(9));
  asm.store(8, FRAME, bytes, reg(2));
}

/** Adds what was measured to the peer's counters at `counterOffset`. */
export function count(
  asm: Assembler,
  maps: FastPathMaps,
  slotOffset: number,
  counterOffset: number,
  { packets, bytes }: Measured,
): void {
  mapLookup(asm, maps.counters, slotOffset, 'uncounted');
  asm.load(8, 1, FRAME, packets);
  asm.atomicAdd(0, counterOffset, 1);
  asm.load(8, 1, FRAME, bytes);
  asm.atomicAdd(0, counterOffset + 8, 1);
  asm.label('uncounted');
}
