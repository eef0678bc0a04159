import type { OuterTraffic } from '../desired/outer-filter.ts';
import { WeftError } from '../errors.ts';
import { type IpAddr, type IpPrefix, isIpv4, isPrefix4 } from '../ip/address.ts';
import { mask4 } from '../ip/prefix.ts';
import {
  AF_PACKET,
  ARPHRD_ETHER,
  ARPHRD_NONE,
  ARPHRD_RAWIP,
  ARPHRD_SIT,
  ARPHRD_TUNNEL,
  ARPHRD_TUNNEL6,
  BPF_AND,
  BPF_JUMP_EQUAL,
  BPF_JUMP_SET,
  BPF_LD_BYTE,
  BPF_LD_HALF,
  BPF_LD_HALF_INDIRECT,
  BPF_LD_WORD,
  BPF_LDX_HEADER_LENGTH,
  BPF_RETURN,
  ENETDOWN,
  ETH_P_ALL,
  IPPROTO_ICMP,
  MSG_DONTWAIT,
  MSG_TRUNC,
  PACKET_OUTGOING,
  PACKET_STATISTICS,
  SKF_AD_PROTOCOL,
  SKF_NET_OFF,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_TIMESTAMPNS,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_PACKET,
  SOL_SOCKET,
} from './constants.ts';
import { addressOf, bind, close, errnoName, getsockname, getsockopt, recvmsg, socket } from './ffi.ts';
import { MessageHeader } from './message-header.ts';
import { attachSocketFilter, type FilterInstruction } from './socket-filter.ts';
import { STAMP_CONTROL_BYTES, stampNsOf } from './socket-stamp.ts';
import { setIntOption } from './udp-socket.ts';

/** `struct sockaddr_ll`. */
const NAME_BYTES = 20;
/** What waits while a file is written. */
const BUFFER_BYTES = 32 << 20;

export interface SniffedFrame {
  readonly timeNs: bigint;
  readonly ifIndex: number;
  readonly linkType: LinkType;
  readonly direction: 'inbound' | 'outbound';
  readonly originalBytes: number;
  /** Its own copy. */
  readonly bytes: Uint8Array;
}

/** What the first bytes of a frame are; `unsupported` is seen on all devices only. */
type LinkType = 'ethernet' | 'raw' | 'unsupported';

/** Sees what enters and leaves one device, before what tc does to it on the way in, and after on the way out (packet(7)). */
export interface PacketSocket extends Disposable {
  readonly fd: number;
  /** That of its device; of a socket on all devices only what each frame says counts. */
  readonly linkType: 'ethernet' | 'raw';
  /** At most so many of those that wait. Never throws; none from a device that is gone. */
  receive(most: number): readonly SniffedFrame[];
  /** Since the socket was opened. */
  statistics(): { readonly received: number; readonly dropped: number };
  /** Whether the device was seen to go down. */
  readonly wasDown: boolean;
}

export interface PacketSocketOptions {
  readonly device: string;
  /** 0 is all devices of the network namespace. */
  readonly ifIndex: number;
  /** Of each packet. */
  readonly snapBytes: number;
  /** What else passes the device is not copied; everything without it. */
  readonly only?: readonly SniffedTraffic[] | undefined;
}

/** A tunnel's packets, or those from and to addresses. */
export type SniffedTraffic =
  | OuterTraffic
  | { readonly protocol: 'addresses'; readonly addresses: readonly IpAddr[] }
  /** From or to these; all of IPv6. */
  | { readonly protocol: 'networks'; readonly networks: readonly IpPrefix[] }
  /** All of ICMP. */
  | { readonly protocol: 'icmp' };

