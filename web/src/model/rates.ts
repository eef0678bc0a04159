/** From counters to rates. Pure. */
import type { Overview } from '../../../src/ui/overview.ts';

export interface LinkRate {
  /** A second. */
  readonly packets: number;
  readonly bytes: number;
  readonly drops: number;
}

/** The same for a link in every look: hosts by name, since their places in the list may change. */
export function linkKey(overview: Overview, link: { readonly from: number; readonly to: number }): string {
  return `${overview.hosts[link.from]?.name}\n${overview.hosts[link.to]?.name}`;
}

/**
 * Of every link that both looks have counters of. A counter that went back is a new agent's: that link has no rate until the
 * next look. Where the agent has not been asked again between the two, the rate is that of the look before.
 */
export function linkRates(
  before: Overview | undefined,
  now: Overview,
  earlier: ReadonlyMap<string, LinkRate>,
): ReadonlyMap<string, LinkRate> {
  const rates = new Map<string, LinkRate>();
  if (before === undefined) return rates;
  const old = new Map(before.links.map((link) => [linkKey(before, link), link]));
  for (const link of now.links) {
    const key = linkKey(now, link);
    const last = old.get(key);
    if (link.packets === undefined || last?.packets === undefined) continue;
    const seconds = ((link.countedAtMs ?? 0) - (last.countedAtMs ?? 0)) / 1000;
    const known = earlier.get(key);
    if (seconds === 0 && known !== undefined) rates.set(key, known);
    const packets = link.packets - last.packets;
    const bytes = (link.bytes ?? 0) - (last.bytes ?? 0);
    if (seconds <= 0 || packets < 0 || bytes < 0) continue;
    const drops = Math.max(0, (link.drops ?? 0) - (last.drops ?? 0));
    rates.set(key, { packets: packets / seconds, bytes: bytes / seconds, drops: drops / seconds });
  }
  return rates;
}

/** The last values of something, a fixed number of them, oldest first. */
export class History {
  readonly atMs: number[] = [];
  readonly values: (number | null)[] = [];
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** @param value null where there is none, for instance when nobody answered. */
  push(atMs: number, value: number | null): void {
    this.atMs.push(atMs);
    this.values.push(value);
    if (this.atMs.length > this.#limit) {
      this.atMs.shift();
      this.values.shift();
    }
  }
}
