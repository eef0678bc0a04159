import { OBJECT_BOUNDS } from '../../lease/go-json.ts';
import { JsonBoundsError, parseJsonWithin, textWithin } from '../../lease/json-value.ts';
import { Backoff, type BackoffRange, sleep } from '../backoff.ts';
import { asError, Outage } from '../outage.ts';
import type { ReportSink } from '../report.ts';
import { ApiStatusError, type KubeApi } from './kube-api.ts';
import { LineParser, type ListEnvelope, ListParser } from './list-parser.ts';

export type ReflectorEvent<T> =
  /**
   * All objects there are. `unreadable` names those among them that could not be read: whoever knew them before should
   * go on with what it knew.
   */
  | { readonly type: 'replaced'; readonly items: readonly T[]; readonly unreadable: ReadonlySet<string> }
  | { readonly type: 'set'; readonly item: T }
  | { readonly type: 'deleted'; readonly name: string }
  /** The API server cannot be reached, or refuses; once per outage. The reflector goes on trying. */
  | { readonly type: 'unavailable'; readonly error: Error }
  | { readonly type: 'available' };

export interface ReflectorOptions<T> {
  readonly api: KubeApi;
  /** The collection, e.g. `/api/v1/nodes`. */
  readonly path: string;
  /** What to keep of an object. @throws Error saying why it cannot be read; it is then reported and skipped. */
  readonly reduce: (object: unknown) => T;
  readonly report: ReportSink;
  readonly timing?: Partial<ReflectorTiming> | undefined;
  /** In [0, 1). */
  readonly random?: (() => number) | undefined;
}

export interface ReflectorTiming {
  /** A watch asks the server to end it after a time drawn from this range, in seconds. */
  readonly watchSeconds: readonly [number, number];
  /**
   * A watch that is silent for longer is taken for dead and opened again. An API server sends a bookmark every minute;
   * without this a connection that a firewall forgot would go unnoticed until the watch's own end.
   */
  readonly silenceMs: number;
  readonly retry: BackoffRange;
}

export const REFLECTOR_TIMING: ReflectorTiming = {
  watchSeconds: [240, 480],
  silenceMs: 100_000,
  retry: { firstMs: 500, maxMs: 15_000 },
};

const PAGE_SIZE = '500';
/** So often in a row may watches end in errors without any progress before everything is listed again. */
const MAX_FRUITLESS_WATCHES = 3;
/** A watch that lasted this long was a good one, even if nothing happened in it. */
const GOOD_WATCH_MS = 10_000;

/**
 * Follows a collection of the Kubernetes API: lists it, then watches from the list's version on, and never gives up.
 * Ends of a watch that are part of life (the server's time limit, a dropped connection) are followed by another watch
 * from the last seen version; a version that the server has forgotten (410 Gone) by another list.
 *
 * The consumer's pace is the reflector's: nothing is read from the server while an event waits to be taken.
 * Ends only by throwing the signal's reason.
 */
export function reflect<T>(
  options: ReflectorOptions<T>,
  signal: AbortSignal,
): AsyncGenerator<ReflectorEvent<T>, never> {
  return new Reflector(options, signal).run();
}

class Reflector<T> {
  readonly #options: ReflectorOptions<T>;
  readonly #signal: AbortSignal;
  readonly #timing: ReflectorTiming;
  readonly #random: () => number;
  readonly #outage: Outage;
  readonly #reopen: Backoff;
  /** The version up to which everything was delivered. */
  #version = '';

  constructor(options: ReflectorOptions<T>, signal: AbortSignal) {
    this.#options = options;
    this.#signal = signal;
    this.#timing = { ...REFLECTOR_TIMING, ...options.timing };
    this.#random = options.random ?? Math.random;
    const { retry } = this.#timing;
    const failure = `Error watching ${options.path} of the Kubernetes API`;
    this.#outage = new Outage({ failure, report: options.report, retry, random: this.#random });
    this.#reopen = new Backoff(retry, this.#random);
  }

