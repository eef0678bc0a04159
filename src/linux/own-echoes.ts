import type { Op } from '../desired/op.ts';
import {
  type ActualRoute,
  BOOT_ROUTE_PROTOCOL,
  effectiveMetric,
  type Route,
  WEFT_ROUTE_PROTOCOL,
} from '../desired/state.ts';
import { formatAddr, formatPrefix, isPrefix4 } from '../ip/address.ts';

/** How long after the last operation the kernel's word of it may take; then something else has become of it, or it was lost. */
const DUE_MS = 1_000;

/** rtnetlink.h: RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RT_SCOPE_HOST. */
const SCOPE_NUMBERS = { global: 0, link: 253, host: 254 } as const;

/**
 * Knows which lines of `ip -N monitor label` tell of what this process has just done, so that those need no look at the kernel: with
 * thousands of peers, looking at all of them after each change of one is the dear part.
 *
 * Each operation is expected back once, in the very words. A line that says anything else, or says it once too often, is somebody
 * else's doing; should `ip` have other words one day, then every line is. What is still expected a second after it was done is
 * `onOverdue`.
 */
export class OwnEchoes {
  readonly #expected = new Map<string, number>();
  readonly #onOverdue: () => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(onOverdue: () => void) {
    this.#onOverdue = onOverdue;
  }

  /** Before the operation is done; its line may come before its end is known. */
  expect(op: Op): void {
    clearTimeout(this.#timer);
    for (const line of echoesOf(op)) this.#expected.set(line, (this.#expected.get(line) ?? 0) + 1);
  }

  /** The operation failed, so nothing will be said of it. */
  withdraw(op: Op): void {
    for (const line of echoesOf(op)) this.#take(line);
  }

  /** All that is expected was done. */
  done(): void {
    clearTimeout(this.#timer);
    if (this.#expected.size === 0) return;
    this.#timer = setTimeout(() => {
      if (this.#expected.size === 0) return;
      this.#expected.clear();
      this.#onOverdue();
    }, DUE_MS).unref();
  }

  /** Whether a line of the monitor is an echo; it is expected no more then. */
  take(line: string): boolean {
    if (this.#expected.size === 0) return false;
    // A preference that IPv6 routes always have.
    return this.#take(line.trim().replace(/ pref medium$/, ''));
  }

  #take(line: string): boolean {
    const count = this.#expected.get(line);
    if (count === undefined) return false;
    if (count === 1) this.#expected.delete(line);
    else this.#expected.set(line, count - 1);
    return true;
  }
}

/** What `ip -N monitor label` says of an operation; nothing for those whose consequences are the kernel's business. */
function echoesOf(op: Op): readonly string[] {
  switch (op.type) {
    case 'route-add':
    case 'route-replace':
      return [`[ROUTE]${routeLine(op.route, WEFT_ROUTE_PROTOCOL)}`];
    case 'route-delete':
      return [`[ROUTE]Deleted ${routeLine(op.route, op.route.protocol)}`];
    case 'neighbour-replace': {
      const { addr, link, mac } = op.neighbour;
      return [`[NEIGH]${formatAddr(addr)} dev ${link} lladdr ${mac} PERMANENT`];
    }
    case 'neighbour-delete': {
      // A permanent entry becomes a failed one first (neigh_delete in net/core/neighbour.c).
      const failed = `${formatAddr(op.neighbour.addr)} dev ${op.neighbour.link} FAILED`;
      return [`[NEIGH]${failed}`, `[NEIGH]Deleted ${failed}`];
    }
    case 'fdb-replace':
    case 'fdb-delete': {
      const { dst, link, mac } = op.entry;
      const entry = `${formatAddr(dst)} dev ${link} lladdr ${mac} NOARP PERMANENT`;
      return [`[NEIGH]${op.type === 'fdb-delete' ? 'Deleted ' : ''}${entry}`];
    }
    default:
      return [];
  }
}

function routeLine(route: Route | ActualRoute, protocol: number): string {
  const { dst, type } = route;
  const is4 = isPrefix4(dst);
  const words = [dst.length === (is4 ? 32 : 128) ? formatAddr(dst.addr) : formatPrefix(dst)];
  // rtnetlink.h: RTN_BLACKHOLE.
  if (type === 'blackhole') words.unshift('6');
  // The kernel puts an IPv6 blackhole route on lo.
  if (type === 'blackhole' && !is4) words.push('dev', 'lo');
  if (type === 'unicast') {
    if (route.via !== undefined) words.push('via', formatAddr(route.via));
    words.push('dev', String(route.dev));
  }
  // `ip` says nothing of the protocol of a route whose maker gave none.
  if (protocol !== BOOT_ROUTE_PROTOCOL) words.push('proto', String(protocol));
  if (type === 'unicast' && is4 && route.scope !== 'global') words.push('scope', String(SCOPE_NUMBERS[route.scope]));
  const metric = effectiveMetric(route);
  if (metric !== 0) words.push('metric', String(metric));
  if (type === 'unicast' && route.onlink) words.push('onlink');
  return words.join(' ');
}
