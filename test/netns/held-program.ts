import { HOST_DEVICE } from '../../src/lab/namespaces.ts';
import { readDeviceFacts } from '../../src/linux/ethtool.ts';

/** The index of eth0 in the namespace that this process runs in. */
export function hostDeviceIndex(): number {
  const device = readDeviceFacts(HOST_DEVICE);
  if (typeof device === 'number') throw new Error(`there is no ${HOST_DEVICE} here (errno ${device})`);
  return device.index;
}

/** Says `ready`, for who has started this process, and waits for SIGTERM: what it holds ends with it. */
export async function readyUntilStopped(): Promise<void> {
  process.stdout.write('ready\n');
  const stopped = Promise.withResolvers<void>();
  process.once('SIGTERM', () => stopped.resolve());
  // Keeps the process alive.
  const timer = setInterval(() => {}, 3_600_000);
  await stopped.promise;
  clearInterval(timer);
}
