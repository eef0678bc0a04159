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
import { type Assembler, type MapReference, type Register, reg } from './assembler.ts';
import type { Family, FastPathMaps } from './family.ts';
import { FRAME, frameAddress } from './frame-words.ts';
import { AGENT_UNTIL, GRANT_VALUE_BYTES, LONG_WAY_UNTIL, OWN_SUBNET } from './layout.ts';

/** Offsets in `struct __sk_buff` (include/uapi/linux/bpf.h). */
export const SKB_LENGTH = 0;
export const SKB_PACKET_TYPE = 4;
export const SKB_PROTOCOL = 16;
export const SKB_VLAN_PRESENT = 20;
export const SKB_DATA = 76;
export const SKB_DATA_META = 140;
export const SKB_WIRE_LENGTH = 160;
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
  /** A program before GRO is to take what peers send, so that the kernel joins what is inside. */
  readonly takesCut: boolean;
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
