import type { FastPathTables } from './fast-path-tables.ts';
import { AGENT_TURNS } from './layout.ts';

/** Without a word of the agent for so long, the programs hold what they know; a loaded machine must not bring that about. */
const AGENT_HOLDS_NS = 1_250_000_000n;

const turnOf = (until: bigint): bigint => until & AGENT_TURNS;
/** Not later than `until`. */
const withTurn = (until: bigint, turn: bigint): bigint => ((until - AGENT_TURNS) & ~AGENT_TURNS) | turn;
/** Turns begin again at 0. */
const isLater = (turn: bigint, than: bigint): boolean =>
  turn !== than && ((turn - than) & AGENT_TURNS) <= AGENT_TURNS / 2n;

/**
 * How an agent tells the programs that it is there. Two may run for a moment, when one hands over to the next: the later one has the
 * word as soon as it has begun, and what the earlier one says then, above all that it ends, counts no more; unless the later one ends first.
 */
export class Heartbeat {
  readonly #tables: Pick<FastPathTables, 'agent' | 'beat'>;
  #turn: bigint | undefined;

  constructor(tables: Pick<FastPathTables, 'agent' | 'beat'>) {
    this.#tables = tables;
  }

  /** Called more often than it holds. @param now nanoseconds of CLOCK_MONOTONIC. */
  beat(now: bigint, place: bigint): void {
    const { until } = this.#tables.agent();
    this.#turn ??= (turnOf(until) + 1n) & AGENT_TURNS;
    if (until > now && isLater(turnOf(until), this.#turn)) return;
    this.#tables.beat(withTurn(now + AGENT_HOLDS_NS, this.#turn), place);
  }

  /** Knowledge ages no more from now on, unless there is a later agent. */
  end(now: bigint, place: bigint): void {
    if (this.#turn === undefined || turnOf(this.#tables.agent().until) !== this.#turn) return;
    this.#tables.beat(withTurn(now, this.#turn), place);
  }
}
