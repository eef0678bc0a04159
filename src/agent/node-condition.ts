import { describeError, WeftError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import { type Ticker, ticker } from '../ticker.ts';
import type { NodeReadiness } from './readiness.ts';

const LOOK_MS = 5_000;

export interface NodeConditionParts {
  readonly readiness: NodeReadiness;
  /** Says it where others look for the state of this node; undefined when there is no such place. */
  readonly report: ((error: WeftError, signal: AbortSignal) => Promise<void>) | undefined;
  /** Takes it back. */
  readonly clear: (signal: AbortSignal) => Promise<void>;
  readonly log: Pick<Log, 'warn'>;
  /** Default: that of this thread. */
  readonly ticker?: Pick<Ticker, 'every'>;
}

/**
 * Says on the Node, where there is one, that a part of the data path is not there: no pods are to be placed here meanwhile.
 * What is mended from one look to the next is not told.
 */
export class NodeCondition implements AsyncDisposable {
  readonly #parts: NodeConditionParts;
  readonly #stop = new AbortController();
  readonly #looking: Disposable;
  #before: string | undefined;
  #told: string | undefined;
  #telling: Promise<void> | undefined;

  constructor(parts: NodeConditionParts) {
    this.#parts = parts;
    this.#looking = (parts.ticker ?? ticker).every(LOOK_MS, () => this.#look());
  }

  #look(): void {
    const [failing] = this.#parts.readiness.failing();
    const now = failing?.reason;
    const isLasting = now !== undefined && this.#before !== undefined;
    this.#before = now;
    if (this.#telling !== undefined) return;
    if (isLasting && now !== this.#told) this.#telling = this.#tell(now);
    else if (now === undefined && this.#told !== undefined) this.#telling = this.#tell(undefined);
  }

  /** Never rejects; what could not be told is told at the next look. */
  async #tell(reason: string | undefined): Promise<void> {
    const { report, clear, log } = this.#parts;
    const { signal } = this.#stop;
    try {
      if (reason === undefined) await clear(signal);
      else await report?.(new WeftError('WEFT_NOT_READY', `flanneld is not ready: ${reason}`), signal);
      this.#told = reason;
    } catch (error) {
      if (!signal.aborted) log.warn(`Could not set the condition of the Node: ${describeError(error)}`);
    } finally {
      this.#telling = undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#looking[Symbol.dispose]();
    this.#stop.abort(new Error('the agent ended'));
    await this.#telling;
  }
}
