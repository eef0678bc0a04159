/**
 * What the kernel drops, with its reason: a program at the tracepoint skb:kfree_skb copies the first headers of each dropped packet
 * into a queue. It reads the kernel's structures where BTF says they are, so that it fits each kernel. No packet is changed or held up.
 */
import { readFileSync } from 'node:fs';
import { Assembler, reg } from '../dataplane/fast-path/assembler.ts';
import { describeError, WeftError } from '../errors.ts';
import { attachRawTracepoint, createBpfQueue } from './bpf.ts';
import { Btf } from './btf.ts';

/** As much as two IPv6 headers, UDP, VXLAN, Ethernet and TCP with all its options take. */
const PACKET_BYTES = 176;
/** time, place in the kernel, reason, network namespace, device index, length, device name, packet. */
const AT = { timeNs: 0, place: 8, reason: 16, namespace: 20, ifIndex: 24, length: 28, device: 32, packet: 48 } as const;
const RECORD_BYTES = AT.packet + PACKET_BYTES;
const DEVICE_BYTES = 16;
/** Records that wait to be read; the oldest give way. */
const QUEUE_ENTRIES = 8_192;
const HELPER = { ktimeGetNs: 5, mapPushElem: 87, probeReadKernel: 113 } as const;
/** BPF_EXIST: a full queue forgets its oldest record. */
const REPLACE_OLDEST = 2;
const PREFIX = 'SKB_DROP_REASON_';

export interface KernelDrop {
  /** By the kernel's clock since the epoch, as captures have it. */
  readonly timeNs: bigint;
  /** The kernel's name without its prefix, as `NETFILTER_DROP`. */
  readonly reason: string;
  /** The function that dropped it; `undefined` where the kernel hides addresses. */
  readonly place: string | undefined;
  /** Inode of the network namespace; 0 when the packet belonged to none yet. */
  readonly namespace: number;
  /** Empty when it was on no device yet. */
  readonly device: string;
  /** Of the whole packet, as the kernel has it. */
  readonly lengthBytes: number;
  /** From its network header on, as much as was kept. */
  readonly bytes: Uint8Array;
}

export interface DropWatch extends Disposable {
  /** Those since the last call. */
  take(): readonly KernelDrop[];
}

interface Offsets {
  readonly skb: Readonly<Record<'dev' | 'sk' | 'head' | 'network' | 'length', number>>;
  /** `net` and `socketNet` are a possible_net_t, which holds one pointer. */
  readonly device: Readonly<Record<'name' | 'index' | 'net', number>>;
  readonly socketNet: number;
  readonly netInode: number;
}

/** Of all network namespaces of this machine. @throws WeftError WEFT_TRACE_UNAVAILABLE with the kernel's reason. */
export function openDropWatch(): DropWatch {
  try {
    const btf = new Btf(readFileSync('/sys/kernel/btf/vmlinux'));
    using stack = new DisposableStack();
    const queue = stack.use(createBpfQueue('weft_drops', RECORD_BYTES, QUEUE_ENTRIES));
    stack.use(attachRawTracepoint('kfree_skb', 'weft_drops', dropProgram(offsetsOf(btf), queue.fd)));
    const names = btf.enumNames('skb_drop_reason');
    const owned = stack.move();
    return {
      take: () => {
        const offsetNs = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint();
        const drops: KernelDrop[] = [];
        while (drops.length < QUEUE_ENTRIES) {
          const record = queue.take();
          if (record === undefined) break;
          drops.push(readRecord(record, offsetNs, names));
        }
        return drops;
      },
      [Symbol.dispose]: () => owned[Symbol.dispose](),
    };
  } catch (error) {
    throw new WeftError(
      'WEFT_TRACE_UNAVAILABLE',
      `cannot see what the kernel drops: ${error instanceof Error ? error.message : describeError(error)}`,
      { hint: 'It needs Linux 5.17 or later with BTF, and root with CAP_BPF and CAP_PERFMON.', cause: error },
    );
  }
}

function offsetsOf(btf: Btf): Offsets {
  const skb = (member: string): number => btf.offsetOf('sk_buff', member);
  return {
    skb: {
      ...{ dev: skb('dev'), sk: skb('sk'), head: skb('head') },
      ...{ network: skb('network_header'), length: skb('len') },
    },
    device: {
      ...{ name: btf.offsetOf('net_device', 'name'), index: btf.offsetOf('net_device', 'ifindex') },
      net: btf.offsetOf('net_device', 'nd_net'),
    },
    socketNet: btf.offsetOf('sock', '__sk_common') + btf.offsetOf('sock_common', 'skc_net'),
    netInode: btf.offsetOf('net', 'ns') + btf.offsetOf('ns_common', 'inum'),
  };
}

