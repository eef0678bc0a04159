import { describeError } from '../errors.ts';
import type { AgentEvent, EventKind } from '../events/event.ts';
import type { EventRing } from '../events/event-ring.ts';
import type { NodeEvent, TellNodeEvent } from '../events/node-event.ts';
import type { Log } from '../log/log.ts';
import { TokenBucket } from '../token-bucket.ts';

interface Told {
  readonly reason: string;
  /** It is told only after one of these was, as the end of it. */
  readonly mends?: readonly EventKind[];
  /** It is one of several of its kind, told apart by their subjects, and told once it has lasted so long. */
  readonly lastsMs?: number;
}

/** Many hosts see that one of them starts again, and nobody has to know. */
const PATH_FAULT_LASTS_MS = 60_000;

/** What is told on the Node; the rest is for who asks the agent. An event that mends nothing yet is everyday life. */
const TOLD: Readonly<Record<EventKind, Told | undefined>> = {
  'agent-started': undefined,
  ready: { reason: 'FlannelReady', mends: ['not-ready', 'interface-lost'] },
  'not-ready': { reason: 'FlannelNotReady' },
  'lease-acquired': { reason: 'FlannelLeaseAcquired', mends: ['lease-lost'] },
  'lease-renewed': undefined,
  'lease-retaken': { reason: 'FlannelLeaseRetaken' },
  'lease-lost': { reason: 'FlannelLeaseLost' },
  'subnet-conflict': { reason: 'FlannelSubnetConflict' },
  'subnet-conflict-over': { reason: 'FlannelSubnetConflictOver', mends: ['subnet-conflict'] },
  'entry-refused': { reason: 'FlannelPeerRefused' },
  'entry-unreadable': { reason: 'FlannelPeerUnreadable' },
  'peer-added': undefined,
  'peer-changed': undefined,
  'peer-removed': undefined,
  'peers-changed': undefined,
  'peer-skipped': { reason: 'FlannelPeerUnreachable' },
  'path-fault': { reason: 'FlannelPathFault', lastsMs: PATH_FAULT_LASTS_MS },
  'path-recovered': { reason: 'FlannelPathRecovered', mends: ['path-fault'] },
  // Who cannot be reached cannot be told.
  'store-away': undefined,
  'store-back': undefined,
  'config-changed': { reason: 'FlannelConfigChanged' },
  'backend-changed': { reason: 'FlannelBackendChanged' },
  'interface-changed': { reason: 'FlannelInterfaceChanged' },
  'interface-lost': { reason: 'FlannelInterfaceLost' },
  'kernel-changed': undefined,
  'kernel-repaired': { reason: 'FlannelKernelRepaired' },
  'kernel-failed': { reason: 'FlannelKernelFailed' },
  'kernel-problem': { reason: 'FlannelKernelProblem' },
  'rules-repaired': { reason: 'FlannelRulesRepaired' },
  'rules-failed': { reason: 'FlannelRulesFailed' },
  'rules-recovered': { reason: 'FlannelRulesRecovered', mends: ['rules-failed'] },
  'forwarder-started': { reason: 'FlannelDataPathMended', mends: ['forwarder-failed'] },
  'forwarder-failed': { reason: 'FlannelDataPathBroken' },
  'fast-path-opened': undefined,
  'fast-path-closed': undefined,
};

/** A series that was silent for so long has ended; what comes then begins a new one. */
const SERIES_MS = 600_000;
/** So many different messages of one reason have a series of their own; more are counted together. */
const MAX_SERIES = 5;
/** Requests that may follow each other at once, and how often one more may be sent. */
const BURST = 10;
const REFILL_MS = 15_000;
/** What happens within this time is counted first, and then told. */
const GATHER_MS = 1_000;
/** After a failure. */
const RETRY_MS = 15_000;

export interface NodeEventsParts {
  readonly events: Pick<EventRing, 'listen'>;
  readonly tell: TellNodeEvent;
  readonly log: Pick<Log, 'warn' | 'verbose'>;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface Series {
  event: NodeEvent;
  isTold: boolean;
}

/**
 * Tells on the Node what an operator must know. The same thing again raises a count; a storm of different things is cut to a few
 * series, and what is told at all to {@link BURST} requests and one every {@link REFILL_MS} after that. Without the right to do so
 * it says that once in the log and is silent.
 */
export class NodeEvents implements AsyncDisposable {
  readonly #parts: NodeEventsParts;
  readonly #now: () => number;
  readonly #series = new Map<string, Series>();
  /** What has gone wrong and was not mended since, and was told: see {@link openKey}. */
  readonly #open = new Set<string>();
  /** What has gone wrong and has not lasted yet, by the same keys. */
  readonly #lasting = new Map<string, { event: AgentEvent; readonly timer: NodeJS.Timeout }>();
  readonly #stop = new AbortController();
  readonly #listening: Disposable;
  /** Runs while there is something to tell, and never otherwise. */
  #timer: NodeJS.Timeout | undefined;
  readonly #bucket = new TokenBucket(BURST, REFILL_MS);
  #notBeforeMs = 0;
  #telling: Promise<void> | undefined;

