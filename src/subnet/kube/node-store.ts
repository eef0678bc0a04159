import { asError } from '../outage.ts';
import type { ReportSink } from '../report.ts';
import type { AnnotationKeys } from './annotations.ts';
import type { KubeApi } from './kube-api.ts';
import { type NodeRecord, nodeRecord, sameNodeRecord, withoutData } from './node-record.ts';
import { type ReflectorEvent, type ReflectorTiming, reflect } from './reflector.ts';

export interface NodeStoreOptions {
  readonly api: KubeApi;
  readonly annotations: AnnotationKeys;
  readonly ownName: string;
  /** Whether the addresses of other nodes are kept. */
  readonly addresses: boolean;
  readonly report: ReportSink;
  readonly timing: Partial<ReflectorTiming>;
  /** Ends the reflector. */
  readonly signal: AbortSignal;
}

/** What becomes of the own Node, and of the API server that tells of it. */
export type OwnNews =
  /** `undefined`: it does not exist. Only the latest state is told. */
  | { readonly type: 'node'; readonly node: NodeRecord | undefined }
  | { readonly type: 'unavailable'; readonly error: Error }
  | { readonly type: 'available' };

/** Who is told of all nodes. */
export interface NodeFeed {
  /** Whether what nodes publish for the backend is of use to it. */
  readonly backendData: boolean;
  /** All nodes there are; those in `unreadable` are as they were. */
  replaced(nodes: Iterable<NodeRecord>, unreadable: ReadonlySet<string>): void;
  set(node: NodeRecord): void;
  deleted(name: string): void;
}

/** All nodes of the cluster, kept current by one reflector from the first use on. */
export class NodeStore {
  readonly #options: NodeStoreOptions;
  readonly #nodes = new Map<string, NodeRecord>();
  readonly #feeds = new Set<NodeFeed>();
  readonly #listeners = new Set<OwnListener>();
  readonly #synced = Promise.withResolvers<void>();
  /** What other nodes publish for the backend, until it is known that nobody wants it. */
  #keepsData = true;
  #isSynced = false;
  /** Of one reflector. */
  #turn = new AbortController();
  #lastError: Error | undefined;
  #running: Promise<void> | undefined;

  /** Asks the server for nothing yet. */
  constructor(options: NodeStoreOptions) {
    this.#options = options;
  }

  /** Why the server is out of reach now; `undefined` when it is not. */
  get lastError(): Error | undefined {
    return this.#lastError;
  }

  /** The latest known state of the own Node. */
  get own(): NodeRecord | undefined {
    return this.#nodes.get(this.#options.ownName);
  }

  /** Resolves once all nodes were read. */
  synced(signal: AbortSignal): Promise<void> {
    this.#start();
    return new Promise((resolve, reject) => {
      const onAbort = () => reject(signal.reason);
      if (signal.aborted) return onAbort();
      signal.addEventListener('abort', onAbort, { once: true });
      void this.#synced.promise.then(() => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
    });
  }

