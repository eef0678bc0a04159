import { setTimeout as delay } from 'node:timers/promises';
import { type Answer, type Peers, parseAnswer } from '../api/schema.ts';
import { describeError } from '../errors.ts';
import type { EventKind } from '../events/event.ts';
import { TokenBucket } from '../token-bucket.ts';
import type { AgentSource } from './agent-source.ts';
import { EventLogs, type EventQuestion, type EventsSince } from './event-logs.ts';
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
  /** Streams at a time; each is a connection to an agent. Those of more agents are not followed, but asked as ever. */
  readonly mostFollowed?: number;
  /** Who waits for the next overview gets it after that time, though nothing has happened. */
  readonly lookMs?: number;
  /** Nobody is kept waiting for longer, however seldom agents are asked. */
  readonly waitMs?: number;
  /** A stream of news that has ended is opened again after so long, twice as long each time that it could not be. */
  readonly followAgainMs?: number;
  readonly now?: () => number;
}

const ANSWER_MS = 2_000;
const PATIENCE_MS = 500;
/** A little less than the second after which a page looks again. */
const FRESH_MS = 700;
/** All agents are asked so often while somebody looks. */
const LOOK_MS = 1_000;
/** The page gives up after eight seconds. */
const WAIT_MS = 4_000;
/** After the last look, nobody looks any more. */
const LEAVE_MS = 10_000;
const MOST_FOLLOWED = 512;
const FOLLOW_AGAIN_MS = 1_000;
const MOST_FOLLOW_AGAIN_MS = 30_000;
/** One agent is not asked more often for what it has told of. */
const CATCH_UP_MS = 250;
/** What an overview shows at once; all else is there at the next look. */
const SHOWN_EVENTS: ReadonlySet<EventKind> = new Set(['path-fault', 'path-recovered', 'ready', 'not-ready']);
/** Of one processor, what reading the answers may take: with very many hosts, one looks less often. */
const SHARE = 1 / 10;
/** Agents that have never answered are waited for longer, so that a page does not begin with false alarms. */
const FIRST_PATIENCE_MS = 5_000;
/** Of what an agent has said, as long as it is what it would say now: it looks at its own figures twice a second. */
const SAID_MS = 1_000;
/** Questions at a time. */
const PARALLEL = 32;

interface Member {
  readonly source: AgentSource;
  peers: Peers | undefined;
  failure: string | undefined;
  /** When it said this. */
  saidAtMs: number;
  /** While it is being asked. */
  asking: Promise<void> | undefined;
  /** While it is asked for what has happened; `again`: something more has since. */
  catchingUp: 'once' | 'again' | undefined;
  /** While it is asked for its events. */
  telling: Promise<void> | undefined;
}

/** Asks all agents of a page, no more often than somebody looks at it. Disposing ends what it follows; it may be asked again. */
export class Fleet implements Disposable {
  readonly #members: readonly Member[];
  readonly #options: Required<FleetOptions>;
  #running = 0;
  /** What reading the answers has taken since all were asked last. */
  #busyMs = 0;
  #askedAtMs = Number.NEGATIVE_INFINITY;
  /** When an agent may be asked next for what it has told of. */
  #caughtUpAtMs = 0;
  /** Of what is known; undefined when something has come since. */
  #overview: Overview | undefined;
  #composedAtMs = 0;
  readonly #waiting: (() => void)[] = [];
  /** Ends the streams of news when nobody looks. */
  #following: AbortController | undefined;
  #leaving: NodeJS.Timeout | undefined;
  readonly #events: EventLogs;
  /** Of questions for events; `undefined`: there is no limit. */
  #eventBucket: TokenBucket | undefined;
  /** Of who waits for the next overview. */
  readonly #onNews = new Set<() => void>();

