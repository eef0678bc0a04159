import type { Log } from '../log/log.ts';
import type { HealthPort } from './health-port.ts';
import type { AgentHandOver, Predecessor } from './ports.ts';

export interface HandOverLife {
  readonly port: AgentHandOver;
  /** The health endpoint, which this agent gives to the next one; `undefined` when it has none. */
  readonly health: () => Pick<HealthPort, 'release' | 'regain'> | undefined;
  readonly log: Pick<Log, 'info' | 'warn'>;
  /** Everything that ends with the agent. */
  readonly stack: AsyncDisposableStack;
  /** Of the agent's life. */
  readonly signal: AbortSignal;
}

/** This agent's place between the one before it on this host and the next. */
export class HandOver {
  readonly #life: HandOverLife;
  /** The agent that has carried packets until now, until it has left. */
  #predecessor: Predecessor | undefined;
  #acceptsSuccessor = false;
  /** What is left to do once the agent before this one has left. */
  #onceAlone: (() => Promise<void>) | undefined;

  constructor(life: HandOverLife) {
    this.#life = life;
  }

  /** The agent before this one, if there is any, gives its health port away. */
  async announce(): Promise<void> {
    const { port, log, signal } = this.#life;
    this.#predecessor = await port.announce(signal);
    if (this.#predecessor !== undefined) log.info('Taking over from the running agent');
  }

  /** Does it now, or once the agent before this one has left, which has the same socket. */
  async onceAlone(act: () => Promise<void>): Promise<void> {
    if (this.#predecessor === undefined) await act();
    else this.#onceAlone = act;
  }

  /** Packets flow: the agent before this one leaves, and the next one may come. Does nothing after the first time. */
  async carries(): Promise<void> {
    if (this.#acceptsSuccessor) return;
    this.#acceptsSuccessor = true;
    const { port, health, log, stack, signal } = this.#life;
    await this.#predecessor?.carries(signal);
    this.#predecessor = undefined;
    if (signal.aborted) return;
    // Rejects for the signal alone.
    await this.#onceAlone?.().catch(() => {});
    const accepting = await port.accept({
      release: () => {
        log.info('The next agent has started');
        health()?.release();
      },
      regain: () => {
        log.warn('The next agent has ended without taking over');
        void health()?.regain();
      },
    });
    await endWith(stack, accepting);
  }

  /** What was handed over and found no use is closed. */
  settled(): void {
    this.#life.port.settled();
  }
}

/** It ends with the stack, or at once when that has ended while it was made. */
export async function endWith(stack: AsyncDisposableStack, resource: AsyncDisposable): Promise<void> {
  if (stack.disposed) await resource[Symbol.asyncDispose]();
  else stack.use(resource);
}
