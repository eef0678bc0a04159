import type { Readiness } from '../../health/server.ts';

/**
 * Whether this node carries packets. flannel turns ready once and stays so; here a data path that breaks later is said, and
 * a start-up that hangs says where.
 */
export class NodeReadiness {
  #started = false;
  #startUp: string | undefined;
  readonly #checks: (() => string | undefined)[] = [];

  /** What the agent waits for before it is ready, or ready again; undefined while start-up simply goes on. */
  waiting(reason: string | undefined): void {
    this.#startUp = reason;
  }

  /** A part of the data path; returns what is wrong with it, or undefined. Asked at every probe: must be cheap. */
  watch(check: () => string | undefined): Disposable {
    this.#checks.push(check);
    return { [Symbol.dispose]: () => void this.#checks.splice(this.#checks.indexOf(check), 1) };
  }

  started(): void {
    this.#started = true;
    this.#startUp = undefined;
  }

  read(): Readiness {
    if (this.#startUp !== undefined) return { ready: false, reason: this.#startUp };
    if (!this.#started) return { ready: false };
    for (const check of this.#checks) {
      const reason = check();
      if (reason !== undefined) return { ready: false, reason };
    }
    return { ready: true };
  }
}
