import type { FastPathTables } from './fast-path-tables.ts';
import type { SignExchange } from './sign-exchange.ts';

export interface IntroductionParts {
  readonly tables: Pick<FastPathTables, 'isPublished' | 'hosts'>;
  readonly exchange: Pick<SignExchange, 'introduce'>;
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly now: () => bigint;
}

/** Also for an agent before this one that has yet to leave, and reads answers from the same socket meanwhile. Nothing is lost by waiting. */
const PATIENCE_NS = 10_000_000_000n;

/**
 * An agent whose maps are empty makes itself known to its peers, while programs of an agent before it go on with maps of another
 * layout. Peers send by their fast path meanwhile, and what that leaves unfinished in a packet no forwarder can finish: programs that
 * accept nothing yet, in place of those, would lose it.
 */
export class Introduction {
  readonly #parts: IntroductionParts;
  #until: bigint | undefined;

  constructor(parts: IntroductionParts) {
    this.#parts = parts;
  }

  /** Asks whom it is time to ask. Whether all have answered, or the time for that is over: it begins when there are peers to ask. */
  isOver(): boolean {
    const { tables, exchange, now } = this.#parts;
    if (!tables.isPublished) return false;
    this.#until ??= now() + PATIENCE_NS;
    const silent = tables.hosts().filter((host) => !exchange.introduce(host));
    return silent.length === 0 || now() >= this.#until;
  }
}
