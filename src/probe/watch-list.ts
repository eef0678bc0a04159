/** Where there are too many peers, so many of the places are for those without traffic. */
const SAMPLE = 16;
/** How long a peer without traffic has its place: long enough to see loss, and the path's MTU. */
const ROTATE_MS = 60_000;

/**
 * Which peers are probed: all while they are few; else those with traffic, as far as there is room, and a sample of the others
 * that moves on. What it costs does not grow with the number of peers.
 */
export class WatchList {
  readonly #room: number;
  readonly #all: string[] = [];
  readonly #index = new Map<string, number>();
  #active: readonly string[] = [];
  #watched: ReadonlySet<string> = new Set();
  #turns: string[] = [];
  #turn = 0;
  #offset = 0;
  #rotateAtMs = 0;
  #isStale = true;

  /** @param room how many are watched at a time, more than the sample. */
  constructor(room: number) {
    this.#room = room;
  }

  /** Without effect when it is there. */
  add(id: string): void {
    if (this.#index.has(id)) return;
    this.#index.set(id, this.#all.length);
    this.#all.push(id);
    this.#isStale = true;
  }

  remove(id: string): void {
    const at = this.#index.get(id);
    if (at === undefined) return;
    const last = this.#all.pop()!;
    this.#index.delete(id);
    if (last !== id) {
      this.#all[at] = last;
      this.#index.set(last, at);
    }
    this.#isStale = true;
  }

  setActive(ids: Iterable<string>): void {
    if (this.#all.length <= this.#room) return;
    this.#active = [...ids].slice(0, this.#room - SAMPLE);
    this.#isStale = true;
  }

  /** Those to watch now. @param nowMs of a clock that goes on. */
  now(nowMs: number): ReadonlySet<string> {
    const isMoving = this.#all.length > this.#room && nowMs >= this.#rotateAtMs;
    if (!this.#isStale && !isMoving) return this.#watched;
    if (isMoving) {
      this.#rotateAtMs = nowMs + ROTATE_MS;
      this.#offset = (this.#offset + SAMPLE) % this.#all.length;
    }
    this.#isStale = false;
    this.#watched = this.#all.length <= this.#room ? new Set(this.#all) : this.#sampled();
    this.#turns = [...this.#watched];
    return this.#watched;
  }

  /** Whose turn it is: one of {@link now}, each in its turn; `undefined` when there are none. */
  next(): string | undefined {
    if (this.#turns.length === 0) return undefined;
    this.#turn = (this.#turn + 1) % this.#turns.length;
    return this.#turns[this.#turn];
  }

  #sampled(): Set<string> {
    const watched = new Set(this.#active.filter((id) => this.#index.has(id)));
    for (let i = 0; i < SAMPLE; i++) watched.add(this.#all[(this.#offset + i) % this.#all.length]!);
    return watched;
  }
}
