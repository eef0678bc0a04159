import type { Readiness } from '../health/server.ts';
import type { Failing } from './keeper.ts';

/** What keeps packets, or pods, from having a way; the names are those of the metric weft_failure. */
export type Part =
  | 'interface'
  | 'lease'
  | 'forwarder'
  | 'kernel'
  | 'key-exchange'
  | 'rules'
  | 'subnet-env'
  | 'cni-conf';

export interface FailingPart {
  readonly part: Part;
  readonly reason: string;
}

/**
 * Whether this node carries packets. flannel turns ready once and stays so; here a data path that breaks later is said, and
 * a start-up that hangs says where. The one place that knows of every keeper's failure: /readyz, the metrics and the condition
 * of the node read it here, and doctor reads /readyz.
 */
export class NodeReadiness {
  #started = false;
  #startUp: string | undefined;
  readonly #parts = new Map<Failing, Part>();

  /** What the agent waits for before it is ready, or ready again; undefined while start-up simply goes on. */
  waiting(reason: string | undefined): void {
    this.#startUp = reason;
  }

  /** Asked at every probe: its `failure` must be cheap. */
  watch(part: Part, keeper: Failing): Disposable {
    this.#parts.set(keeper, part);
    return { [Symbol.dispose]: () => void this.#parts.delete(keeper) };
  }

  started(): void {
    this.#started = true;
    this.#startUp = undefined;
  }

  /** In the order in which they were given. */
  failing(): FailingPart[] {
    return [...this.#parts].flatMap(([{ failure }, part]) =>
      failure === undefined ? [] : [{ part, reason: failure }],
    );
  }

  /** Whether the node has been ready once. */
  get hasStarted(): boolean {
    return this.#started;
  }

  /** What the start waits for, or that it begins anew; `undefined` when it waits for nothing that has a name. */
  get startUp(): string | undefined {
    return this.#startUp;
  }

  /** The parts there are, each once. */
  watched(): Part[] {
    return [...new Set(this.#parts.values())];
  }

  /** Whether each part there is fails. */
  parts(): Record<string, boolean> {
    return Object.fromEntries([...this.#parts].map(([{ failure }, part]) => [part, failure !== undefined]));
  }

  read(): Readiness {
    if (this.#startUp !== undefined) return { ready: false, reason: this.#startUp };
    if (!this.#started) return { ready: false };
    const failing = this.failing();
    if (failing.length === 0) return { ready: true };
    return { ready: false, reason: failing.map(({ reason }) => reason).join('; ') };
  }
}
