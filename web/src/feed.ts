/**
 * Looks at the hosts once a second, and sooner when one tells of something that has happened: weft ui answers then. Not while the
 * reader has paused or is looking elsewhere.
 */
import { effect, untracked } from '@preact/signals';
import type { Overview } from '../../src/ui/overview.ts';
import { isPaused, overview, takeOverview, trouble } from './state.ts';
import { pageToken } from './token.ts';

export const LOOK_MS = 1_000;
/** After a look at what weft ui answers when there is something to tell, or a second after it has asked the agents. */
const NEXT_LOOK_MS = 100;
const ANSWER_MS = 8_000;

/** @throws Error with what the server said. */
export async function getJson<T>(path: string, signal: AbortSignal): Promise<T> {
  const token = await pageToken();
  const limited = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
  let response: Response;
  try {
    const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
    response = await fetch(path, { signal: limited, headers });
  } catch (error) {
    signal.throwIfAborted();
    throw new Error(limited.aborted ? 'weft ui does not answer' : 'weft ui has ended', { cause: error });
  }
  if (!response.ok) {
    const text = await response.text();
    // An agent's is JSON. What is not is of weft ui, which was started again and has another token.
    const refusal = response.status === 401 ? text.trim() : `${path} was answered with status ${response.status}`;
    throw new Error(errorIn(text) ?? refusal);
  }
  return (await response.json()) as T;
}

function errorIn(text: string): string | undefined {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    return typeof error === 'string' ? error : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Calls `look` now and `everyMs` after each end of it, while the page is seen and not paused. The first time it does so in any case: a
 * screen that is opened while the page is paused has something to show. Returns how to stop.
 */
export function repeat(look: (signal: AbortSignal) => Promise<void>, everyMs: number = LOOK_MS): () => void {
  const over = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isLooking = false;
  let hasLooked = false;
  const turn = async (): Promise<void> => {
    clearTimeout(timer);
    if (isLooking || over.signal.aborted || document.hidden || (isPaused.value && hasLooked)) return;
    isLooking = true;
    const startedMs = performance.now();
    await look(over.signal).catch(() => undefined);
    isLooking = false;
    hasLooked = true;
    timer = setTimeout(turn, Math.max(50, everyMs - (performance.now() - startedMs)));
  };
  document.addEventListener('visibilitychange', turn);
  const unsubscribe = effect(() => {
    // What `look` reads is no reason to look again.
    if (!isPaused.value || !hasLooked) void untracked(turn);
  });
  return () => {
    over.abort();
    unsubscribe();
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', turn);
  };
}

export function startFeed(): () => void {
  return repeat(async (signal) => {
    try {
      const seen = overview.peek()?.atMs;
      const next = await getJson<Overview>(seen === undefined ? '/overview' : `/overview?after=${seen}`, signal);
      // It was asked for before the reader paused.
      if (seen === undefined || !isPaused.peek()) takeOverview(next);
      trouble.value = undefined;
    } catch (error) {
      if (signal.aborted) return;
      trouble.value = error instanceof Error ? error.message : String(error);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }, NEXT_LOOK_MS);
}
