/** The API of one host's agent, by way of `weft ui`. */
import { useEffect, useState } from 'preact/hooks';
import type { Answer, Endpoint } from '../../src/api/schema.ts';
import { getJson, LOOK_MS, repeat } from './feed.ts';

export function askAgent<E extends Endpoint>(
  host: string,
  path: E,
  signal: AbortSignal,
  query = '',
): Promise<Answer<E>> {
  return getJson<Answer<E>>(`/hosts/${encodeURIComponent(host)}/api/v1${path}${query}`, signal);
}

export interface Asked<T> {
  readonly answer: T | undefined;
  /** Why the last question failed; the answer is then the one before. */
  readonly failure: string | undefined;
}

/** Asks again and again while the component is there. */
export function useAgent<E extends Endpoint>(host: string, path: E, everyMs: number = LOOK_MS): Asked<Answer<E>> {
  const [asked, setAsked] = useState<Asked<Answer<E>>>({ answer: undefined, failure: undefined });
  useEffect(() => {
    setAsked({ answer: undefined, failure: undefined });
    return repeat(async (signal) => {
      try {
        const answer = await askAgent(host, path, signal);
        if (!signal.aborted) setAsked({ answer, failure: undefined });
      } catch (error) {
        const failure = error instanceof Error ? error.message : String(error);
        if (!signal.aborted) setAsked(({ answer }) => ({ answer, failure }));
      }
    }, everyMs);
  }, [host, path, everyMs]);
  return asked;
}
