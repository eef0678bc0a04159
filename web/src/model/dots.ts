/**
 * The dots that move along the map's links. A dot is a number of packets that were really counted: they set out at the rate
 * that the last two looks have found, and nothing else ever moves. Pure but for its own state.
 */

/** How long a dot is on its way. */
export const FLIGHT_MS = 1_400;
/** More dots at a time are no longer seen apart, and cost frames. */
export const MAX_DOTS = 1_200;
/** Of one link: closer together they are a line. */
const MAX_LINK_DOTS_PER_SECOND = 18;

/**
 * How many packets a dot stands for: 1, 10, 100 …, the same on all links, so that they can be compared.
 *
 * @param rates of all links that are drawn, in packets a second.
 */
export function packetsPerDot(rates: readonly number[]): number {
  const highest = Math.max(0, ...rates);
  const total = rates.reduce((sum, rate) => sum + rate, 0);
  let packets = 1;
  while (highest / packets > MAX_LINK_DOTS_PER_SECOND || ((total / packets) * FLIGHT_MS) / 1000 > MAX_DOTS) {
    packets *= 10;
  }
  return packets;
}

interface Stream {
  /** Dots that are due but not on their way yet, with a fraction. */
  due: number;
  /** Dots a millisecond. */
  pace: number;
  /** When those on their way started, oldest first. */
  readonly births: number[];
}

export class Dots {
  readonly #streams = new Map<string, Stream>();
  #lastMs: number | undefined;

  /** What the last look found. @param rates in packets a second, by link. */
  feed(rates: ReadonlyMap<string, { readonly packets: number }>, perDot: number): void {
    for (const [link, stream] of this.#streams) if (!rates.has(link)) stream.pace = 0;
    for (const [link, { packets }] of rates) {
      const stream = this.#streams.get(link) ?? { due: 0, pace: 0, births: [] };
      if (packets > 0) this.#streams.set(link, stream);
      stream.pace = packets / perDot / 1000;
    }
  }

  /** Moves time on. @param nowMs of a clock that does not jump. */
  advance(nowMs: number): void {
    // A page that was in the background catches up with nothing.
    const elapsed = Math.min(250, nowMs - (this.#lastMs ?? nowMs));
    this.#lastMs = nowMs;
    for (const [link, stream] of this.#streams) {
      stream.due += stream.pace * elapsed;
      while (stream.due >= 1) {
        stream.due -= 1;
        stream.births.push(nowMs);
      }
      while (stream.births.length > 0 && nowMs - stream.births[0]! > FLIGHT_MS) stream.births.shift();
      if (stream.pace === 0 && stream.births.length === 0) this.#streams.delete(link);
    }
  }

  /** How far each dot of a link is, 0 … 1. */
  *along(link: string, nowMs: number): Generator<number> {
    for (const birth of this.#streams.get(link)?.births ?? []) yield Math.min(1, (nowMs - birth) / FLIGHT_MS);
  }

  get links(): Iterable<string> {
    return this.#streams.keys();
  }
}
