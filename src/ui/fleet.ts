/** Asks all agents of a page, no more often than somebody looks at it. */
import type { Peers, Self } from '../api/schema.ts';
import { describeError } from '../errors.ts';
import type { AgentSource } from './agent-source.ts';
import { type AgentReport, type Overview, overviewOf } from './overview.ts';

export interface FleetOptions {
  /** Of one question. */
  readonly answerMs?: number;
  /** An overview does not wait longer for agents that are slow: it has what they said before. */
  readonly patienceMs?: number;
  /** Answers of this age are given again instead of asking. */
  readonly freshMs?: number;
  /** Questions that may be put in a second, of all agents together, to whoever hands them on. */
  readonly mostPerSecond?: number;
  readonly now?: () => number;
}

const ANSWER_MS = 2_000;
const PATIENCE_MS = 500;
/** A little less than the second after which a page looks again. */
const FRESH_MS = 700;
/** Of one processor, what reading the answers may take: with very many hosts, one looks less often. */
const SHARE = 1 / 10;
/** Agents that have never answered are waited for longer, so that a page does not begin with false alarms. */
const FIRST_PATIENCE_MS = 5_000;
/** Of what an agent has said, as long as it is what it would say now: it looks at its own figures twice a second. */
const SAID_MS = 1_000;
/** Of each agent, whenever all are asked. */
const QUESTIONS = 2;
/** Questions at a time. */
const PARALLEL = 32;

interface Member {
  readonly source: AgentSource;
  self: Self | undefined;
  peers: Peers | undefined;
  failure: string | undefined;
  /** When it said this. */
  saidAtMs: number;
  /** While it is being asked. */
  asking: Promise<void> | undefined;
}

export class Fleet {
  readonly #members: readonly Member[];
  readonly #options: Required<FleetOptions>;
  #running = 0;
  /** What reading the answers has taken since all were asked last. */
  #busyMs = 0;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  /** Of what is known; undefined when something has come since. */
  #overview: Overview | undefined;
  readonly #waiting: (() => void)[] = [];

  /** @param sources with names that differ. */
  constructor(sources: readonly AgentSource[], options: FleetOptions = {}) {
    this.#members = sources.map((source) => ({
      source,
      self: undefined,
      peers: undefined,
      failure: undefined,
      saidAtMs: Number.NEGATIVE_INFINITY,
      asking: undefined,
    }));
    this.#options = {
      answerMs: options.answerMs ?? ANSWER_MS,
      patienceMs: options.patienceMs ?? PATIENCE_MS,
      freshMs: options.freshMs ?? FRESH_MS,
      mostPerSecond: options.mostPerSecond ?? Number.POSITIVE_INFINITY,
      now: options.now ?? Date.now,
    };
  }

  get sources(): readonly AgentSource[] {
    return this.#members.map(({ source }) => source);
  }

  source(name: string): AgentSource | undefined {
    return this.#members.find(({ source }) => source.name === name)?.source;
  }

  /** What the agent of that name has just said to this question; undefined where it has to be asked. */
  said(name: string, path: string): Self | Peers | undefined {
    const member = this.#members.find(({ source }) => source.name === name);
    if (member === undefined || member.failure !== undefined) return undefined;
    if (this.#options.now() - member.saidAtMs >= SAID_MS) return undefined;
    return path === '/self' ? member.self : path === '/peers' ? member.peers : undefined;
  }

  /** Of now, as far as all agents answer quickly. Those that have never answered are waited for. */
  async overview(signal: AbortSignal): Promise<Overview> {
    const { now, freshMs, patienceMs, mostPerSecond } = this.#options;
    const leastMs = (this.#members.length * QUESTIONS * 1_000) / mostPerSecond;
    if (now() - this.#askedAtMs >= Math.max(freshMs, this.#busyMs / SHARE, leastMs)) {
      this.#askedAtMs = now();
      this.#busyMs = 0;
      for (const member of this.#members) {
        member.asking ??= this.#ask(member).finally(() => {
          member.asking = undefined;
        });
      }
    }
    const asking = this.#members.map((member) => member.asking);
    const first = this.#members.filter(({ self, failure }) => self === undefined && failure === undefined);
    await settledWithin(asking, patienceMs, signal);
    await settledWithin(
      first.map((member) => member.asking),
      FIRST_PATIENCE_MS,
      signal,
    );
    this.#overview ??= this.#timed(() => overviewOf(this.#members.map(reportOf), now()));
    return this.#overview;
  }

  #timed<T>(work: () => T): T {
    const startedMs = performance.now();
    try {
      return work();
    } finally {
      this.#busyMs += performance.now() - startedMs;
    }
  }

  /** Never rejects. */
  async #ask(member: Member): Promise<void> {
    if (this.#running >= PARALLEL) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#running++;
    const signal = AbortSignal.timeout(this.#options.answerMs);
    try {
      const [self, peers] = await Promise.all([
        this.#askJson<Self>(member.source, '/self', signal),
        this.#askJson<Peers>(member.source, '/peers', signal),
      ]);
      Object.assign(member, { self, peers, failure: undefined, saidAtMs: this.#options.now() });
    } catch (error) {
      member.failure = signal.aborted
        ? `it did not answer within ${this.#options.answerMs / 1000} s`
        : describeError(error);
    } finally {
      this.#overview = undefined;
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  /** The agent is of this version or a later one, whose answers have at least what this one reads. */
  async #askJson<T>(source: AgentSource, path: string, signal: AbortSignal): Promise<T> {
    const { status, body } = await source.ask(path, signal);
    if (status === 200) return this.#timed(() => JSON.parse(body.toString('utf8')) as T);
    throw new Error(`it answered ${path} with status ${status}: ${body.toString('utf8', 0, 200)}`);
  }
}

/** Resolves when all have ended, or after this time. @throws the reason of `signal`. */
async function settledWithin(
  promises: readonly (Promise<void> | undefined)[],
  limitMs: number,
  signal: AbortSignal,
): Promise<void> {
  signal.throwIfAborted();
  const limit = Promise.withResolvers<void>();
  const timer = setTimeout(limit.resolve, limitMs);
  const abort = (): void => limit.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([Promise.all(promises), limit.promise]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

function reportOf({ source, self, peers, failure }: Member): AgentReport {
  return { name: source.name, self, peers, failure };
}
