import { type Arena, putPointer } from './arena.ts';
import { CONTROL, CONTROL_LENGTH, FLAGS, IOV, IOV_COUNT, MSGHDR_BYTES, NAME, NAME_LENGTH } from './msghdr.ts';

/** `struct mmsghdr` for 64-bit Linux (linux/socket.h): a msghdr of 56 bytes, then the length that was transferred. */
export const MESSAGE_SIZE = 64;
const TRANSFERRED = MSGHDR_BYTES;

/** `struct sockaddr_in` */
export const SOCKADDR_SIZE = 16;
/** `struct sockaddr_in6` */
export const SOCKADDR6_SIZE = 28;
/** Room for either. */
export const NAME_STRIDE = 32;
/** One control message with up to 8 bytes of data, CMSG_SPACE. */
export const CONTROL_SIZE = 24;
/** CMSG_LEN for the 16-bit segment size. */
const CONTROL_LENGTH_SEGMENT = 18;

const AF_INET = 2;
const AF_INET6 = 10;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;

/** A `sockaddr_in` at `at`; `address` and `port` are in host order. */
export function putSockaddr(arena: Arena, at: number, address: number, port: number): void {
  arena.view.setUint16(at, AF_INET, true);
  arena.view.setUint16(at + 2, port);
  arena.view.setUint32(at + 4, address);
}

/** All but the address, whose 16 bytes are at SOCKADDR6_ADDRESS. */
export function putSockaddr6(arena: Arena, at: number, port: number): void {
  arena.view.setUint16(at, AF_INET6, true);
  arena.view.setUint16(at + 2, port);
  arena.view.setUint32(at + 4, 0); // flow label
  arena.view.setUint32(at + 24, 0); // scope
}

export const SOCKADDR6_ADDRESS = 8;

/**
 * Ties a message to its address, control and vector memory, once at start.
 * @param nameBytes length of the address, for the family of the socket.
 */
export function initMessage(arena: Arena, message: number, name: number, nameBytes: number, control: number): void {
  putPointer(arena, message + NAME, name);
  arena.view.setUint32(message + NAME_LENGTH, nameBytes, true);
  putPointer(arena, message + CONTROL, control);
}

/** What the message consists of: `count` entries of the vector at `iovecs`. */
export function setVector(arena: Arena, message: number, iovecs: number, count: number): void {
  putPointer(arena, message + IOV, iovecs);
  arena.view.setUint32(message + IOV_COUNT, count, true);
}

/** Asks the kernel to cut the message into datagrams of `size` bytes (udp(7), UDP_SEGMENT); 0 sends it as one. */
export function setSegmentSize(arena: Arena, message: number, control: number, size: number): void {
  if (size === 0) {
    arena.view.setUint32(message + CONTROL_LENGTH, 0, true);
    return;
  }
  arena.view.setUint32(message + CONTROL_LENGTH, CONTROL_SIZE, true);
  arena.view.setUint32(control, CONTROL_LENGTH_SEGMENT, true);
  arena.view.setUint32(control + 4, 0, true);
  arena.view.setUint32(control + 8, SOL_UDP, true);
  arena.view.setUint32(control + 12, UDP_SEGMENT, true);
  arena.view.setUint16(control + 16, size, true);
}

/** The kernel overwrites these on every receive. */
export function armForReceive(arena: Arena, message: number, nameBytes: number): void {
  arena.view.setUint32(message + NAME_LENGTH, nameBytes, true);
  arena.view.setUint32(message + CONTROL_LENGTH, CONTROL_SIZE, true);
  arena.view.setUint32(message + FLAGS, 0, true);
}

/** Bytes that the kernel has received into the message (recvmmsg(2), msg_len). */
export function receivedLength(arena: Arena, message: number): number {
  return arena.view.getUint32(message + TRANSFERRED, true);
}

/** What the kernel would write. @internal for devices in memory, of tests and benchmarks */
export function setReceivedLength(arena: Arena, message: number, length: number): void {
  arena.view.setUint32(message + TRANSFERRED, length, true);
}

/** Size of the equal datagrams the kernel put together (UDP_GRO); 0 when the message is one datagram. */
export function receivedSegmentSize(arena: Arena, message: number, control: number): number {
  const { view } = arena;
  if (view.getUint32(message + CONTROL_LENGTH, true) < 20) return 0;
  if (view.getUint32(control + 8, true) !== SOL_UDP || view.getUint32(control + 12, true) !== UDP_GRO) return 0;
  return view.getUint32(control + 16, true);
}

/** What the kernel would write for a GRO message. @internal for devices in memory, of tests and benchmarks */
export function putReceivedSegmentSize(arena: Arena, message: number, control: number, size: number): void {
  const { view } = arena;
  view.setUint32(message + CONTROL_LENGTH, size === 0 ? 0 : CONTROL_SIZE, true);
  view.setUint32(control + 8, SOL_UDP, true);
  view.setUint32(control + 12, UDP_GRO, true);
  view.setUint32(control + 16, size, true);
}
