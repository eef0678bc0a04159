/** What `perf script` prints of a recorded run, and where on a packet's way each sample was taken. Pure. */

/** One look at a processor that was not idle. */
export interface Sample {
  readonly pid: number;
  /** Innermost first. */
  readonly frames: readonly Frame[];
}

export interface Frame {
  readonly symbol: string;
  /** The file that the code is in; the kernel's is `[kernel.kallsyms]` or a module in brackets. */
  readonly object: string;
}

/** The options of `perf script` whose output {@link readSamples} reads. */
export const PERF_FIELDS = 'comm,pid,tid,ip,sym,dso';

/**
 * Reads the output of `perf script -F` {@link PERF_FIELDS}: a line `COMMAND PID/TID`, a line for each frame, an empty line.
 * A sample without frames is kept: its time was spent.
 */
export async function* readSamples(lines: AsyncIterable<string>): AsyncGenerator<Sample, void, undefined> {
  let pid: number | undefined;
  let frames: Frame[] = [];
  for await (const line of lines) {
    const head = /^\S.*?\s+(\d+)\/\d+/.exec(line);
    const frame = /^\s+[0-9a-f]+ (.+) \((.*)\)$/.exec(line);
    if (pid !== undefined && (head !== null || line.trim() === '')) {
      yield { pid, frames };
      pid = undefined;
    }
    if (head !== null) [pid, frames] = [Number(head[1]), []];
    else if (frame !== null) frames.push({ symbol: frame[1]!, object: frame[2]! });
  }
  if (pid !== undefined) yield { pid, frames };
}

/**
 * Where the time of a packet goes, in the order of its way. `softirq` is the kernel's work on packets that were handed over between
 * two devices: whoever runs at that moment does it, so that it belongs to no process.
 */
export const STAGES = [
  'sender',
  'waitOut',
  'tunRead',
  'codeOut',
  'send',
  'softirq',
  'waitIn',
  'receive',
  'codeIn',
  'tunWrite',
  'receiver',
  'other',
] as const;
export type Stage = (typeof STAGES)[number];

export const STAGE_TITLES: Readonly<Record<Stage, string>> = {
  sender: 'sending application and its socket',
  waitOut: 'sending forwarder: waits for packets',
  tunRead: 'sending forwarder: reads flannel0',
  codeOut: 'sending forwarder: own code',
  send: 'sending forwarder: sends datagrams',
  softirq: 'kernel: packets between devices (softirq)',
  waitIn: 'receiving forwarder: waits for datagrams',
  receive: 'receiving forwarder: receives datagrams',
  codeIn: 'receiving forwarder: own code',
  tunWrite: 'receiving forwarder: writes flannel0',
  receiver: 'receiving application and its socket',
  other: 'everything else on the machine',
};

/** The processes that take part. */
export interface Roles {
  readonly sender: number;
  readonly receiver: number;
  /** Of each host, where user space carries packets: the sender's first. */
  readonly forwarders: readonly [number, number] | undefined;
}

const SOFTIRQ = new Set(['net_rx_action', 'net_tx_action']);
/** Entry points of the kernel (drivers/net/tun.c, net/ipv4/udp.c, net/ipv6/udp.c). */
const CALLS: readonly (readonly [Stage, readonly string[]])[] = [
  ['tunRead', ['tun_chr_read_iter']],
  ['tunWrite', ['tun_chr_write_iter']],
  ['send', ['udp_sendmsg', 'udpv6_sendmsg']],
  ['receive', ['udp_recvmsg', 'udpv6_recvmsg']],
];

/** @returns undefined for a processor that had nothing to do. */
export function stageOf({ pid, frames }: Sample, roles: Roles): Stage | undefined {
  if (frames.some(({ symbol }) => SOFTIRQ.has(symbol))) return 'softirq';
  if (pid === 0) return undefined;
  if (pid === roles.sender) return 'sender';
  if (pid === roles.receiver) return 'receiver';
  const side = roles.forwarders?.indexOf(pid) ?? -1;
  if (side < 0) return 'other';
  const call = CALLS.find(([, names]) => frames.some(({ symbol }) => names.includes(symbol)));
  if (call !== undefined) return call[0];
  const isInKernel = frames[0]?.object.startsWith('[') === true && frames[0].object !== '[unknown]';
  // Of the kernel, what is left of a forwarder is poll and sched_yield, and the way in and out of calls.
  if (isInKernel) return side === 0 ? 'waitOut' : 'waitIn';
  return side === 0 ? 'codeOut' : 'codeIn';
}
