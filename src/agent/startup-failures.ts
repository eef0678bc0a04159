import { dirname } from 'node:path';
import { describeError, WeftError } from '../errors.ts';
import { clearStartupError, recordStartupError } from '../node-files/last-error.ts';

/** A node object that cannot be reached must not hold up the end of a process that starts again soon. */
const REPORT_MS = 5_000;

/**
 * Why the agent is not ready yet, told where people look who do not see its log: in a file for the CNI plugin, beside
 * subnet.env, and in the condition of the node. Both are taken back once the agent is ready.
 */
export class StartupFailures {
  readonly #directory: string;
  #over = false;
  #last = '';
  /** Set when there is a node to tell. */
  tellNode: ((error: WeftError, signal: AbortSignal) => Promise<void>) | undefined;

  constructor(subnetFile: string) {
    this.#directory = dirname(subnetFile);
  }

  /** What start-up waits for, and tries again. */
  waiting(text: string): void {
    if (this.#over || text === this.#last) return;
    this.#last = text;
    recordStartupError(this.#directory, text);
  }

  /** What ended the agent. Never throws: the error itself is what counts. */
  async fatal(error: unknown, warn: (text: string) => void): Promise<void> {
    // What goes wrong while it is told must not take its place.
    this.#over = true;
    recordStartupError(this.#directory, describeError(error));
    if (!(error instanceof WeftError)) return;
    try {
      await this.tellNode?.(error, AbortSignal.timeout(REPORT_MS));
    } catch (reportError) {
      warn(`Could not set the condition of the Node: ${describeError(reportError)}`);
    }
  }

  ready(): void {
    this.#over = true;
    clearStartupError(this.#directory);
  }
}
