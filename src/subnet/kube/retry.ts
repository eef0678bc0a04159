import { WeftError } from '../../errors.ts';
import { sleep } from '../backoff.ts';
import { Outage } from '../outage.ts';
import type { ReportSink } from '../report.ts';
import { ApiStatusError } from './kube-api.ts';

const RETRY = { firstMs: 500, maxMs: 10_000 };

/**
 * Repeats an API request for as long as the server cannot be reached or is overloaded, with a log line for each try. A
 * refusal (any other error status) is thrown as it is, and so is what is wrong on our own side.
 */
export async function retryTemporary<T>(
  failure: string,
  attempt: () => Promise<T>,
  report: ReportSink,
  signal: AbortSignal,
): Promise<T> {
  const outage = new Outage({ failure, report, retry: RETRY });
  for (;;) {
    try {
      const result = await attempt();
      outage.over();
      return result;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof WeftError || (error instanceof ApiStatusError && !error.temporary)) throw error;
      const waitMs = outage.failed(error);
      const wantedMs = error instanceof ApiStatusError ? (error.retryAfterMs ?? 0) : 0;
      await sleep(Math.max(waitMs, wantedMs), signal);
    }
  }
}

/** How flannel retries what it is refused. */
export interface RefusalRetry {
  readonly everyMs: number;
  readonly forMs: number;
}

export const REFUSAL_RETRY: RefusalRetry = { everyMs: 3_000, forMs: 30_000 };

/**
 * As {@link retryTemporary}, and a refusal is tried again every 3 s for 30 s as well: the account's rights may be granted
 * a moment after the agent was. 404 is thrown at once, for the caller to judge.
 */
export async function retryRefused<T>(
  failure: string,
  attempt: () => Promise<T>,
  report: ReportSink,
  signal: AbortSignal,
  { everyMs, forMs }: RefusalRetry,
): Promise<T> {
  const until = performance.now() + forMs;
  for (;;) {
    try {
      return await retryTemporary(failure, attempt, report, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof ApiStatusError) || error.status === 404 || performance.now() + everyMs > until)
        throw error;
      report({ type: 'store-failed', failure, error, retryInMs: everyMs });
      await sleep(everyMs, signal);
    }
  }
}

/** A refusal, for people. */
export function refused(message: string, error: ApiStatusError): WeftError {
  const hint =
    error.status === 401
      ? 'The API server rejects the credentials: check the token or certificate of the kubeconfig or service account.'
      : error.status === 403
        ? 'The account lacks permissions. It needs: get on pods; get, list and watch on nodes; patch on nodes/status (deploy/kube-flannel.yml has the ClusterRole).'
        : 'The API server rejected the request. The message says why.';
  return new WeftError('WEFT_KUBE_REFUSED', message, { hint, cause: error });
}
