/**
 * A capture file that Wireshark reads (draft-ietf-opsawg-pcapng), little endian. Pure: each function returns the bytes of one block,
 * and a file is the section header, the interfaces, the names, then packets and statistics.
 */

import { type IpAddr, isIpv4 } from '../ip/address.ts';
import { putIpv6 } from '../ip/ipv6.ts';

/** The numbers of LINKTYPE_ETHERNET and LINKTYPE_RAW (tcpdump.org/linktypes). */
export const LINK_TYPES = { ethernet: 1, raw: 101 } as const;

export interface CaptureInterface {
  readonly name: string;
  readonly description: string;
  readonly linkType: keyof typeof LINK_TYPES;
  /** Longest packet that is kept whole. */
  readonly snapBytes: number;
}

export interface CapturedPacket {
  /** Which of the interfaces, in the order of their blocks, from 0. */
  readonly interfaceId: number;
  /** Nanoseconds since the epoch. */
  readonly timeNs: bigint;
  readonly direction: 'inbound' | 'outbound';
  readonly originalBytes: number;
  readonly bytes: Uint8Array;
  readonly comment: string | undefined;
}

export interface InterfaceStatistics {
  readonly interfaceId: number;
  readonly atNs: bigint;
  readonly received: number;
  /** Of those, lost because nobody read them in time. */
  readonly dropped: number;
}

export interface NamedAddress {
  readonly address: IpAddr;
  readonly name: string;
}

const BLOCKS = { section: 0x0a0d0d0a, interface: 1, names: 4, statistics: 5, packet: 6 } as const;
const BYTE_ORDER = 0x1a2b3c4d;
const COMMENT = 1;
/** if_tsresol: units of 10⁻⁹ seconds. */
const NANOSECONDS = 9;
/** Records of a name resolution block; a record of length 0 ends them. */
const NAME_RECORD = { ipv4: 1, ipv6: 2 } as const;
/** Bits 0 and 1 of epb_flags. */
const DIRECTIONS = { inbound: 1, outbound: 2 } as const;
/** Lengths of options and records are 16 bits. */
const MAX_TEXT = 4_096;

type Item = readonly [code: number, value: Uint8Array];

/** The first block. @param program whose work the file is. */
export function sectionHeader(program: string): Uint8Array {
  const body = new DataView(new ArrayBuffer(16));
  body.setUint32(0, BYTE_ORDER, true);
  body.setUint16(4, 1, true);
  // The length of the section is not known while it is written.
  body.setBigInt64(8, -1n, true);
  return block(BLOCKS.section, bytesOf(body), items([[4, text(program)]]));
}

/** Before the first packet of that interface; their order gives them their numbers. */
export function interfaceDescription({ name, description, linkType, snapBytes }: CaptureInterface): Uint8Array {
  const body = new DataView(new ArrayBuffer(8));
  body.setUint16(0, LINK_TYPES[linkType], true);
  body.setUint32(4, snapBytes, true);
  const options: Item[] = [
    [2, text(name)],
    [3, text(description)],
    [9, Uint8Array.of(NANOSECONDS)],
  ];
  return block(BLOCKS.interface, bytesOf(body), items(options));
}

/** A block that gives addresses the names that readers of the file show (pcapng, Name Resolution Block). */
export function nameResolution(names: readonly NamedAddress[]): Uint8Array {
  const records = names.map(({ address, name }): Item => {
    const isV4 = isIpv4(address);
    const raw = new DataView(new ArrayBuffer(isV4 ? 4 : 16));
    if (isIpv4(address)) raw.setUint32(0, address);
    else putIpv6(raw, 0, address);
    return [isV4 ? NAME_RECORD.ipv4 : NAME_RECORD.ipv6, Buffer.concat([bytesOf(raw), text(name), Uint8Array.of(0)])];
  });
  return block(BLOCKS.names, items(records, true));
}

/** One packet as it was captured (pcapng, Enhanced Packet Block); `comment` is shown beside it. */
export function packetBlock({ interfaceId, timeNs, direction, originalBytes, bytes, comment }: CapturedPacket): Buffer {
  const head = new DataView(new ArrayBuffer(20));
  head.setUint32(0, interfaceId, true);
  setTime(head, 4, timeNs);
  head.setUint32(12, bytes.length, true);
  head.setUint32(16, originalBytes, true);
  const flags = new DataView(new ArrayBuffer(4));
  flags.setUint32(0, DIRECTIONS[direction], true);
  const options: Item[] = [[2, bytesOf(flags)]];
  if (comment !== undefined) options.push([COMMENT, text(comment)]);
  return block(BLOCKS.packet, bytesOf(head), padded(bytes), items(options));
}

/** At the end, once for each interface. */
export function interfaceStatistics({ interfaceId, atNs, received, dropped }: InterfaceStatistics): Uint8Array {
  const body = new DataView(new ArrayBuffer(12));
  body.setUint32(0, interfaceId, true);
  setTime(body, 4, atNs);
  const options: Item[] = [
    [4, count(received)],
    [5, count(dropped)],
  ];
  return block(BLOCKS.statistics, bytesOf(body), items(options));
}

function setTime(view: DataView, at: number, timeNs: bigint): void {
  view.setUint32(at, Number(timeNs >> 32n), true);
  view.setUint32(at + 4, Number(timeNs & 0xffff_ffffn), true);
}

/** A block has its type, its length twice, and between them a multiple of four bytes. */
function block(type: number, ...body: readonly Uint8Array[]): Buffer {
  const length = 12 + body.reduce((sum, part) => sum + part.length, 0);
  const head = new DataView(new ArrayBuffer(8));
  head.setUint32(0, type, true);
  head.setUint32(4, length, true);
  const tail = new DataView(new ArrayBuffer(4));
  tail.setUint32(0, length, true);
  return Buffer.concat([bytesOf(head), ...body, bytesOf(tail)]);
}

/** Options, or records of names: without any, options need no end and records do. */
function items(list: readonly Item[], needsEnd: boolean = list.length > 0): Buffer {
  const parts = list.flatMap(([code, value]) => {
    const head = new DataView(new ArrayBuffer(4));
    head.setUint16(0, code, true);
    head.setUint16(2, value.length, true);
    return [bytesOf(head), padded(value)];
  });
  return Buffer.concat([...parts, ...(needsEnd ? [new Uint8Array(4)] : [])]);
}

function padded(value: Uint8Array): Uint8Array {
  const rest = value.length % 4;
  return rest === 0 ? value : Buffer.concat([value, new Uint8Array(4 - rest)]);
}

function count(value: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, BigInt(value), true);
  return bytesOf(view);
}

function text(value: string): Uint8Array {
  return Buffer.from(value.slice(0, MAX_TEXT), 'utf8');
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer);
}
