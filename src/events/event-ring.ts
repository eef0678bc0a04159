import { printable, printableLines } from '../printable.ts';
import type { AgentEvent, NewEvent } from './event.ts';

/** Events that are kept; the oldest goes for a new one. */
export const EVENT_CAPACITY = 10_000;
/** Longer texts are cut: 10,000 events must not cost more than a few megabytes. */
const MAX_TEXT = 500;
const MAX_SUBJECT = 150;
const MAX_OPERATIONS = 20;
const MAX_OPERATION = 200;
/** So many of the latest events keep their operations. */
const OPERATIONS_CAPACITY = 1_000;

export interface EventsAfter {
  readonly events: readonly AgentEvent[];
  /** Of the oldest event that is kept; one above the newest when none is. A gap to what was asked for is lost. */
  readonly oldestId: number;
  /** Of the newest event; 0 before the first. */
  readonly newestId: number;
}

/**
 * The last events of this process, numbered. Who follows them asks for those after the last id it has; nothing is kept for it
 * meanwhile. Texts come from outside as well: what cannot be printed is shown as such (printable.ts).
 */
export class EventRing {
  readonly #capacity: number;
  readonly #now: () => number;
  readonly #events: AgentEvent[] = [];
  readonly #listeners = new Set<(event?: AgentEvent) => void>();
  #newestId = 0;
  #hints = 0;

  constructor(capacity: number = EVENT_CAPACITY, now: () => number = Date.now) {
    this.#capacity = capacity;
    this.#now = now;
  }

  /** Never throws for what a listener does not. */
  add(event: NewEvent): void {
    this.#newestId++;
    const { kind, severity, subject, text, cause, revision, operations = [] } = event;
    const moreOperations = operations.length - MAX_OPERATIONS;
    const kept: AgentEvent = {
      ...{ id: this.#newestId, atMs: this.#now(), kind, severity },
      ...{ subject: printable(subject, MAX_SUBJECT), text: printableLines(text, MAX_TEXT) },
      ...(cause === undefined ? {} : { cause: printableLines(cause, MAX_TEXT) }),
      ...(revision === undefined ? {} : { revision }),
      ...(operations.length === 0
        ? {}
        : { operations: operations.slice(0, MAX_OPERATIONS).map((one) => printable(one, MAX_OPERATION)) }),
      ...(moreOperations > 0 ? { moreOperations } : {}),
    };
    // The place of event n is n − 1 modulo the capacity, so that what is after an id is found without a search.
    this.#events[this.#placeOf(this.#newestId)] = kept;
    this.#forgetOperations(this.#newestId - OPERATIONS_CAPACITY);
    for (const listener of this.#listeners) listener(kept);
  }

  /** Something has changed that is not told, since it does so too often: who shows what is so now looks again. */
  hint(): void {
    this.#hints++;
    for (const listener of this.#listeners) listener();
  }

  get hints(): number {
    return this.#hints;
  }

  #placeOf(id: number): number {
    return (id - 1) % this.#capacity;
  }

  #forgetOperations(id: number): void {
    if (id <= this.#newestId - this.#capacity || id < 1) return;
    const { operations, moreOperations, ...event } = this.#events[this.#placeOf(id)]!;
    if (operations === undefined) return;
    this.#events[this.#placeOf(id)] = { ...event, moreOperations: operations.length + (moreOperations ?? 0) };
  }

  /** @param limit at most so many, the oldest of them. */
  after(id: number, limit: number): EventsAfter {
    const oldestId = Math.max(1, this.#newestId - this.#capacity + 1);
    const first = Math.max(oldestId, id + 1);
    const last = Math.min(this.#newestId, first + limit - 1);
    const events: AgentEvent[] = [];
    for (let at = first; at <= last; at++) events.push(this.#events[this.#placeOf(at)]!);
    return { events, oldestId, newestId: this.#newestId };
  }

  /** Told of each event and {@link hint} from now on, until disposed; must be quick and must not throw. */
  listen(listener: (event?: AgentEvent) => void): Disposable {
    // Two listeners may be one function.
    const own = (event?: AgentEvent): void => listener(event);
    this.#listeners.add(own);
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) };
  }
}
