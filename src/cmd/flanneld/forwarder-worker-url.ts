import { getAsset, isSea } from 'node:sea';

/** What a packet worker thread starts from: the source, or in the single executable its bundle, which is an asset. */
export function forwarderWorkerUrl(): URL {
  if (!isSea()) return new URL('./forwarder-worker.ts', import.meta.url);
  return new URL(`data:text/javascript;base64,${Buffer.from(getAsset('forwarder-worker.js')).toString('base64')}`);
}
