import { flushCompileCache } from 'node:module';
import { describeFault } from '../errors.ts';
import { alarm, exitAtOnce } from '../linux/ffi.ts';
import { type StopSignal, untilStopped } from './stop-signal.ts';

export interface EndLimits {
  /** How long the program may take to end once a signal has told it to; for ever when left out. */
  readonly stopMs?: number | undefined;
  /** The same after a fatal error. */
  readonly fatalMs: number;
  /** Asked at the first signal: what the stop waits for, if it is to wait. */
  readonly holdBack?: (() => Promise<void> | undefined) | undefined;
}

/** With what is logged and the way out of the process, an end within 2 s. */
const FATAL_MS = 1_250;
/** For those who are told to end so late that nothing is left of that. */
const LAST_MS = 250;
const ENDS_SOON: EndLimits = { fatalMs: FATAL_MS };

/**
 * A process from its start to its end: whatever happens, it ends, with an exit code, and says why.
 *
 * `process.exit` waits for worker threads, and one that is blocked in a foreign call keeps it for ever: so the last step is
 * _exit(2), which asks nobody. Should not even this thread come to it, the kernel's alarm clock ends the process.
 */
export class ProcessLife {
  readonly #name: string;
  #stopped: StopSignal | undefined;
  #limits: EndLimits = ENDS_SOON;
  /** performance.now() of the stop that somebody asked for. */
  #stoppedAtMs: number | undefined;
  #isEnding = false;
  #exitCode = 0;
  /** Where last words go; must neither wait nor throw. Standard error until there is a log. */
  lastWords: (text: string) => void;

  constructor(name: string, lastWords: (text: string) => void) {
    this.#name = name;
    this.lastWords = lastWords;
  }

  /** Whether it has failed, by a fatal error or otherwise. */
  get hasFailed(): boolean {
    return this.#exitCode !== 0;
  }

  /** Fires on the first SIGINT or SIGTERM, and on a fatal error. From then on the program has as long as `limits` say. */
  untilStopped(limits: EndLimits = ENDS_SOON): StopSignal {
    this.#limits = limits;
    const stopped = untilStopped(limits.holdBack);
    this.#stopped = stopped;
    const { stopMs } = limits;
    const onStop = (): void => {
      this.#stoppedAtMs = performance.now();
      if (stopMs !== undefined) this.#limit(stopMs);
    };
    stopped.signal.addEventListener('abort', onStop, { once: true });
    return stopped;
  }

  /** This process cannot go on: everything is told to end, and what does not is left to the kernel. Never throws. */
  readonly fatal = (error: unknown, what = 'fatal error'): void => {
    this.#exitCode = 1;
    this.#say(`${what}: ${describeFault(error)}`);
    if (this.#isEnding) return;
    this.#isEnding = true;
    // During a stop the time counts from its beginning: a worker that does not answer has had most of it.
    const pastMs = this.#stoppedAtMs === undefined ? 0 : performance.now() - this.#stoppedAtMs;
    this.#limit(Math.max(Math.round(this.#limits.fatalMs - pastMs), LAST_MS));
    if (this.#stopped === undefined) this.end(1);
    else this.#stopped.stop(new Error(`${this.#name} stops because of a fatal error`, { cause: error }));
  };

  /**
   * The program could not do what it is for, and only takes itself apart from now on: says why, and has as long for the rest as
   * after a signal. Never throws.
   */
  readonly failed = (why: string): void => {
    this.#exitCode = 1;
    this.#say(why);
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#limit(this.#limits.stopMs ?? this.#limits.fatalMs);
  };

  /** Ends the process now. A fatal error before keeps the code from being 0. */
  end(code: number): never {
    const exitCode = code === 0 ? this.#exitCode : code;
    try {
      flushCompileCache();
      // Last of all that listens: those before end what this process has started.
      process.once('exit', () => exitAtOnce(exitCode));
      process.exit(exitCode);
    } finally {
      exitAtOnce(exitCode);
    }
  }

  #limit(ms: number): void {
    alarm(Math.ceil((ms + 500) / 1_000));
    setTimeout(() => {
      this.#say(`${this.#name} did not stop within ${ms} ms and is killed now`);
      this.end(1);
    }, ms);
  }

  #say(text: string): void {
    try {
      this.lastWords(text);
    } catch {
      // Nobody can be told; the exit code says that something is wrong.
    }
  }
}

/**
 * Runs a program to its end. Errors that nothing has handled, also those of promises, are said and end it with code 1.
 *
 * @param main resolves with the exit code.
 */
export function runProgram(
  name: string,
  lastWords: (text: string) => void,
  main: (life: ProcessLife) => Promise<number>,
): void {
  const life = new ProcessLife(name, lastWords);
  process.on('uncaughtException', (error) => life.fatal(error, 'uncaught error'));
  process.on('unhandledRejection', (error) => life.fatal(error, 'unhandled rejection'));
  process.once('beforeExit', () => life.fatal(new Error('the event loop is empty'), name));
  main(life).then(
    (code) => life.end(code),
    (error: unknown) => {
      life.fatal(error);
      life.end(1);
    },
  );
}
