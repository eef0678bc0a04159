/** Resolves on the first SIGINT or SIGTERM; the second one has its default effect, as with flannel. */
export interface StopSignal extends Disposable {
  readonly signal: AbortSignal;
  readonly promise: Promise<void>;
  /** As a signal would, for another reason. */
  stop(reason: Error): void;
}

/**
 * @param holdBack asked at the first signal: what the stop waits for, if it is to wait.
 */
export function untilStopped(holdBack?: () => Promise<void> | undefined): StopSignal {
  const controller = new AbortController();
  const promise = new Promise<void>((resolve) => {
    controller.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const names = ['SIGINT', 'SIGTERM'] as const;
  const onSignal = (): void => {
    release();
    const reason = new Error('stopped by a signal');
    const wait = holdBack?.();
    if (wait === undefined) stop(reason);
    else void wait.finally(() => stop(reason));
  };
  const stop = (reason: Error): void => {
    release();
    controller.abort(reason);
  };
  const release = (): void => {
    for (const name of names) process.removeListener(name, onSignal);
  };
  for (const name of names) process.on(name, onSignal);
  return { signal: controller.signal, promise, stop, [Symbol.dispose]: release };
}