/** R6 the packet, R7 device or socket, R8 scratch. What cannot be read stays 0. */
function dropProgram({ skb, device, socketNet, netInode }: Offsets, queueFd: number): Uint8Array {
  const asm = new Assembler();
  const record = -RECORD_BYTES;
  const scratch = record - 8;
  /** Copies `size` bytes at `from + offset` to the stack. */
  const copy = (to: number, size: number, from: 6 | 7 | 8, offset: number): void => {
    asm.op('mov', 1, reg(10));
    asm.op('add', 1, to);
    asm.op('mov', 2, size);
    asm.op('mov', 3, reg(from));
    asm.op('add', 3, offset);
    asm.call(HELPER.probeReadKernel);
  };
  /** The pointer, or half word, at `from + offset`. */
  const follow = (to: 7 | 8, size: 2 | 8, from: 6 | 7 | 8, offset: number): void => {
    copy(scratch, size, from, offset);
    asm.load(size, to, 10, scratch);
  };
  for (let at = scratch; at < 0; at += 8) asm.store(8, 10, at, 0);
  asm.load(8, 6, 1, 0);
  asm.load(8, 7, 1, 8);
  asm.store(8, 10, record + AT.place, reg(7));
  asm.load(8, 7, 1, 16);
  asm.store(4, 10, record + AT.reason, reg(7));
  asm.call(HELPER.ktimeGetNs);
  asm.store(8, 10, record + AT.timeNs, reg(0));
  copy(record + AT.length, 4, 6, skb.length);
  follow(7, 8, 6, skb.dev);
  asm.jumpIf('eq', 7, 0, 'no-device');
  copy(record + AT.ifIndex, 4, 7, device.index);
  copy(record + AT.device, DEVICE_BYTES, 7, device.name);
  follow(8, 8, 7, device.net);
  asm.jump('namespace');
  asm.label('no-device');
  follow(7, 8, 6, skb.sk);
  asm.jumpIf('eq', 7, 0, 'packet');
  follow(8, 8, 7, socketNet);
  asm.label('namespace');
  copy(record + AT.namespace, 4, 8, netInode);
  asm.label('packet');
  follow(8, 2, 6, skb.network);
  follow(7, 8, 6, skb.head);
  asm.op('add', 7, reg(8));
  copy(record + AT.packet, PACKET_BYTES, 7, 0);
  asm.loadMap(1, { fd: queueFd });
  asm.op('mov', 2, reg(10));
  asm.op('add', 2, record);
  asm.op('mov', 3, REPLACE_OLDEST);
  asm.call(HELPER.mapPushElem);
  asm.op('mov', 0, 0);
  asm.exit();
  return asm.assemble();
}

function readRecord(record: Uint8Array, offsetNs: bigint, names: ReadonlyMap<number, string>): KernelDrop {
  const view = new DataView(record.buffer);
  const reason = view.getUint32(AT.reason, true);
  const device = Buffer.from(record.subarray(AT.device, AT.device + DEVICE_BYTES)).toString('latin1');
  return {
    timeNs: view.getBigUint64(AT.timeNs, true) + offsetNs,
    reason: names.get(reason)?.replace(PREFIX, '') ?? `reason ${reason}`,
    place: symbolAt(view.getBigUint64(AT.place, true)),
    namespace: view.getUint32(AT.namespace, true),
    device: device.split('\0')[0] ?? '',
    lengthBytes: view.getUint32(AT.length, true),
    bytes: record.slice(AT.packet),
  };
}

let symbols: readonly { readonly at: bigint; readonly name: string }[] | undefined;

/** The function that the address is in (/proc/kallsyms: sorted here once, read when the first drop asks). */
function symbolAt(address: bigint): string | undefined {
  symbols ??= readSymbols();
  let [low, high] = [0, symbols.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (symbols[middle]!.at <= address) low = middle + 1;
    else high = middle;
  }
  return symbols[low - 1]?.name;
}

/** Addresses are all 0 for whoever may not see them. */
function readSymbols(): { readonly at: bigint; readonly name: string }[] {
  return readFileSync('/proc/kallsyms', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [at = '', type = '', name = ''] = line.split(/\s/);
      return /^[tTwW]$/.test(type) && !/^0+$/.test(at) ? [{ at: BigInt(`0x${at}`), name }] : [];
    })
    .sort((a, b) => (a.at < b.at ? -1 : 1));
}
