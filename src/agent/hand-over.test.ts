import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { endWith, HandOver } from './hand-over.ts';
import type { HandOverParts } from './ports.ts';

/** An agent between others, and what happens to it in order. */
class Life {
  readonly steps: string[] = [];
  readonly stack = new AsyncDisposableStack();
  readonly stop = new AbortController();
  readonly handOver: HandOver;
  accepted: HandOverParts | undefined;

  constructor(hasPredecessor: boolean) {
    const note = (text: string): void => void this.steps.push(text);
    const predecessor = { carries: async () => note('the one before leaves') };
    this.handOver = new HandOver({
      port: {
        announce: async () => (hasPredecessor ? predecessor : undefined),
        accept: async (parts) => {
          this.accepted = parts;
          note('the next may come');
          return { [Symbol.asyncDispose]: async () => note('the next may not come') };
        },
        settled: () => note('settled'),
      },
      health: () => ({ release: () => note('port released'), regain: async () => note('port regained') }),
      log: { info: note, warn: note },
      stack: this.stack,
      signal: this.stop.signal,
    });
  }

  async start(): Promise<void> {
    await this.handOver.announce();
    await this.handOver.onceAlone(async () => void this.steps.push('has the socket'));
  }
}

describe('the hand-over', () => {
  it('has the socket at once where there is no agent before it', async () => {
    const life = new Life(false);
    await life.start();
    await life.handOver.carries();
    assert.deepEqual(life.steps, ['has the socket', 'the next may come']);
  });

  it('has it once the agent before it has left, and only then is open for the next', async () => {
    const life = new Life(true);
    await life.start();
    assert.deepEqual(life.steps.splice(0), ['Taking over from the running agent']);
    await life.handOver.carries();
    assert.deepEqual(life.steps.splice(0), ['the one before leaves', 'has the socket', 'the next may come']);
    await life.handOver.carries();
    assert.deepEqual(life.steps, [], 'once');
    await life.stack.disposeAsync();
    assert.deepEqual(life.steps, ['the next may not come']);
  });

  it('gives the health port to the next agent, and takes it again from one that does not take over', async () => {
    const life = new Life(false);
    await life.start();
    await life.handOver.carries();
    life.steps.splice(0);
    life.accepted!.release();
    life.accepted!.regain();
    assert.deepEqual(life.steps, [
      'The next agent has started',
      'port released',
      'The next agent has ended without taking over',
      'port regained',
    ]);
  });

  it('accepts nobody when the agent was told to stop meanwhile', async () => {
    const life = new Life(true);
    await life.start();
    life.stop.abort(new Error('told to'));
    await life.handOver.carries();
    assert.equal(life.accepted, undefined);
  });

  it('ends what came too late for the end of the agent', async () => {
    const life = new Life(false);
    await life.stack.disposeAsync();
    await endWith(life.stack, { [Symbol.asyncDispose]: async () => void life.steps.push('ended') });
    assert.deepEqual(life.steps, ['ended']);
  });
});
