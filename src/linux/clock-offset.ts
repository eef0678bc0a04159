/** Another thread may run between two readings of a clock; this often the readings are tried to be close together. */
const TRIES = 5;
const CLOSE_MS = 0.02;

/**
 * What to add to a time of the clock `from` to have it by the clock `to`, both in milliseconds. `to` is read before and after `from`:
 * by the two readings, whatever happened between them, the answer is wrong by half their distance at most.
 */
export function clockOffset(from: () => number, to: () => number): number {
  let best = { distance: Number.POSITIVE_INFINITY, offset: 0 };
  for (let i = 0; i < TRIES && best.distance > CLOSE_MS; i++) {
    const before = to();
    const at = from();
    const after = to();
    const distance = after - before;
    if (distance < best.distance) best = { distance, offset: (before + after) / 2 - at };
  }
  return best.offset;
}
