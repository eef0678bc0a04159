import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Child } from '../../linux/run.ts';
import type { Launch } from './server-place.ts';

export interface ServerProcessOptions {
  readonly argv: readonly string[];
  /** Its output is appended here. */
  readonly logFile: string;
  readonly launch: Launch;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Whether it answers now; asked again and again after a start. A throw means no. */
  readonly ready: () => Promise<boolean>;
  readonly readyTimeoutMs?: number;
}

/** A server that belongs to a lab or a test: it is started, stopped, killed and started again with the same arguments. */
export class ServerProcess implements AsyncDisposable {
  readonly name: string;
  readonly #options: ServerProcessOptions;
  #child: Child | undefined;

  constructor(name: string, options: ServerProcessOptions) {
    this.name = name;
    this.#options = options;
  }

  /** `undefined` while it is not running. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when it answers. @throws Error with the end of its log when it exits, or does not answer in time. */
  async start(): Promise<void> {
    if (this.#child !== undefined) throw new Error(`${this.name} is running already`);
    const { argv, logFile, launch, env, ready, readyTimeoutMs = 120_000 } = this.#options;
    const child = await launch(argv, logFile, env);
    this.#child = child;
    let ended = false;
    void child.exited.then(() => {
      ended = true;
    });
    const until = performance.now() + readyTimeoutMs;
    while (!(await ready().catch(() => false))) {
      if (ended) {
        this.#child = undefined;
        throw new Error(`${this.name} ended at its start; the end of its log:\n${await this.logTail()}`);
      }
      if (performance.now() > until) {
        await this.kill();
        throw new Error(
          `${this.name} did not answer in ${readyTimeoutMs} ms; the end of its log:\n${await this.logTail()}`,
        );
      }
      await delay(50);
    }
  }

  /** SIGTERM, and SIGKILL if that is not enough within 10 s. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await child.exited;
    clearTimeout(timer);
  }

  /** SIGKILL; returns when it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    child.kill('SIGKILL');
    await child.exited;
  }

  /** Freezes it until the result is disposed of: connections stay, nothing answers. */
  freeze(): Disposable {
    const child = this.#child;
    if (child === undefined) throw new Error(`${this.name} is not running`);
    child.kill('SIGSTOP');
    return { [Symbol.dispose]: () => void child.kill('SIGCONT') };
  }

  logTail(): Promise<string> {
    return endOfLog(this.#options.logFile);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** The last lines of a server's log. */
export async function endOfLog(logFile: string): Promise<string> {
  const text = await readFile(logFile, 'utf8').catch(() => '');
  return text.trimEnd().split('\n').slice(-20).join('\n');
}