  /** @param sources with names that differ. */
  constructor(sources: readonly AgentSource[], options: FleetOptions = {}) {
    this.#members = sources.map((source) => ({
      source,
      peers: undefined,
      failure: undefined,
      saidAtMs: Number.NEGATIVE_INFINITY,
      asking: undefined,
      catchingUp: undefined,
      telling: undefined,
    }));
    this.#events = new EventLogs(sources.length);
    this.#options = {
      answerMs: options.answerMs ?? ANSWER_MS,
      patienceMs: options.patienceMs ?? PATIENCE_MS,
      freshMs: options.freshMs ?? FRESH_MS,
      mostPerSecond: options.mostPerSecond ?? Number.POSITIVE_INFINITY,
      mostFollowed: options.mostFollowed ?? MOST_FOLLOWED,
      lookMs: options.lookMs ?? LOOK_MS,
      waitMs: options.waitMs ?? WAIT_MS,
      followAgainMs: options.followAgainMs ?? FOLLOW_AGAIN_MS,
      now: options.now ?? Date.now,
    };
    const { mostPerSecond } = this.#options;
    if (Number.isFinite(mostPerSecond))
      this.#eventBucket = new TokenBucket(Math.max(1, mostPerSecond), 1_000 / mostPerSecond);
  }

  get sources(): readonly AgentSource[] {
    return this.#members.map(({ source }) => source);
  }

  source(name: string): AgentSource | undefined {
    return this.#member(name)?.source;
  }

  #member(name: string): Member | undefined {
    return this.#members.find(({ source }) => source.name === name);
  }

  /** What the agent of that name has just said to this question; undefined where it has to be asked. */
  said(name: string, path: string): Peers | undefined {
    const member = this.#member(name);
    if (member === undefined || member.failure !== undefined) return undefined;
    if (this.#options.now() - member.saidAtMs >= SAID_MS) return undefined;
    return path === '/peers' ? member.peers : undefined;
  }

  /** Of now, as far as all agents answer quickly. Those that have never answered are waited for. */
  async overview(signal: AbortSignal): Promise<Overview> {
    const { now, freshMs, patienceMs } = this.#options;
    if (now() - this.#askedAtMs >= Math.max(freshMs, this.#restMs)) {
      this.#askedAtMs = now();
      this.#busyMs = 0;
      for (const member of this.#members) void this.#startAsking(member);
    }
    const asking = this.#members.map((member) => member.asking);
    const first = this.#members.filter(({ peers, failure }) => peers === undefined && failure === undefined);
    await settledWithin(asking, patienceMs, signal);
    await settledWithin(
      first.map((member) => member.asking),
      FIRST_PATIENCE_MS,
      signal,
    );
    return this.#composed();
  }

  /**
   * The overview that follows the one of `seenAtMs`: at once when that is not the latest, else as soon as an agent tells of
   * something that has happened, and a second after all were asked last when none does.
   */
  async next(seenAtMs: number, signal: AbortSignal): Promise<Overview> {
    this.#follow();
    const { now, lookMs, waitMs } = this.#options;
    if (this.#overview?.atMs === seenAtMs) {
      const leftMs = Math.min(this.#askedAtMs + Math.max(lookMs, this.#restMs) - now(), waitMs);
      if (leftMs > 0 && (await this.#news(leftMs, signal))) return this.#composed();
    }
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    try {
      // What an agent tells does not wait for others that are slow.
      return await Promise.race([this.overview(either), this.#news(waitMs, either).then(() => this.#composed())]);
    } finally {
      over.abort();
    }
  }

  /**
   * What has happened on all hosts since an answer of this. Agents that are followed tell it; others say with each overview whether
   * they have anything to tell, and only those that have are asked for it. What one that is slow answers comes with a later answer.
   */
  async events(seen: number, signal: AbortSignal): Promise<EventsSince> {
    this.#follow();
    await this.overview(signal);
    for (const member of this.#members) this.#startTelling(member);
    const telling = this.#members.map((member) => member.telling);
    await settledWithin(telling, this.#options.patienceMs, signal);
    return this.#events.since(seen);
  }

  #startTelling(member: Member): void {
    const { source, peers, failure, telling } = member;
    if (telling !== undefined || peers === undefined || failure !== undefined) return;
    const question = this.#events.question(source.name, peers.self);
    if (question === undefined || this.#eventBucket?.take(performance.now()) === false) return;
    member.telling = this.#tell(source, question).finally(() => {
      member.telling = undefined;
    });
  }

  /** Never rejects. */
  async #tell(source: AgentSource, { after, limit }: EventQuestion): Promise<void> {
    await this.#oneOfMany(async (signal) => {
      const answer = await this.#askJson(source, '/events', signal, `?after=${after}&limit=${limit}`);
      this.#events.take(source.name, after, answer);
    }).catch(() => {
      // It is asked again. Whether it is away is found out by asking for more than that.
    });
  }

  /** Follows no agent any more. */
  [Symbol.dispose](): void {
    clearTimeout(this.#leaving);
    this.#following?.abort(new Error('nobody looks any more'));
    this.#following = undefined;
  }

  /** Of what is known. */
  #composed(): Overview {
    if (this.#overview !== undefined) return this.#overview;
    // No two have one time: it says which of them somebody has seen.
    this.#composedAtMs = Math.max(this.#options.now(), this.#composedAtMs + 1);
    const busyMs = this.#busyMs;
    this.#overview = this.#timed(() => overviewOf(this.#members.map(reportOf), this.#composedAtMs));
    this.#catchUpLater((this.#busyMs - busyMs) / SHARE);
    return this.#overview;
  }

  /** For how long all are not to be asked again: reading takes no more than its share, and nobody is asked too often. */
  get #restMs(): number {
    return Math.max(this.#busyMs / SHARE, this.#members.length * this.#leastMs);
  }

  /** Between two questions. */
  get #leastMs(): number {
    return 1_000 / this.#options.mostPerSecond;
  }

  /** Whether there was any before that time was over. @throws the reason of `signal`. */
  async #news(withinMs: number, signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted();
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const tell = (): void => resolve(true);
    const timer = setTimeout(() => resolve(false), withinMs);
    const end = (): void => resolve(false);
    this.#onNews.add(tell);
    signal.addEventListener('abort', end, { once: true });
    const isNews = await promise;
    clearTimeout(timer);
    this.#onNews.delete(tell);
    signal.removeEventListener('abort', end);
    signal.throwIfAborted();
    return isNews;
  }

  #follow(): void {
    clearTimeout(this.#leaving);
    this.#leaving = setTimeout(() => this[Symbol.dispose](), LEAVE_MS).unref();
    if (this.#following !== undefined) return;
    const { signal } = (this.#following = new AbortController());
    for (const member of this.#members.slice(0, this.#options.mostFollowed)) void this.#followOne(member, signal);
  }

  /** Never rejects. */
  async #followOne(member: Member, signal: AbortSignal): Promise<void> {
    const { source } = member;
    const { followAgainMs } = this.#options;
    let againMs = followAgainMs;
    while (source.news !== undefined && !signal.aborted) {
      const sinceMs = performance.now();
      try {
        this.#events.missed(source.name);
        for await (const news of source.news(signal)) {
          if (news !== 'changed') this.#events.hear(source.name, news);
          if (news === 'changed' || SHOWN_EVENTS.has(news.kind)) this.#catchUp(member);
        }
      } catch {
        // Why is found out by asking.
      }
      if (signal.aborted) return;
      const hasFollowed = performance.now() - sinceMs >= followAgainMs;
      // It has ended, and so may have its agent.
      if (hasFollowed) this.#catchUp(member);
      againMs = hasFollowed ? followAgainMs : Math.min(2 * againMs, MOST_FOLLOW_AGAIN_MS);
      await delay(againMs, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  /** Asks an agent that has told of something, and tells who waits. */
  #catchUp(member: Member): void {
    if (member.catchingUp === undefined) void this.#catchUpOnce(member);
    else member.catchingUp = 'again';
  }

  /** Never rejects. */
  async #catchUpOnce(member: Member): Promise<void> {
    const state = (): Member['catchingUp'] => member.catchingUp;
    do {
      member.catchingUp = 'once';
      // What is under way may have been answered before.
      await member.asking;
      const restMs = this.#caughtUpAtMs - performance.now();
      if (restMs > 0) await delay(restMs, undefined, { ref: false });
      member.catchingUp = 'once';
      const busyMs = this.#busyMs;
      await this.#startAsking(member);
      // All may have been asked meanwhile, and the count have begun anew.
      this.#catchUpLater(Math.max((this.#busyMs - busyMs) / SHARE, this.#leastMs));
      for (const tell of this.#onNews) tell();
      await delay(CATCH_UP_MS, undefined, { ref: false });
    } while (state() === 'again');
    member.catchingUp = undefined;
  }

  /** With very many hosts, one is told less often as well. */
  #catchUpLater(restMs: number): void {
    this.#caughtUpAtMs = Math.max(this.#caughtUpAtMs, performance.now()) + restMs;
  }

  #startAsking(member: Member): Promise<void> {
    member.asking ??= this.#ask(member).finally(() => {
      member.asking = undefined;
    });
    return member.asking;
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
    await this.#oneOfMany(async (signal) => {
      try {
        member.peers = await this.#askJson(member.source, '/peers', signal);
        member.failure = undefined;
        member.saidAtMs = this.#options.now();
      } catch (error) {
        member.failure = signal.aborted
          ? `it did not answer within ${this.#options.answerMs / 1000} s`
          : describeError(error);
      } finally {
        this.#overview = undefined;
      }
    });
  }

  /** In its turn, and not for longer than an agent may take. */
  async #oneOfMany(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.#running >= PARALLEL) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#running++;
    try {
      await work(AbortSignal.timeout(this.#options.answerMs));
    } finally {
      this.#running--;
      this.#waiting.shift()?.();
    }
  }

  /** Of this version or a later one, whose answers have at least what this one reads; what is none must not hide the other hosts. */
  async #askJson<E extends '/peers' | '/events'>(
    source: AgentSource,
    path: E,
    signal: AbortSignal,
    query = '',
  ): Promise<Answer<E>> {
    const { status, body } = await source.ask(`${path}${query}`, signal);
    if (status === 200) return this.#timed(() => parseAnswer(path, JSON.parse(body.toString('utf8'))));
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

function reportOf({ source, peers, failure }: Member): AgentReport {
  return { name: source.name, peers, failure };
}