  async *run(): AsyncGenerator<ReflectorEvent<T>, never> {
    // Any version that the server has at hand, as flannel asks for it: thousands of agents that start together must not
    // each cost etcd a full read. Later lists ask for the newest.
    let from: string | undefined = '0';
    for (;;) {
      try {
        const all = await this.#list(from);
        yield* this.#recovered();
        yield all;
      } catch (error) {
        this.#signal.throwIfAborted();
        const retryAtOnce = isExpired(error) && from !== undefined;
        from = undefined;
        if (!retryAtOnce) yield* this.#failed(error);
        continue;
      }
      from = undefined;
      const reason: string = yield* this.#watchUntilLost();
      this.#options.report({ type: 'note', severity: 'info', text: `Listing ${this.#options.path} again: ${reason}` });
    }
  }

  async #list(from: string | undefined): Promise<ReflectorEvent<T> & { type: 'replaced' }> {
    const items: T[] = [];
    const unreadable = new Set<string>();
    const onItem = (json: string): void => {
      let object: unknown;
      try {
        object = parseJsonWithin(json, OBJECT_BOUNDS);
        items.push(this.#options.reduce(object));
      } catch (error) {
        const name = nameOf(object) ?? textWithin(json, ['metadata', 'name']);
        if (name !== undefined) unreadable.add(name);
        this.#unreadable(name, error);
      }
    };
    let query: Record<string, string> = { limit: PAGE_SIZE, ...(from === undefined ? {} : { resourceVersion: from }) };
    for (;;) {
      let page: ListEnvelope;
      try {
        page = await this.#page(query, onItem);
      } catch (error) {
        if (!isExpired(error) || query.continue === undefined) throw error;
        // The list changed too much while we paged through it: take it in one piece.
        items.length = 0;
        unreadable.clear();
        query = {};
        continue;
      }
      this.#version = page.resourceVersion;
      if (page.continueToken === '') return { type: 'replaced', items, unreadable };
      query = { limit: PAGE_SIZE, continue: page.continueToken };
    }
  }

  async #page(query: Record<string, string>, onItem: (json: string) => void): Promise<ListEnvelope> {
    const parser = new ListParser(onItem);
    const { api, path } = this.#options;
    for await (const chunk of await api.stream({ method: 'GET', path, query, gzip: true }, this.#signal)) {
      parser.push(chunk);
    }
    return parser.end();
  }

