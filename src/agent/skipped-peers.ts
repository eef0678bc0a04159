import type { PeerPart, SkippedPeer } from '../backend/backend.ts';
import type { RecordEvent } from '../events/event.ts';
import type { LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import { EntryLines } from './entry-lines.ts';

/** So many are named to `weft doctor`; a wrong configuration can make it all of thousands. */
const MAX_NAMED = 20;

/** Peers that this host cannot reach, or in one family only, and why: said once each time that the reason is another one, of few of many. */
export class SkippedPeers {
  /** What was said. */
  readonly #texts = new Map<LeaseKey, string>();
  readonly #log: Pick<Log, 'warn'>;
  readonly #record: RecordEvent;
  readonly #lines: EntryLines;

  /** @param now of a clock that goes on, in milliseconds. */
  constructor(log: Pick<Log, 'warn'>, record: RecordEvent, now?: () => number) {
    this.#log = log;
    this.#record = record;
    this.#lines = new EntryLines(now);
  }

  /** What the backend makes of that peer; `undefined` when it has gone. */
  set(key: LeaseKey, part: Pick<PeerPart, 'lacks'> | SkippedPeer | undefined): void {
    const text = textOf(key, part);
    if (text === undefined) this.#texts.delete(key);
    else {
      if (this.#texts.get(key) !== text) this.#say(key, text);
      this.#texts.set(key, text);
    }
  }

  #say(key: LeaseKey, text: string): void {
    const unsaid = this.#lines.next();
    if (unsaid === undefined) return;
    this.#log.warn(unsaid === 0 ? text : `${text} (${unsaid} more peers were not logged)`);
    this.#record({ kind: 'peer-skipped', severity: 'warning', subject: key.replaceAll('-', '/'), text });
  }

  /** Why that one is not reached, or in one family only. */
  reasonOf(key: LeaseKey): string | undefined {
    return this.#texts.get(key);
  }

  get count(): number {
    return this.#texts.size;
  }

  /** The first of them with their reasons, a line each, and how many more there are. */
  lines(): readonly string[] {
    const named = [...this.#texts.values()].slice(0, MAX_NAMED);
    const more = this.#texts.size - named.length;
    return [
      ...named.map((text) => (text.endsWith('.') ? text : `${text}.`)),
      ...(more > 0 ? [`And ${more} more.`] : []),
    ];
  }
}

function textOf(key: LeaseKey, part: Pick<PeerPart, 'lacks'> | SkippedPeer | undefined): string | undefined {
  if (part === undefined) return undefined;
  const name = key.replaceAll('-', '/');
  if ('skipped' in part) return `Cannot reach ${name}: ${part.skipped}`;
  return part.lacks === undefined ? undefined : `Cannot reach ${name} in one family: ${part.lacks}`;
}
