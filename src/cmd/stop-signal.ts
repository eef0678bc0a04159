/** Resolves on the first SIGINT or SIGTERM; the second one has its default effect, as with flannel. */
export interface StopSignal extends Disposable {
  readonly signal: AbortSignal;
  readonly promise: Promise<void>;
  /** As a signal would, for another reason. */
  stop(reason: Error): void;
}

export function untilStopped(): StopSignal {
  const controller = new AbortController();
  const promise = new Promise<void>((resolve) => {
    controller.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const names = ['SIGINT', 'SIGTERM'] as const;
  const onSignal = (): void => stop(new Error('stopped by a signal'));
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