  /** Watches again and again; returns why another list is needed. */
  async *#watchUntilLost(): AsyncGenerator<ReflectorEvent<T>, string> {
    let fruitless = 0;
    let disconnected = false;
    for (;;) {
      const openedAt = performance.now();
      const before = this.#version;
      let opened = false;
      try {
        if (disconnected && (await this.#hasGoneBack())) return 'the server has an older state than before';
        const body = await this.#openWatch();
        opened = true;
        disconnected = false;
        yield* this.#recovered();
        yield* this.#readWatch(body);
      } catch (error) {
        this.#signal.throwIfAborted();
        if (isExpired(error)) return 'the version that was watched is no longer known to the server';
        disconnected = true;
        if (!opened) yield* this.#failed(error);
        if (!opened && !(error instanceof ApiStatusError)) continue;
      }
      const progressed = this.#version !== before || performance.now() - openedAt >= GOOD_WATCH_MS;
      fruitless = progressed ? 0 : fruitless + 1;
      if (progressed) this.#reopen.reset();
      if (disconnected && fruitless >= MAX_FRUITLESS_WATCHES) return `${fruitless} watches in a row failed`;
      // A watch that ended at its time limit is followed by the next one at once; a dropped one after a short while,
      // since a server that restarts drops all of its watches in the same moment.
      if (opened && (disconnected || !progressed)) await sleep(this.#reopen.nextMs(), this.#signal);
    }
  }

  /**
   * Whether the server's newest version is below ours: its etcd was restored from a backup. It would accept a watch from
   * a version of the future and then stay silent.
   */
  async #hasGoneBack(): Promise<boolean> {
    const { resourceVersion } = await this.#page({ limit: '1' }, () => {});
    const [newest, ours] = [numberOf(resourceVersion), numberOf(this.#version)];
    return newest !== undefined && ours !== undefined && newest < ours;
  }

  #openWatch(): Promise<AsyncIterable<Buffer>> {
    const [min, max] = this.#timing.watchSeconds;
    const query = {
      allowWatchBookmarks: 'true',
      resourceVersion: this.#version,
      timeoutSeconds: String(Math.round(min + this.#random() * (max - min))),
      watch: 'true',
    };
    const { api, path } = this.#options;
    return api.stream({ method: 'GET', path, query, idleTimeoutMs: this.#timing.silenceMs }, this.#signal);
  }

  async *#readWatch(body: AsyncIterable<Buffer>): AsyncGenerator<ReflectorEvent<T>> {
    const parser = new LineParser();
    for await (const chunk of body) {
      for (const line of parser.push(chunk)) {
        let message: unknown;
        try {
          message = parseJsonWithin(line, OBJECT_BOUNDS);
        } catch (error) {
          // Reading it again would not make it smaller; a line that is no JSON may be one that was cut off.
          if (!(error instanceof JsonBoundsError)) throw error;
          const event = this.#eventBeyondBounds(line, error);
          if (event !== undefined) yield event;
          continue;
        }
        const event = this.#eventOf(message as { type?: unknown; object?: unknown } | null);
        if (event !== undefined) yield event;
      }
    }
  }

  /** Of a change that is too much to be parsed nothing is known but whose it is; that is enough where the object has gone. */
  #eventBeyondBounds(line: string, error: JsonBoundsError): ReflectorEvent<T> | undefined {
    const name = textWithin(line, ['object', 'metadata', 'name']);
    const version = textWithin(line, ['object', 'metadata', 'resourceVersion']);
    if (version !== undefined) this.#version = version;
    if (name !== undefined && textWithin(line, ['type']) === 'DELETED') return { type: 'deleted', name };
    this.#unreadable(name, error);
    return undefined;
  }

  /** @throws ApiStatusError for an ERROR event. */
  #eventOf(message: { type?: unknown; object?: unknown } | null): ReflectorEvent<T> | undefined {
    const object = message?.object;
    if (message?.type === 'ERROR') throw this.#watchError(object);
    const name = nameOf(object);
    const version = versionOf(object);
    let event: ReflectorEvent<T> | undefined;
    switch (message?.type) {
      case 'ADDED':
      case 'MODIFIED':
        try {
          event = { type: 'set', item: this.#options.reduce(object) };
        } catch (error) {
          this.#unreadable(name, error);
        }
        break;
      case 'DELETED':
        if (name === undefined) this.#unreadable(name, new Error('a deleted object without a name'));
        else event = { type: 'deleted', name };
        break;
      case 'BOOKMARK':
        break;
      default:
        this.#unreadable(name, new Error(`an event of the unknown type ${JSON.stringify(message?.type)}`));
    }
    if (version !== undefined) this.#version = version;
    return event;
  }

  #watchError(status: unknown): ApiStatusError {
    const { code, reason, message } = (status ?? {}) as Record<string, unknown>;
    return new ApiStatusError(
      `watching ${this.#options.path}`,
      Number(code ?? 0),
      String(reason ?? ''),
      String(message),
    );
  }

  #unreadable(name: string | undefined, error: unknown): void {
    const key = name ?? `an unnamed object of ${this.#options.path}`;
    this.#options.report({ type: 'entry-unreadable', key, reason: asError(error).message });
  }

  async *#failed(error: unknown): AsyncGenerator<ReflectorEvent<T>> {
    const waitMs = this.#outage.failed(error);
    if (this.#outage.announce()) yield { type: 'unavailable', error: asError(error) };
    const wantedMs = error instanceof ApiStatusError ? (error.retryAfterMs ?? 0) : 0;
    await sleep(Math.max(waitMs, wantedMs), this.#signal);
  }

  *#recovered(): Generator<ReflectorEvent<T>> {
    const { announced } = this.#outage;
    this.#outage.over();
    if (announced) yield { type: 'available' };
  }
}

/** 410: the version, or the continue token, is too old. */
function isExpired(error: unknown): boolean {
  return error instanceof ApiStatusError && error.status === 410;
}

function metadataOf(object: unknown): Record<string, unknown> {
  const metadata = typeof object === 'object' && object !== null && 'metadata' in object ? object.metadata : undefined;
  return typeof metadata === 'object' && metadata !== null ? (metadata as Record<string, unknown>) : {};
}

function nameOf(object: unknown): string | undefined {
  const { name } = metadataOf(object);
  return typeof name === 'string' && name !== '' ? name : undefined;
}

function versionOf(object: unknown): string | undefined {
  const { resourceVersion } = metadataOf(object);
  return typeof resourceVersion === 'string' && resourceVersion !== '' ? resourceVersion : undefined;
}

function numberOf(version: string): bigint | undefined {
  return /^\d+$/.test(version) ? BigInt(version) : undefined;
}