  constructor(parts: NodeEventsParts) {
    this.#parts = parts;
    this.#now = parts.now ?? Date.now;
    this.#listening = parts.events.listen((event) => event && this.#take(event));
  }

  #take(event: AgentEvent): void {
    const told = TOLD[event.kind];
    if (told === undefined) return;
    if (told.mends === undefined) {
      if (told.lastsMs !== undefined) this.#wait(event, told.lastsMs);
      else this.#happened(event);
      return;
    }
    const mended = told.mends.map((kind) => openKey(kind, event.subject));
    for (const key of mended) this.#forgetLasting(key);
    if (mended.filter((key) => this.#open.delete(key)).length > 0) this.#tell(event);
  }

  #happened(event: AgentEvent): void {
    this.#open.add(openKey(event.kind, event.subject));
    this.#tell(event);
  }

  #wait(event: AgentEvent, lastsMs: number): void {
    const key = openKey(event.kind, event.subject);
    const lasting = this.#lasting.get(key);
    if (lasting !== undefined) {
      lasting.event = event;
      return;
    }
    const timer = setTimeout(() => {
      const { event: last } = this.#lasting.get(key)!;
      this.#lasting.delete(key);
      this.#happened(last);
    }, lastsMs).unref();
    this.#lasting.set(key, { event, timer });
  }

  #forgetLasting(key: string): void {
    clearTimeout(this.#lasting.get(key)?.timer);
    this.#lasting.delete(key);
  }

  #tell(event: AgentEvent): void {
    const { reason } = TOLD[event.kind]!;
    this.#count(reason, event.severity === 'info' ? 'Normal' : 'Warning', messageOf(event), event.atMs);
    this.#tellSoon();
  }

  #count(reason: string, type: NodeEvent['type'], message: string, atMs: number): void {
    this.#endSeries();
    const own = `${reason}\n${message}`;
    const isCombined = !this.#series.has(own) && this.#seriesOf(reason) >= MAX_SERIES;
    const key = isCombined ? reason : own;
    const series = this.#series.get(key);
    if (series === undefined) {
      const text = isCombined ? 'more of these: weft events on this node lists them' : message;
      const event = { reason, type, message: text, firstAtMs: atMs, lastAtMs: atMs, count: 1 };
      this.#series.set(key, { event, isTold: false });
      return;
    }
    series.event = { ...series.event, lastAtMs: atMs, count: series.event.count + 1 };
    series.isTold = false;
  }

  #seriesOf(reason: string): number {
    return [...this.#series.values()].filter(({ event }) => event.reason === reason).length;
  }

  #endSeries(): void {
    const nowMs = this.#now();
    for (const [key, { event, isTold }] of this.#series)
      if (isTold && nowMs - event.lastAtMs > SERIES_MS) this.#series.delete(key);
  }

  #tellSoon(): void {
    if (this.#timer !== undefined || this.#telling !== undefined) return;
    if (![...this.#series.values()].some(({ isTold }) => !isTold)) return;
    const nowMs = this.#now();
    const waitMs = Math.max(GATHER_MS, Math.max(this.#notBeforeMs, this.#bucket.readyAtMs(nowMs)) - nowMs);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#telling = this.#tellAll().finally(() => {
        this.#telling = undefined;
        this.#tellSoon();
      });
    }, waitMs).unref();
  }

  /** Never rejects. */
  async #tellAll(): Promise<void> {
    const { signal } = this.#stop;
    const { tell, log } = this.#parts;
    try {
      for (const series of this.#series.values()) {
        if (series.isTold || !this.#bucket.take(this.#now())) continue;
        series.isTold = true;
        const { event } = series;
        try {
          if ((await tell(event, signal)) === 'told') continue;
          log.warn(
            'No events are sent for the Node: this account may not create and patch events (deploy/kube-flannel.yml)',
          );
          this.#silence();
          return;
        } catch (error) {
          series.isTold = false;
          throw error;
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      log.verbose(1, `Could not send an event for the Node: ${describeError(error)}`);
      this.#notBeforeMs = this.#now() + RETRY_MS;
    }
  }

  #silence(): void {
    clearTimeout(this.#timer);
    for (const key of this.#lasting.keys()) this.#forgetLasting(key);
    this.#listening[Symbol.dispose]();
    this.#series.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#silence();
    this.#stop.abort(new Error('the agent ended'));
    await this.#telling;
  }
}

/** Most kinds have one end for all there were of them. */
function openKey(kind: EventKind, subject: string): string {
  return TOLD[kind]?.lastsMs === undefined ? kind : `${kind} ${subject}`;
}

function messageOf({ subject, text, cause }: AgentEvent): string {
  const said = text.includes(subject) ? text : `${subject}: ${text}`;
  return cause === undefined ? said : `${said} (${cause})`;
}
