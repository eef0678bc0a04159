import type { LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';

/** So many are named to `weft doctor`; a wrong configuration can make it all of thousands. */
const MAX_NAMED = 20;

/** Peers that this host cannot reach, and why: said once each time that the reason is another one. */
export class SkippedPeers {
  readonly #reasons = new Map<LeaseKey, string>();
  readonly #log: Pick<Log, 'warn'>;

  constructor(log: Pick<Log, 'warn'>) {
    this.#log = log;
  }

  /** `undefined`: it is reached, or has gone. */
  set(key: LeaseKey, reason: string | undefined): void {
    if (reason === undefined) this.#reasons.delete(key);
    else {
      if (this.#reasons.get(key) !== reason) this.#log.warn(`No way to ${nameOf(key)}: ${reason}`);
      this.#reasons.set(key, reason);
    }
  }

  get count(): number {
    return this.#reasons.size;
  }

  /** The first of them with their reasons, a line each, and how many more there are. */
  lines(): readonly string[] {
    const named = [...this.#reasons.entries()].slice(0, MAX_NAMED);
    const more = this.#reasons.size - named.length;
    return [
      ...named.map(([key, reason]) => `No way to ${nameOf(key)}: ${reason}.`),
      ...(more > 0 ? [`And ${more} more.`] : []),
    ];
  }
}

function nameOf(key: LeaseKey): string {
  return key.replaceAll('-', '/');
}
