import { randomBytes } from 'node:crypto';
import { FastPathTables } from '../../src/dataplane/fast-path/fast-path-tables.ts';
import { inboundProgram } from '../../src/dataplane/fast-path/inbound-program.ts';
import { mapsBy, underlayLayout } from '../../src/dataplane/fast-path/layout.ts';
import { outboundProgram } from '../../src/dataplane/fast-path/outbound-program.ts';
import type { Sign } from '../../src/dataplane/fast-path/sign.ts';
import { type ProgramOptions, SKB_GSO_SIZE } from '../../src/dataplane/fast-path/skb-program.ts';
import { xdpProgram } from '../../src/dataplane/fast-path/xdp-program.ts';
import type { IpAddr } from '../../src/ip/address.ts';
import { type Ipv4Addr, ipv4Of } from '../../src/ip/ipv4.ts';
import { type Ipv6Addr, parseIpv6 } from '../../src/ip/ipv6.ts';
import { type BpfProgram, createBpfMap, loadClassifier, loadXdp } from '../../src/linux/bpf.ts';
import { readDeviceFacts } from '../../src/linux/ethtool.ts';
import { addressOf, bpf, close, open, setns } from '../../src/linux/ffi.ts';
import { run } from '../../src/linux/run.ts';
import { openUdpSocket } from '../../src/linux/udp-socket.ts';
import { address } from '../fakes/packets.ts';

/** linux/bpf.h: BPF_PROG_TEST_RUN, which runs a program on a packet of ours and sends nothing. */
const PROG_TEST_RUN = 10;
const ATTRIBUTE_BYTES = 72;
const ROOM = 4_096;
/** `struct __sk_buff`: what a program sees beside the packet. */
const CONTEXT_BYTES = 192;
/** What a program returns: TCX_NEXT as an unsigned number, TCX_REDIRECT, TCX_DROP. */
export const NEXT = 0xffff_ffff;
export const REDIRECTED = 7;
export const DROPPED = 2;
/** XDP_PASS: taken, with the mark in front, or left. */
export const XDP_PASSED = 2;
/** XDP_MARK, as it lies in front of the packet. */
export const MARK: Uint8Array = Uint8Array.from([0x74, 0x66, 0x65, 0x77]);

export const OWN: Ipv4Addr = ipv4Of(address('192.168.77.1'));
export const OWN_6: Ipv6Addr = parseIpv6('fd00:77::1')!;
export const PORT = 8285;
/** In the kernel's eyes the test packets come from loopback, whose address this is. */
export const ETHERNET: Uint8Array = Uint8Array.from([0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 0]);
export const ETHERNET_6: Uint8Array = Uint8Array.from([...ETHERNET.subarray(0, 12), 0x86, 0xdd]);
const LOOPBACK = 1;
const FOREVER = 1n << 62n;
const CLONE_NEWNET = 0x4000_0000;
/** What a peer asks. */
export const QUESTION: Sign = {
  nonce: 0x1122_3344_5566_7788n,
  echo: 0n,
  takes: true,
  arrives: true,
  takes6: true,
  arrives6: true,
  takesCut: false,
  alone: false,
  tag: 1,
  tagWhole: 2,
};
/** What peers want to see of us. */
export const SEND_TAG = 0x1234;
export const TAG = 0x4321;
export const TAG_WHOLE = 0xabcd;

export interface Outcome {
  readonly verdict: number;
  readonly packet: Uint8Array;
}

/** Buffers that the kernel may read and write while a program runs, for packets up to ROOM bytes. */
const input = new Uint8Array(new SharedArrayBuffer(ROOM));
const output = new Uint8Array(new SharedArrayBuffer(ROOM));
const context = new DataView(new SharedArrayBuffer(CONTEXT_BYTES));
const attributes = new DataView(new SharedArrayBuffer(ATTRIBUTE_BYTES));

/**
 * The length in bytes from which the kernel runs a program on a packet that begins like this one: an Ethernet header and one of the
 * protocol that it names. Older kernels want no more than the first, newer ones both (net/bpf/test_run.c, bpf_prog_test_run_skb).
 */
