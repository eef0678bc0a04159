import { neighbourLinks } from '../desired/plan/links.ts';
import { type WantedState, WEFT_ROUTE_PROTOCOL } from '../desired/state.ts';
import { describeError, WeftError } from '../errors.ts';
import { containsPrefix, type IpPrefix, parsePrefix } from '../ip/address.ts';
import type { NetworkInterface } from '../underlay/host-network.ts';
import { type NetlinkSocket, untilListening } from './netlink-listener.ts';
import { type Child, lines, start } from './run.ts';

export type MonitorSubject = 'network' | 'interfaces' | 'addresses' | 'ipsec-policies';

/** The command's words behind `ip -N -rc BYTES`, and the number of its netlink protocol. */
const SUBJECTS: Readonly<Record<MonitorSubject, { readonly words: readonly string[]; readonly protocol: number }>> = {
  network: { words: ['monitor', 'label', 'link', 'address', 'route', 'neigh'], protocol: 0 },
  // Neighbours come and go all the time, even while nothing happens.
  interfaces: { words: ['monitor', 'label', 'link', 'address', 'route'], protocol: 0 },
  addresses: { words: ['monitor', 'label', 'link', 'address'], protocol: 0 },
  'ipsec-policies': { words: ['xfrm', 'monitor', 'policy'], protocol: 6 },
};

export interface IpMonitorOptions {
  /** Name of the network namespace (`ip netns`); this process's own by default. */
  readonly netns?: string | undefined;
  /**
   * What is listened to: links, addresses, routes and neighbours by default; those but neighbours; links and addresses; or IPsec policies
   * (`ip xfrm monitor`).
   */
  readonly about?: MonitorSubject | undefined;
  /** Told when `ip monitor` has ended without being asked to, once for each reason; it is started again with back-off. */
  readonly onLost: (text: string) => void;
}

const BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 30_000;
/** One that has run for so long and ends did not fail to start. */
const STABLE_MS = 10_000;
/** How long `ip monitor` may take to open its socket before it is taken for listening anyway. */
const SUBSCRIBE_MS = 2_000;
/** The receive buffer of the netlink socket; 2,000 routes set at once are some 200 KB of messages. */
const RECEIVE_BUFFER_BYTES = 4 * 1024 * 1024;

/**
 * Learns from `ip monitor` that links, addresses, routes or neighbours have changed, or IPsec policies. What changed is not
 * taken from it: the kernel is asked again.
 *
 * Only lines that can matter give notice, because a node with many containers sees links, addresses and ARP entries
 * come and go all the time, and each notice costs a look at the kernel.
 */
export class IpMonitor {
  readonly #options: IpMonitorOptions;
  readonly #latches = new Set<Latch>();

  constructor(options: IpMonitorOptions) {
    this.#options = options;
  }

  /** Gives one notice to everybody who listens, as if something that matters had changed. */
  nudge(): void {
    for (const latch of this.#latches) latch.set();
  }

  /**
   * Gives notice of every line of the monitor (`ip -N monitor label`, `ip xfrm monitor`) that matters, several at once as one; the first notice comes as
   * soon as no line can be missed any more. Starts `ip monitor` again whenever it ends, with one more notice once it listens; ends
   * by itself only when aborted.
   */
  async *changes(matters: (line: string) => boolean, signal: AbortSignal): AsyncIterable<void> {
    let said = '';
    for (let failures = 0; !signal.aborted; failures++) {
      let child: Child | undefined;
      const startedAt = performance.now();
      const notices = new Latch();
      const { words, protocol } = SUBJECTS[this.#options.about ?? 'network'];
      try {
        child = await start(['ip', '-N', '-rc', String(RECEIVE_BUFFER_BYTES), ...words], {
          netns: this.#options.netns,
          stderr: 'tail',
          endsWithThisProcess: true,
          signal,
        });
        const { pid } = child;
        const isIts = (socket: NetlinkSocket): boolean =>
          socket.protocol === protocol && socket.pid === pid && socket.groups !== 0;
        // One now: whatever happened before it listened was missed.
        if ((await untilListening(child, isIts, SUBSCRIBE_MS, signal)) !== 'ended') notices.set();
        this.#latches.add(notices);
        const reading = this.#read(child, matters, notices);
        while (await notices.wait()) yield;
        await reading;
        const exit = await child.exited;
        if (signal.aborted) return;
        const how = exit.code === undefined ? `by ${exit.signal}` : `with exit code ${exit.code}`;
        throw new WeftError('WEFT_COMMAND_FAILED', `ip monitor ended ${how}: ${child.tail().trim() || 'no message'}`);
      } catch (error) {
        if (signal.aborted) return;
        const text = `Changes on this host may be noticed late: ${describeError(error)}`;
        if (text !== said) this.#options.onLost(text);
        said = text;
      } finally {
        this.#latches.delete(notices);
        await child?.[Symbol.asyncDispose]();
      }
      if (performance.now() - startedAt > STABLE_MS) failures = 0;
      await pause(Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** Math.min(failures, 30)), signal);
    }
  }

  /** Never rejects; closes the latch at the end of the output. */
  async #read(child: Child, matters: (line: string) => boolean, notices: Latch): Promise<void> {
    try {
      for await (const line of lines(child.stdout!)) if (matters(line)) notices.set();
    } catch {
      // The pipe broke: the same as its end.
    } finally {
      notices.close();
    }
  }
}

