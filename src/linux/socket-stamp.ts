import { SO_TIMESTAMPNS, SOL_SOCKET } from './constants.ts';

/** Room for the control message of SO_TIMESTAMPNS. */
export const STAMP_CONTROL_BYTES = 64;

/** When the kernel took the packet, in nanoseconds since the epoch: the first control message, if it is that one (cmsg(3)). */
export function stampNsOf(control: Uint8Array, length: number): bigint | undefined {
  if (length < 32) return undefined;
  const view = new DataView(control.buffer);
  const isStamp = view.getInt32(8, true) === SOL_SOCKET && view.getInt32(12, true) === SO_TIMESTAMPNS;
  return isStamp ? view.getBigInt64(16, true) * 1_000_000_000n + view.getBigInt64(24, true) : undefined;
}