export function shortestRun(packet: Uint8Array): number {
  return ETHERNET.length + (packet[12] === 0x86 && packet[13] === 0xdd ? 40 : 20);
}

/**
 * @param segmentSize bytes, of a super-packet; tcx programs alone are told it.
 * @throws Error when the kernel does not run it, as for packets below {@link shortestRun}.
 */
export function runProgram(program: BpfProgram, packet: Uint8Array, segmentSize?: number): Outcome {
  input.set(packet);
  new Uint8Array(attributes.buffer).fill(0);
  attributes.setUint32(0, program.fd, true);
  attributes.setUint32(8, packet.length, true);
  attributes.setUint32(12, ROOM, true);
  attributes.setBigUint64(16, BigInt(addressOf(input)), true);
  attributes.setBigUint64(24, BigInt(addressOf(output)), true);
  attributes.setUint32(32, 1, true);
  if (segmentSize !== undefined) {
    context.setUint32(SKB_GSO_SIZE, segmentSize, true);
    attributes.setUint32(40, CONTEXT_BYTES, true);
    attributes.setBigUint64(48, BigInt(addressOf(context)), true);
  }
  const result = bpf(PROG_TEST_RUN, addressOf(attributes), ATTRIBUTE_BYTES);
  if (result !== 0) throw new Error(`BPF_PROG_TEST_RUN of ${packet.length} bytes: ${result}`);
  return { verdict: attributes.getUint32(4, true), packet: output.slice(0, attributes.getUint32(12, true)) };
}

/** MAC addresses of hosts on the underlay, and of this one. */
export const NEIGHBOUR: Uint8Array = Uint8Array.from([2, 0, 0, 0, 0, 2]);
export const OWN_MAC: Uint8Array = Uint8Array.from([2, 0, 0, 0, 0, 1]);

/** The programs in a network namespace of their own, whose routing they ask. */
export interface ProgramBench extends AsyncDisposable {
  /** By which version of IP hosts reach each other. */
  readonly underlay: 4 | 6;
  readonly tables: FastPathTables;
  /** Where something behind the device cuts super-packets, and where this host does. */
  readonly programs: Readonly<Record<ProgramOptions['segmentation'], BpfProgram>>;
  readonly outbound: Readonly<Record<ProgramOptions['segmentation'], BpfProgram>>;
  /** The first of them with --destination-check=off. */
  readonly unchecked: BpfProgram;
  /** What XDP runs before GRO, by who cuts super-packets. */
  readonly xdp: Readonly<Record<ProgramOptions['segmentation'], BpfProgram>>;
  /** As if the forwarder's socket had heard from that host, and would for ever. */
  grant(host: IpAddr): void;
  /** The forwarder's socket ends. */
  closeSocket(): void;
  /** A command in the namespace. */
  ip(...words: readonly string[]): Promise<void>;
}

const PLACES = {
  4: {
    own: OWN,
    ...{ address: '192.168.77.1/24', addressFlags: [], beyond: '192.168.88.0/24', forwarding: 'ipv4/ip_forward' },
  },
  6: {
    own: OWN_6,
    ...{ address: 'fd00:77::1/64', addressFlags: ['nodad'], beyond: 'fd00:88::/64' },
    forwarding: 'ipv6/conf/all/forwarding',
  },
} as const;

