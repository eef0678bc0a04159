import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Inspection } from './inspection.ts';
import type { Peer, PeersChange, Self } from './schema.ts';

/** State is not sent more often. */
export const STREAM_INTERVAL_MS = 1_000;
/** Of the time of the control plane, what one turn takes is at most this part: with very many peers, turns come less often. */
const SHARE = 1 / 50;
const EVENTS_AT_ONCE = 1_000;
/** What follows an event so soon is sent with it. */
const GATHER_MS = 20;
/** A reader of events alone is told so often that there are none. */
const ALIVE_MS = 10_000;

export interface StreamMessage {
  readonly event: 'event' | 'peers' | 'self' | 'alive' | 'changed';
  readonly data: string;
  /** Of the event, so that who connects again is sent what it has missed. */
  readonly id?: string;
}

/** Of what is sent to one reader. */
export interface StreamOptions {
  /** Events after this one come first; `undefined`: those from now on. */
  readonly after: number | undefined;
  /** Events, and nothing that has to be looked for each second. */
  readonly onlyEvents?: boolean;
  /** Resolves when the reader has room for more. */
  readonly send: (message: StreamMessage) => Promise<void>;
  readonly intervalMs?: number;
}

/**
 * Tells one reader what changes: `event` for each event, at once; `self`, and `peers` (all of them first, then those that have
 * changed), each at most once a second; who has events alone is told by `changed` of what is no event because there are too many.
 * Nothing is kept for a reader that is slow: it gets the state of the moment when it has read the last. Ends when the signal fires;
 * rejects when `send` does.
 */
export async function followAgent(
  inspection: Inspection,
  { after, onlyEvents = false, send, intervalMs = STREAM_INTERVAL_MS }: StreamOptions,
  signal: AbortSignal,
): Promise<void> {
  const { events } = inspection;
  let lastId = after ?? events.after(0, 0).newestId;
  let { hints } = events;
  const isNews = (): boolean => events.hints !== hints || events.after(lastId, 0).newestId > lastId;
  const tellEvents = async (): Promise<void> => {
    // State is sent each second anyway.
    const isHinted = events.hints !== hints;
    hints = events.hints;
    if (onlyEvents && isHinted) await send({ event: 'changed', data: '{}' });
    const found = events.after(lastId, EVENTS_AT_ONCE);
    for (const event of found.events) await send({ event: 'event', data: JSON.stringify(event), id: String(event.id) });
    lastId = found.events.at(-1)?.id ?? Math.min(lastId, found.newestId);
  };
  let peers: ReadonlyMap<string, Peer> | undefined;
  let self: Self | undefined;
  while (!signal.aborted) {
    let restMs = ALIVE_MS;
    if (onlyEvents) {
      await tellEvents();
      await send({ event: 'alive', data: '{}' });
    } else {
      const startedMs = performance.now();
      const nextSelf = inspection.self();
      const { atMs, peers: list } = inspection.peers();
      const change = changeOf(atMs, peers, list);
      restMs = Math.max(intervalMs, (performance.now() - startedMs) / SHARE);
      await tellEvents();
      if (!sameSelf(self, nextSelf)) await send({ event: 'self', data: JSON.stringify(nextSelf) });
      if (change !== undefined) await send({ event: 'peers', data: JSON.stringify(change) });
      self = nextSelf;
      peers = new Map(list.map((peer) => [peer.id, peer]));
    }
    const nextAtMs = performance.now() + restMs;
    while (await comes(events, isNews, nextAtMs, signal)) {
      await delay(GATHER_MS, undefined, { signal, ref: false }).catch(() => {});
      await tellEvents();
    }
  }
}

/** Whether there is any until then. */
async function comes(
  events: Inspection['events'],
  isNews: () => boolean,
  untilMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const over = new AbortController();
  using _listening = events.listen(() => over.abort());
  const leftMs = untilMs - performance.now();
  // Events without end must not keep the rest from being told.
  if (leftMs <= 0) return false;
  if (!isNews())
    await delay(leftMs, undefined, { signal: AbortSignal.any([signal, over.signal]), ref: false }).catch(() => {});
  return isNews() && !signal.aborted;
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
