const MIB = 1024 * 1024;
const MOST_MIB = 64;
/** A machine that emulates its processor would need minutes for the most. */
const SECONDS = 5;

/** Bytes of the file that is sent, whole MiB: what the stream before has carried in some seconds. @param gbps `undefined` without one. */
export function fileBytes(gbps: number | undefined): number {
  const mib = gbps === undefined ? MOST_MIB : Math.floor(((gbps * 1e9) / 8 / MIB) * SECONDS);
  return Math.min(Math.max(mib, 1), MOST_MIB) * MIB;
}