/** Takes this thread into the namespace and back. Programs run in the namespace of the thread that runs them. */
export async function openProgramBench(
  neighbours: readonly string[] = [],
  underlayVersion: 4 | 6 = 4,
): Promise<ProgramBench> {
  const place = PLACES[underlayVersion];
  await using stack = new AsyncDisposableStack();
  const netns = `weft-bpf-${process.pid}-${randomBytes(3).toString('hex')}`;
  await run(['ip', 'netns', 'add', netns]);
  stack.defer(async () => void (await run(['ip', 'netns', 'del', netns])));
  const ip = async (...words: readonly string[]): Promise<void> => void (await run(['ip', ...words], { netns }));
  await ip('link', 'set', 'lo', 'up');
  for (const name of ['eth0', 'eth1']) {
    await ip('link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}-wire`);
    for (const end of [name, `${name}-wire`]) await ip('link', 'set', end, 'up');
  }
  const mac = (bytes: Uint8Array): string =>
    Buffer.from(bytes)
      .toString('hex')
      .replace(/..(?!$)/g, '$&:');
  await ip('link', 'set', 'eth0', 'address', mac(OWN_MAC));
  await ip('address', 'add', place.address, 'dev', 'eth0', ...place.addressFlags);
  for (const host of new Set(neighbours)) await ip('neigh', 'replace', host, 'lladdr', mac(NEIGHBOUR), 'dev', 'eth0');
  await ip('route', 'add', place.beyond, 'dev', 'eth1');
  await run(['sh', '-c', `echo 1 >/proc/sys/net/${place.forwarding}`], { netns });
  enter('/proc/self/ns/net', `/run/netns/${netns}`, stack);
  // The forwarder's: what a program leaves to it has somebody who reads it.
  const socket = stack.use(new DisposableStack());
  socket.use(openUdpSocket({ address: place.own, port: PORT, bufferBytes: ROOM }));
  const underlay = readDeviceFacts('eth0');
  if (typeof underlay === 'number') throw new Error(`eth0: ${underlay}`);
  const layout = underlayLayout(underlayVersion);
  const tables = new FastPathTables(
    mapsBy(layout, (name, shape) => {
      const maxEntries = shape.kind === 'array' ? 1 : 64;
      return stack.use(createBpfMap({ ...shape, name: `test_${name}`, maxEntries }));
    }),
    layout,
  );
  tables.beat(FOREVER, 0n);
  const load = (
    make: (options: ProgramOptions) => Uint8Array,
    segmentation: ProgramOptions['segmentation'],
    destinationCheck: ProgramOptions['destinationCheck'] = 'loose',
    into = loadClassifier,
  ): BpfProgram => {
    const devices = { tunIndex: LOOPBACK, underlayIndex: underlay.index };
    const own = { ownAddress: place.own, ownPort: PORT, carriesIpv6: true, takesCut: segmentation === 'beyond' };
    const options = { maps: tables.maps, ...own, ...devices, segmentation, destinationCheck };
    return stack.use(into(`test_${segmentation}`, make(options)));
  };
  const programs = { beyond: load(inboundProgram, 'beyond'), host: load(inboundProgram, 'host') };
  const unchecked = load(inboundProgram, 'beyond', 'off');
  const outbound = { beyond: load(outboundProgram, 'beyond'), host: load(outboundProgram, 'host') };
  const ownMac = [...ETHERNET.subarray(0, 6)];
  const loadXdpFor = (segmentation: ProgramOptions['segmentation']): BpfProgram =>
    load((options) => xdpProgram({ ...options, ownMac }), segmentation, 'loose', loadXdp);
  const xdp = { beyond: loadXdpFor('beyond'), host: loadXdpFor('host') };
  const held = stack.move();
  return {
    underlay: underlayVersion,
    tables,
    xdp,
    programs,
    unchecked,
    outbound,
    closeSocket: () => socket.dispose(),
    ip,
    grant: (host) =>
      tables.grant(host, {
        ...{ sendUntil: FOREVER, acceptUntil: FOREVER, wholeUntil: FOREVER },
        ...{ sendUntil6: FOREVER, wholeUntil6: FOREVER, takesCutUntil: 0n },
        ...{ tag: SEND_TAG, tagWhole: 2, expectTag: TAG, expectTagWhole: TAG_WHOLE },
      }),
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

function enter(from: string, to: string, stack: AsyncDisposableStack): void {
  const [home, away] = [openNamespace(from), openNamespace(to)];
  stack.defer(() => void close(home));
  setns(away, CLONE_NEWNET);
  close(away);
  stack.defer(() => void setns(home, CLONE_NEWNET));
}

function openNamespace(path: string): number {
  const fd = open(path, 0);
  if (fd < 0) throw new Error(`open ${path}: ${fd}`);
  return fd;
}
