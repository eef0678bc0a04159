/** What a check found. `warn`: it works, and something may surprise; `fail`: pods of this node have no network, or will not. */
export type Finding =
  | { readonly status: 'ok'; readonly found: string }
  | {
      readonly status: 'warn' | 'fail';
      readonly found: string;
      readonly remedy: string;
      /** The peer whose doing it is; this host unless given. */
      readonly where?: string;
      /** The check itself has failed: nothing was found out. */
      readonly isUnknown?: true;
    };

export interface Check {
  /** Kebab-case; scripts may match it. */
  readonly name: string;
  /** What it looks at, for people. */
  readonly looksAt: string;
  /** Must change nothing on the host. */
  readonly run: (signal: AbortSignal) => Promise<Finding>;
}

export type CheckResult = Pick<Check, 'name' | 'looksAt'> & Finding;

export const ok = (found: string): Finding => ({ status: 'ok', found });
export const warn = (found: string, remedy: string): Finding => ({ status: 'warn', found, remedy });
export const fail = (found: string, remedy: string): Finding => ({ status: 'fail', found, remedy });

/**
 * Runs all checks at once, in whatever state the host is: one that throws, or does not end within `timeoutMs`, has failed
 * and hides no other. The results are in the order of the checks.
 */
export async function runChecks(
  checks: readonly Check[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<readonly CheckResult[]> {
  return Promise.all(
    checks.map(async ({ name, looksAt, run }) => ({ name, looksAt, ...(await findingOf(run, timeoutMs, signal)) })),
  );
}

async function findingOf(run: Check['run'], timeoutMs: number, signal: AbortSignal): Promise<Finding> {
  signal.throwIfAborted();
  const timeout = AbortSignal.timeout(timeoutMs);
  const either = AbortSignal.any([signal, timeout]);
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(either.reason);
  either.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([run(either), aborted]);
  } catch (error) {
    signal.throwIfAborted();
    const why = timeout.aborted ? `no answer within ${timeoutMs} ms` : (error as Error).message;
    const remedy = 'Run weft doctor as root, on the host or in the container of the agent.';
    return { status: 'fail', found: `the check failed: ${why}`, remedy, isUnknown: true };
  } finally {
    either.removeEventListener('abort', onAbort);
  }
}
