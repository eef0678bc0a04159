/**
 * The edges of the forwarder. Everything is an offset into one arena, so that the kernel's structures, the packets and the
 * WebAssembly sum share memory; results are counts or −errno, because the packet path never throws. Implementations:
 * linux/tun-io.ts and linux/conn-io.ts, and the memory devices of test/fakes/memory-dataplane.ts.
 */

/** The overlay side: packets from and to this host's kernel, each with a virtio-net header of 10 bytes in front. */
export interface Tun {
  /** One packet into `capacity` bytes at `offset`: its length with the virtio header, 0 when there is none now, −errno. */
  read(offset: number, capacity: number): number;
  /** One packet gathered from `count` iovec entries, the first of which is the virtio header: bytes written or −errno. */
  writev(iovecs: number, count: number): number;
}

/** The underlay side: batches of messages (`struct mmsghdr` arrays in the arena). */
export interface Conn {
  /** Sends `count` messages: how many went out (at least 1), −EAGAIN when the socket is full, −errno of the first. */
  send(messages: number, count: number): number;
  /** One message whose datagrams routers and this host may fragment (no DF on the outer packet): 1 or −errno. */
  sendFragmentable(message: number): number;
  /** Waits until the socket takes datagrams again; false when the worker is to stop. */
  waitWritable(): boolean;
  /** The kernel's path MTU to the address at an offset (as the socket has it) in bytes, outer headers included; 0 when it does not say. */
  pathMtu(name: number): number;
  /** Receives up to `count` messages without waiting: how many came, 0 for none, −errno. */
  receive(messages: number, count: number): number;
}

/** Where locally made ICMP errors leave: a complete packet of one family. Returns bytes or −errno. */
export interface IcmpOut {
  send(offset: number, length: number): number;
}

/** Milliseconds, monotonic. */
export type Clock = () => number;
