/** Resolves on the first SIGINT or SIGTERM; the second one has its default effect, as with flannel. */
export interface StopSignal extends Disposable {
  readonly signal: AbortSignal;
  readonly promise: Promise<void>;
}

export function untilStopped(): StopSignal {
  const controller = new AbortController();
  const promise = new Promise<void>((resolve) => {
    controller.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const names = ['SIGINT', 'SIGTERM'] as const;
  const stop = (): void => {
    release();
    controller.abort(new Error('stopped by a signal'));
  };
  const release = (): void => {
    for (const name of names) process.removeListener(name, stop);
  };
  for (const name of names) process.on(name, stop);
  return { signal: controller.signal, promise, [Symbol.dispose]: release };
}