  /** The feed gets all nodes once they are known, and all changes after that, until the returned function is called. */
  attach(feed: NodeFeed): () => void {
    this.#feeds.add(feed);
    this.#keepData([...this.#feeds].some(({ backendData }) => backendData));
    this.#start();
    if (this.#isSynced) feed.replaced(this.#nodes.values(), new Set());
    return () => this.#feeds.delete(feed);
  }

  /** Begins with the present state. Ends by throwing the signal's reason. */
  async *ownNews(signal: AbortSignal): AsyncGenerator<OwnNews, void, void> {
    signal.throwIfAborted();
    this.#start();
    const listener = new OwnListener();
    this.#listeners.add(listener);
    const wake = () => listener.wake();
    signal.addEventListener('abort', wake, { once: true });
    if (this.#isSynced) listener.tell({ type: 'node', node: this.own });
    if (this.#lastError !== undefined) listener.tell({ type: 'unavailable', error: this.#lastError });
    try {
      for (;;) {
        const news = await listener.next();
        signal.throwIfAborted();
        if (news !== undefined) yield news;
      }
    } finally {
      this.#listeners.delete(listener);
      signal.removeEventListener('abort', wake);
    }
  }

  /** Settles once the reflector has ended, after the signal was fired. */
  async ended(): Promise<void> {
    await this.#running;
  }

  #start(): void {
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    const { api, annotations, ownName, addresses, report, timing, signal } = this.#options;
    const reduce = (object: unknown): NodeRecord =>
      nodeRecord(object, annotations, ownName, { addresses, data: this.#keepsData });
    while (!signal.aborted) {
      this.#turn = new AbortController();
      const ends = AbortSignal.any([signal, this.#turn.signal]);
      try {
        for await (const event of reflect({ api, path: '/api/v1/nodes', reduce, report, timing }, ends)) {
          if (ends.aborted) break;
          this.#take(event);
        }
      } catch (error) {
        if (!ends.aborted) throw error;
      }
    }
  }

  /** What was not kept is read again: a backend that wants it has taken the place of one that does not. */
  #keepData(keep: boolean): void {
    if (keep === this.#keepsData) return;
    this.#keepsData = keep;
    if (!keep) {
      for (const node of this.#nodes.values()) {
        if (node.name !== this.#options.ownName) this.#nodes.set(node.name, withoutData(node));
      }
      return;
    }
    if (this.#running === undefined) return;
    this.#isSynced = false;
    this.#turn.abort(new Error('all nodes are read again'));
    // The next reflector says so itself if it does not reach the server.
    if (this.#lastError !== undefined) this.#take({ type: 'available' });
  }

  #take(event: ReflectorEvent<NodeRecord>): void {
    switch (event.type) {
      case 'replaced':
        this.#replace(event.items, event.unreadable);
        return;
      case 'set': {
        const before = this.#nodes.get(event.item.name);
        if (before !== undefined && sameNodeRecord(before, event.item)) return;
        this.#nodes.set(event.item.name, event.item);
        for (const feed of this.#feeds) feed.set(event.item);
        if (event.item.name === this.#options.ownName) this.#tell({ type: 'node', node: event.item });
        return;
      }
      case 'deleted':
        if (!this.#nodes.delete(event.name)) return;
        for (const feed of this.#feeds) feed.deleted(event.name);
        if (event.name === this.#options.ownName) this.#tell({ type: 'node', node: undefined });
        return;
      case 'unavailable':
        this.#lastError = asError(event.error);
        this.#tell(event);
        return;
      case 'available':
        this.#lastError = undefined;
        this.#tell(event);
        return;
    }
  }

  #replace(items: readonly NodeRecord[], unreadable: ReadonlySet<string>): void {
    const kept = [...unreadable].flatMap((name) => this.#nodes.get(name) ?? []);
    this.#nodes.clear();
    for (const node of [...kept, ...items]) this.#nodes.set(node.name, node);
    this.#isSynced = true;
    this.#synced.resolve();
    for (const feed of this.#feeds) feed.replaced(this.#nodes.values(), unreadable);
    this.#tell({ type: 'node', node: this.own });
  }

  #tell(news: OwnNews): void {
    for (const listener of this.#listeners) listener.tell(news);
  }
}

class OwnListener {
  readonly #queue: OwnNews[] = [];
  #wake: (() => void) | undefined;

  tell(news: OwnNews): void {
    if (news.type === 'node' && this.#queue.at(-1)?.type === 'node') this.#queue.pop();
    this.#queue.push(news);
    this.wake();
  }

  wake(): void {
    this.#wake?.();
  }

  /** Waits for news, or for `wake` alone: then `undefined`. */
  async next(): Promise<OwnNews | undefined> {
    if (this.#queue.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
    return this.#queue.shift();
  }
}