/** @throws WeftError WEFT_SOCKET_FAILED; needs CAP_NET_RAW. */
export function openPacketSocket(options: PacketSocketOptions): PacketSocket {
  const { device, ifIndex, snapBytes, only } = options;
  using stack = new DisposableStack();
  // Nothing is received before the filter is there and the socket is bound.
  const fd = succeeded(socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), device);
  stack.defer(() => void close(fd));
  if (only !== undefined) succeeded(attachSocketFilter(fd, tunnelProgram(only)), device);
  if (setIntOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES) < 0)
    setIntOption(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES);
  setIntOption(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
  const name = shared(NAME_BYTES);
  const view = new DataView(name.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, ETH_P_ALL);
  view.setInt32(4, ifIndex, true);
  succeeded(bind(fd, addressOf(name), NAME_BYTES), device);
  const length = shared(4);
  new DataView(length.buffer).setUint32(0, NAME_BYTES, true);
  succeeded(getsockname(fd, addressOf(name), addressOf(length)), device);
  const linkType = ifIndex === 0 ? 'raw' : linkTypeOf(view.getUint16(8, true), device);
  return new Sniffer(fd, linkType, snapBytes, stack.move());
}

class Sniffer implements PacketSocket {
  readonly fd: number;
  readonly linkType: 'ethernet' | 'raw';
  wasDown = false;
  readonly #resources: DisposableStack;
  readonly #buffer: Uint8Array;
  readonly #name = shared(NAME_BYTES);
  readonly #message: MessageHeader;
  readonly #counts = { received: 0, dropped: 0 };