/**
 * Whether a line of `ip -N monitor label` can be about the wanted state. IPv4 routes vanish without a message when
 * their link goes down or loses its last address, so links and addresses of all wanted links matter, external ones too.
 */
export function concerns(line: string, wanted: WantedState): boolean {
  // Lines that go on where the one before ended.
  if (!line.startsWith('[')) return false;
  const words = wordsOf(line);
  if (line.startsWith('[NEIGH]')) {
    return [...neighbourLinks(wanted.links)].some((name) => follows(words, 'dev', name));
  }
  if (line.startsWith('[ROUTE]')) {
    if (follows(words, 'proto', String(WEFT_ROUTE_PROTOCOL))) return true;
    // Somebody else's route to the network, or to a peer's part of it, may have replaced ours, or go before it.
    if (isInside(line, wanted.networks)) return true;
    return wanted.links.some((link) => link.kind !== 'external' && follows(words, 'dev', link.name));
  }
  return wanted.links.some((link) => words.includes(link.name));
}

/** Whether a route leads into one of the networks. One to a single address does not count: some CNI plugins make one for each container. */
function isInside(line: string, networks: readonly IpPrefix[]): boolean {
  // `Deleted`, and the number of an unusual type, come first.
  const word = line
    .slice('[ROUTE]'.length)
    .split(' ', 3)
    .find((each) => each.includes('/'));
  const destination = word === undefined ? undefined : parsePrefix(word);
  return destination !== undefined && networks.some((network) => containsPrefix(network, destination));
}

/**
 * Whether a line of `ip -N monitor label` can be about which interface leads to the other nodes, given the present one: it,
 * also by another name, addresses that others can use on any interface, and default routes. Containers come and go without
 * any of these.
 */
export function concernsExternal(line: string, { index, name }: Pick<NetworkInterface, 'index' | 'name'>): boolean {
  // First what is cheap: entries of thousands of peers come at once.
  if (line.startsWith('[ROUTE]')) return line.includes('default') && wordsOf(line).includes('default');
  if (!line.startsWith('[LINK]') && !line.startsWith('[ADDR]')) return false;
  const words = wordsOf(line);
  if (line.startsWith('[LINK]')) return words.includes(name) || words.slice(0, 2).includes(String(index));
  return words.includes(name) || follows(words, 'scope', '0');
}

/**
 * Whether a line of `ip -N monitor label` can be about the IPv4 addresses of this host: one came or went, or one of the links
 * that have any went up or down, when they come and go without a word.
 */
export function concernsAddresses(line: string, links: ReadonlySet<string>): boolean {
  if (!line.startsWith('[LINK]') && !line.startsWith('[ADDR]')) return false;
  const words = wordsOf(line);
  if (line.startsWith('[ADDR]')) return words.includes('inet');
  return words.some((word) => links.has(word));
}

/** Whether a line of `ip -N monitor label` can be about what this host reaches, and from which address. */
export function concernsReach(line: string): boolean {
  return concernsExternal(line, NO_LINK);
}

/** The index of the link that a line of `ip -N monitor label` is about; NaN for lines about anything else. */
export function linkIndex(line: string): number {
  return Number(/^\[LINK\](\d+): /.exec(line)?.[1]);
}

function wordsOf(line: string): readonly string[] {
  return line.slice(line.indexOf(']') + 1).split(/[\s:@]+/);
}

const NO_LINK = { index: -1, name: '' };

function follows(words: readonly string[], key: string, value: string): boolean {
  const at = words.indexOf(key);
  return at >= 0 && words[at + 1] === value;
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  const { promise, resolve } = Promise.withResolvers<void>();
  const handle = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => resolve(), { once: true });
  return promise.finally(() => clearTimeout(handle));
}

/** A flag that can be waited for: however often it is set meanwhile, the waiter wakes once. */
class Latch {
  #set = false;
  #closed = false;
  #waiter: (() => void) | undefined;

  set(): void {
    this.#set = true;
    this.#waiter?.();
  }

  close(): void {
    this.#closed = true;
    this.#waiter?.();
  }

  /** @returns false when it is closed and not set. */
  async wait(): Promise<boolean> {
    if (!this.#set && !this.#closed) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiter = resolve;
      await promise;
      this.#waiter = undefined;
    }
    const set = this.#set;
    this.#set = false;
    return set;
  }
}
