import type { NewEvent, RecordEvent } from '../events/event.ts';
import { ticker } from '../ticker.ts';
import type { NodeReadiness } from './readiness.ts';

const LOOK_MS = 1_000;

export interface StateChangesParts {
  readonly readiness: NodeReadiness;
  readonly isConfigOutdated: () => boolean;
  readonly record: RecordEvent;
  readonly lookMs?: number;
}

/** Notices that the node has become ready or is not any more, and for which reason, and that its configuration is outdated. */
export class StateChanges implements Disposable {
  readonly #parts: StateChangesParts;
  readonly #looking: Disposable;
  /** What was said last. */
  #state = '';
  #isOutdated = false;

  constructor(parts: StateChangesParts) {
    this.#parts = parts;
    this.#looking = ticker.every(parts.lookMs ?? LOOK_MS, () => this.#look());
  }

  #look(): void {
    const { readiness, isConfigOutdated, record } = this.#parts;
    const read = readiness.read();
    const state = read.ready ? 'ready' : `not ready: ${read.reason ?? ''}`;
    // A start that waits is no change, and says why elsewhere.
    if (state !== this.#state && readiness.hasStarted) {
      record(read.ready ? READY : notReady(read.reason, readiness));
      this.#state = state;
    }
    const isOutdated = isConfigOutdated();
    if (isOutdated && !this.#isOutdated) record(OUTDATED);
    this.#isOutdated = isOutdated;
  }

  [Symbol.dispose](): void {
    this.#looking[Symbol.dispose]();
  }
}

const READY: NewEvent = { kind: 'ready', severity: 'info', subject: 'node', text: 'the node carries packets' };
const OUTDATED: NewEvent = {
  ...{ kind: 'config-changed', severity: 'warning', subject: 'network configuration' },
  text: 'the network configuration has changed since this agent started; restart the agent to apply it',
};

function notReady(reason: string | undefined, readiness: NodeReadiness): NewEvent {
  const [first] = readiness.failing();
  const text = reason ?? 'start-up has not finished';
  if (first?.part === 'interface') return { kind: 'interface-lost', severity: 'error', subject: 'interface', text };
  return { kind: 'not-ready', severity: 'error', subject: first?.part ?? 'node', text };
}
