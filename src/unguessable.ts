import { randomFillSync } from 'node:crypto';

/** Each draw from the system costs more than what a few bytes are for, and an agent at rest needs some all the time. */
const PORTION_BYTES = 512;
const portion = new Uint8Array(PORTION_BYTES);
let used: number = PORTION_BYTES;

/** Bytes that nobody can guess, each given out once. @param count at most {@link PORTION_BYTES}. */
export function unguessable(count: number): Uint8Array<ArrayBuffer> {
  if (used + count > PORTION_BYTES) {
    randomFillSync(portion);
    used = 0;
  }
  const bytes = portion.slice(used, used + count);
  portion.fill(0, used, used + count);
  used += count;
  return bytes;
}
