import type { Answer, Peers } from '../api/schema.ts';

type Events = Answer<'/events'>;
type Event = Events['events'][number];

/** What came of one host. */
export interface HostEvents {
  readonly host: string;
  /** Of its agent: with another one ids begin anew, and what was known of the one before is history. */
  readonly startedAtMs: number;
  /** The oldest first. */
  readonly events: readonly Event[];
}

export interface EventsSince {
  /** What to ask for next time. */
  readonly newest: number;
  /** Of hosts with something new alone. */
  readonly hosts: readonly HostEvents[];
}

/** What to ask one agent for. */
export interface EventQuestion {
  readonly after: number;
  readonly limit: number;
}

/** Of all hosts together. */
const MAX_EVENTS = 50_000;
/** As many as an agent keeps. */
const MAX_OF_HOST = 10_000;

interface Log {
  readonly startedAtMs: number;
  newestId: number;
  /** Its agent may have told something that was not heard. */
  isBehind: boolean;
  /** The oldest first. */
  entries: { readonly order: number; readonly event: Event }[];
}

/** What happened on all hosts of a page, in the order in which it came here: who has seen a part asks for what came after it. */
export class EventLogs {
  readonly #mostOfHost: number;
  readonly #logs = new Map<string, Log>();
  #newest = 0;

  /** @param hosts of which each keeps its share of what is kept. */
  constructor(hosts: number) {
    this.#mostOfHost = Math.max(1, Math.min(MAX_OF_HOST, Math.floor(MAX_EVENTS / Math.max(1, hosts))));
  }

  /** After which event, and for how many, an agent is to be asked; undefined when all is known. @param self its latest answer. */
  question(
    host: string,
    { startedAtMs, newestEventId }: Pick<Peers['self'], 'startedAtMs' | 'newestEventId'>,
  ): EventQuestion | undefined {
    const log = this.#logs.get(host);
    const knownId = log?.startedAtMs === startedAtMs ? log.newestId : undefined;
    // Who does not say what it has is asked.
    if (knownId !== undefined && log?.isBehind === false && newestEventId !== undefined && newestEventId <= knownId)
      return undefined;
    return { after: Math.max(knownId ?? 0, (newestEventId ?? 0) - this.#mostOfHost), limit: this.#mostOfHost };
  }

  /** The answer to a question. */
  take(host: string, after: number, { startedAtMs, events, newestId }: Events): void {
    const known = this.#logs.get(host);
    if (known !== undefined && known.startedAtMs !== startedAtMs && after > 0) {
      // It was put to the agent before this one: what came first is asked for anew.
      this.#logs.delete(host);
      return;
    }
    const log = known?.startedAtMs === startedAtMs ? known : { startedAtMs, newestId: 0, isBehind: false, entries: [] };
    this.#logs.set(host, log);
    for (const event of events) this.#add(log, event);
    // With nothing after what was asked for there is nothing more to ask for.
    if (events.length === 0) log.newestId = Math.max(log.newestId, newestId);
    log.isBehind = log.newestId < newestId;
  }

  /** Something that an agent tells whoever follows it. Nothing is kept of hosts that nobody has asked for. */
  hear(host: string, event: Event): void {
    const log = this.#logs.get(host);
    if (log === undefined || event.id <= log.newestId) return;
    if (event.id === log.newestId + 1) this.#add(log, event);
    else log.isBehind = true;
  }

  /** From now on an agent is followed, or followed again. */
  missed(host: string): void {
    const log = this.#logs.get(host);
    if (log !== undefined) log.isBehind = true;
  }

  #add(log: Log, event: Event): void {
    if (event.id <= log.newestId) return;
    log.entries.push({ order: ++this.#newest, event });
    log.newestId = event.id;
    // Not each time: that would copy all of them.
    if (log.entries.length >= 2 * this.#mostOfHost) log.entries = log.entries.slice(-this.#mostOfHost);
  }

  /** @param seen what an answer of this called `newest`; 0: nothing yet. */
  since(seen: number): EventsSince {
    const hosts: HostEvents[] = [];
    for (const [host, { startedAtMs, entries }] of this.#logs) {
      if ((entries.at(-1)?.order ?? 0) <= seen) continue;
      const latest = entries.slice(-this.#mostOfHost);
      const events = latest.filter(({ order }) => order > seen).map(({ event }) => event);
      hosts.push({ host, startedAtMs, events });
    }
    return { newest: this.#newest, hosts };
  }
}
