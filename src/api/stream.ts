import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Inspection } from './inspection.ts';
import type { Peer, PeersChange, Self } from './schema.ts';

/** Nothing is sent more often. */
export const STREAM_INTERVAL_MS = 1_000;
/** Of the time of the control plane, what one turn takes is at most this part: with very many peers, turns come less often. */
const SHARE = 1 / 50;
const EVENTS_AT_ONCE = 1_000;

export interface StreamMessage {
  readonly event: 'event' | 'peers' | 'self';
  readonly data: string;
  /** Of the event, so that who connects again is sent what it has missed. */
  readonly id?: string;
}

/** Of what is sent to one reader. */
export interface StreamOptions {
  /** Events after this one come first; `undefined`: those from now on. */
  readonly after: number | undefined;
  /** Resolves when the reader has room for more. */
  readonly send: (message: StreamMessage) => Promise<void>;
  readonly intervalMs?: number;
}

/**
 * Tells one reader what changes: `event` for each event, `self`, and `peers` (all of them first, then those that have changed),
 * each at most once a second. Nothing is kept for a reader that is slow: it gets the state of the moment when it has read the
 * last. Ends when the signal fires; rejects when `send` does.
 */
export async function followAgent(
  inspection: Inspection,
  { after, send, intervalMs = STREAM_INTERVAL_MS }: StreamOptions,
  signal: AbortSignal,
): Promise<void> {
  let lastId = after ?? inspection.events.after(0, 0).newestId;
  let peers: ReadonlyMap<string, Peer> | undefined;
  let self: Self | undefined;
  while (!signal.aborted) {
    const startedMs = performance.now();
    const nextSelf = inspection.self();
    const { atMs, peers: list } = inspection.peers();
    const change = changeOf(atMs, peers, list);
    const { events, newestId } = inspection.events.after(lastId, EVENTS_AT_ONCE);
    const tookMs = performance.now() - startedMs;
    for (const event of events) await send({ event: 'event', data: JSON.stringify(event), id: String(event.id) });
    lastId = events.at(-1)?.id ?? Math.min(lastId, newestId);
    if (!sameSelf(self, nextSelf)) await send({ event: 'self', data: JSON.stringify(nextSelf) });
    if (change !== undefined) await send({ event: 'peers', data: JSON.stringify(change) });
    self = nextSelf;
    peers = new Map(list.map((peer) => [peer.id, peer]));
    await delay(Math.max(intervalMs, tookMs / SHARE), undefined, { signal, ref: false }).catch(() => {});
  }
}

function changeOf(
  atMs: number,
  before: ReadonlyMap<string, Peer> | undefined,
  peers: readonly Peer[],
): PeersChange | undefined {
  if (before === undefined) return { atMs, isFull: true, peers: [...peers], removed: [] };
  const changed = peers.filter((peer) => !isDeepStrictEqual(before.get(peer.id), peer));
  const ids = new Set(peers.map(({ id }) => id));
  const removed = [...before.keys()].filter((id) => !ids.has(id));
  if (changed.length === 0 && removed.length === 0) return undefined;
  return { atMs, isFull: false, peers: changed, removed };
}

function sameSelf(before: Self | undefined, now: Self): boolean {
  return before !== undefined && isDeepStrictEqual({ ...before, atMs: 0 }, { ...now, atMs: 0 });
}
