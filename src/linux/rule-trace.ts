import { WeftError } from '../errors.ts';
import { NETLINK_NETFILTER } from './constants.ts';
import { type NetlinkSocket, untilListening } from './netlink-listener.ts';
import { type Child, lines, start } from './run.ts';

export interface RuleTraceOptions {
  /** What opens the network namespace. */
  readonly path: string;
  /** What nft matches: only such packets are traced. */
  readonly match: string;
  /** Where the packet may be dropped as it comes in, before any other hook; empty when it was on none. */
  readonly device: string;
  /** Called when everything is in place. */
  readonly send: () => void;
  /** Whether a line is what was waited for. */
  readonly isLast: (line: string) => boolean;
  /** After `send`, until it is given up. */
  readonly waitMs: number;
}

/** Of starting two programs, on a busy machine. */
const START_MS = 10_000;
/** Names of devices that need no escape in nft's language; it has none. */
const QUOTABLE = /^[^"]+$/;
/** Before all hooks of others. */
const PRIORITY = -2_000_000_000;
/** linux/netfilter/nfnetlink.h: NFNLGRP_NFTRACE is 9. */
const TRACE_GROUP = 1 << 8;

/**
 * The lines of `nft monitor trace` about one packet. Tables of its own set the mark for it; they belong to the program that made them
 * and go with that, however this process ends (`flags owner`, Linux 5.12, nft 0.9.9).
 *
 * @returns up to the line that `isLast` wants; all when it did not come.
 * @throws WeftError WEFT_TRACE_UNAVAILABLE, WEFT_COMMAND_MISSING; the signal's reason.
 */
export async function traceRules(options: RuleTraceOptions, signal: AbortSignal): Promise<readonly string[]> {
  const { path, match, device, send, isLast, waitMs } = options;
  const tableOf = (family: string): string => `${family} weft_trace_${process.pid}`;
  const marks = (family: string, ...hooks: readonly (readonly [name: string, place: string])[]): string[] => [
    `add table ${tableOf(family)} { flags owner; }`,
    ...hooks.flatMap(([name, place]) => [
      `add chain ${tableOf(family)} ${name} { type filter hook ${name}${place} priority ${PRIORITY}; }`,
      `add rule ${tableOf(family)} ${name} ${match} meta nftrace set 1`,
    ]),
  ];
  // The mark stays with the packet: what comes after these hooks, also on bridges and on the way out of a device, shows it as well.
  // A kernel without one of the first two says so, and the rest holds all the same.
  const script = [
    ...(QUOTABLE.test(device) ? marks('netdev', ['ingress', ` device "${device}"`]) : []),
    ...marks('bridge', ['prerouting', '']),
    ...marks('inet', ['prerouting', ''], ['output', '']),
    `list table ${tableOf('inet')}`,
  ];
  await using resources = new AsyncDisposableStack();
  const inside = async (argv: readonly string[]): Promise<Child> =>
    resources.use(await start(argv, { stdin: 'pipe', netnsPath: path, endsWithThisProcess: true, signal }));
  const holder = await inside(['nft', '-i']);
  holder.stdin!.write(`${script.join('\n')}\n`);
  const told = new Lines(holder);
  if (!(await told.until((line) => line.includes('output priority'), START_MS))) throw unavailable(holder);
  const monitor = await inside(['nft', 'monitor', 'trace']);
  const seen = new Lines(monitor);
  const isTracing = ({ protocol, groups }: NetlinkSocket): boolean =>
    protocol === NETLINK_NETFILTER && (groups & TRACE_GROUP) !== 0;
  const state = await untilListening(monitor, isTracing, START_MS, signal);
  signal.throwIfAborted();
  if (state !== 'listening') throw unavailable(monitor);
  send();
  await seen.until(isLast, waitMs);
  signal.throwIfAborted();
  return seen.all;
}

/** What a program has said so far. */
class Lines {
  readonly all: string[] = [];
  #wake: () => void = () => {};
  #hasEnded = false;

  constructor({ stdout }: Child) {
    void (async () => {
      for await (const line of lines(stdout!)) {
        this.all.push(line);
        this.#wake();
      }
      this.#hasEnded = true;
      this.#wake();
    })();
  }

  /** Whether such a line came in time. */
  async until(isWanted: (line: string) => boolean, waitMs: number): Promise<boolean> {
    const endMs = performance.now() + waitMs;
    for (let at = 0; ; ) {
      for (; at < this.all.length; at++) if (isWanted(this.all[at]!)) return true;
      const leftMs = endMs - performance.now();
      if (this.#hasEnded || leftMs <= 0) return false;
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      const timer = setTimeout(resolve, leftMs);
      await promise;
      clearTimeout(timer);
    }
  }
}

function unavailable(child: Child): WeftError {
  return new WeftError(
    'WEFT_TRACE_UNAVAILABLE',
    `cannot trace rules: ${child.argv.join(' ')}: ${child.tail().trim()}`,
    {
      hint: 'It needs Linux 5.12 and nft 1.0 or later.',
    },
  );
}