  constructor(fd: number, linkType: 'ethernet' | 'raw', snapBytes: number, resources: DisposableStack) {
    this.fd = fd;
    this.linkType = linkType;
    this.#resources = resources;
    this.#buffer = shared(snapBytes);
    const parts = { text: this.#buffer, name: this.#name, controlBytes: STAMP_CONTROL_BYTES };
    this.#message = new MessageHeader(parts);
  }

  receive(most: number): readonly SniffedFrame[] {
    const frames: SniffedFrame[] = [];
    const message = this.#message;
    const name = new DataView(this.#name.buffer);
    while (frames.length < most) {
      message.reset();
      const length = recvmsg(this.fd, message.address, MSG_DONTWAIT | MSG_TRUNC);
      if (length === -ENETDOWN) {
        this.wasDown = true;
        continue;
      }
      if (length < 0) break;
      const stampNs = stampNsOf(message.control, message.controlLength);
      frames.push({
        timeNs: stampNs ?? BigInt(Date.now()) * 1_000_000n,
        ifIndex: name.getInt32(4, true),
        linkType: linkTypeOfKind(name.getUint16(8, true)),
        direction: this.#name[10] === PACKET_OUTGOING ? 'outbound' : 'inbound',
        originalBytes: length,
        bytes: this.#buffer.slice(0, Math.min(length, this.#buffer.length)),
      });
    }
    return frames;
  }

  /** The kernel begins anew with each question. */
  statistics(): { readonly received: number; readonly dropped: number } {
    const value = shared(12);
    const view = new DataView(value.buffer);
    view.setUint32(8, 8, true);
    if (getsockopt(this.fd, SOL_PACKET, PACKET_STATISTICS, addressOf(value), addressOf(value) + 8) >= 0) {
      this.#counts.received += view.getUint32(0, true);
      this.#counts.dropped += view.getUint32(4, true);
    }
    return { ...this.#counts };
  }

  [Symbol.dispose](): void {
    this.#resources[Symbol.dispose]();
  }
}

/**
 * Lets through packets of these protocols and ports. Fragments but the first have no ports: all of UDP are let through, and all of
 * IPv6. Offsets count from the network header, so that it is the same for each kind of device.
 */
function tunnelProgram(only: readonly SniffedTraffic[]): readonly FilterInstruction[] {
  const ports = only.flatMap((traffic) => (traffic.protocol === 'udp' ? [traffic.port] : []));
  const addresses = only.flatMap((traffic) =>
    traffic.protocol === 'addresses' ? traffic.addresses.filter(isIpv4) : [],
  );
  const protocols = [
    ...(only.some(({ protocol }) => protocol === 'ipip') ? [4] : []),
    ...(only.some(({ protocol }) => protocol === 'icmp') ? [IPPROTO_ICMP] : []),
  ];
  const program: FilterInstruction[] = [];
  const networks = only.flatMap((traffic) =>
    traffic.protocol === 'networks' ? traffic.networks.filter(isPrefix4) : [],
  );
  const words = 2 * (3 * networks.length + (addresses.length === 0 ? 0 : 1 + addresses.length));
  // The last instruction refuses, the one before it accepts; a jump counts from the instruction after itself.
  const size = 14 + protocols.length + words + 2 * ports.length;
  const toAccept = (): number => size - 3 - program.length;
  const toReject = (): number => size - 2 - program.length;
  program.push([BPF_LD_WORD, 0, 0, SKF_AD_PROTOCOL]);
  program.push([BPF_JUMP_EQUAL, 2, 0, 0x0800]);
  program.push([BPF_JUMP_EQUAL, toAccept(), 0, 0x86dd]);
  program.push([BPF_JUMP_EQUAL, toReject(), toReject(), 0]);
  for (const offset of [12, 16]) {
    for (const { addr, length } of networks) {
      program.push([BPF_LD_WORD, 0, 0, SKF_NET_OFF + offset]);
      program.push([BPF_AND, 0, 0, mask4(length)]);
      program.push([BPF_JUMP_EQUAL, toAccept(), 0, addr]);
    }
    if (addresses.length > 0) program.push([BPF_LD_WORD, 0, 0, SKF_NET_OFF + offset]);
    for (const address of addresses) program.push([BPF_JUMP_EQUAL, toAccept(), 0, address]);
  }
  program.push([BPF_LD_BYTE, 0, 0, SKF_NET_OFF + 9]);
  for (const protocol of protocols) program.push([BPF_JUMP_EQUAL, toAccept(), 0, protocol]);
  program.push([BPF_JUMP_EQUAL, 0, toReject(), 17]);
  program.push([BPF_LD_HALF, 0, 0, SKF_NET_OFF + 6]);
  program.push([BPF_JUMP_SET, toAccept(), 0, 0x1fff]);
  program.push([BPF_LDX_HEADER_LENGTH, 0, 0, SKF_NET_OFF]);
  for (const offset of [0, 2]) {
    program.push([BPF_LD_HALF_INDIRECT, 0, 0, SKF_NET_OFF + offset]);
    for (const port of ports) program.push([BPF_JUMP_EQUAL, toAccept(), 0, port]);
  }
  program.push([BPF_JUMP_EQUAL, toReject(), toReject(), 0]);
  program.push([BPF_RETURN, 0, 0, 0xffff_ffff], [BPF_RETURN, 0, 0, 0]);
  return program;
}

/** By the kind that the kernel says a device is (if_arp.h). */
const LINK_TYPES: Readonly<Record<number, LinkType>> = {
  // Also of vxlan, bridges and veth.
  [ARPHRD_ETHER]: 'ethernet',
  // TUN and wireguard.
  [ARPHRD_NONE]: 'raw',
  [ARPHRD_RAWIP]: 'raw',
  // ipip.
  [ARPHRD_TUNNEL]: 'raw',
  [ARPHRD_TUNNEL6]: 'raw',
  [ARPHRD_SIT]: 'raw',
};

/** Of one that is not known, no frame can be read. */
export function linkTypeOfKind(hardwareType: number): LinkType {
  return LINK_TYPES[hardwareType] ?? 'unsupported';
}

function linkTypeOf(hardwareType: number, device: string): 'ethernet' | 'raw' {
  const kind = linkTypeOfKind(hardwareType);
  if (kind !== 'unsupported') return kind;
  throw new WeftError(
    'WEFT_SOCKET_FAILED',
    `cannot capture on ${device}: its packets have headers of kind ${hardwareType}`,
  );
}

function succeeded(result: number, device: string): number {
  if (result >= 0) return result;
  throw new WeftError('WEFT_SOCKET_FAILED', `cannot capture on ${device}: ${errnoName(result)}`, {
    hint: 'Capturing needs CAP_NET_RAW: run it as root, in the network namespace of the host.',
  });
}

/** Memory that does not move. */
function shared(bytes: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(bytes));
}
