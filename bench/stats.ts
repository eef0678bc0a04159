/** The figures of repeated runs. */
export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly runs: readonly number[];
}

/** @throws RangeError without runs. */
export function summarise(runs: readonly number[]): Summary {
  const sorted = [...runs].sort((a, b) => a - b);
  const [min, max] = [sorted[0], sorted.at(-1)];
  if (min === undefined || max === undefined) throw new RangeError('no runs to summarise');
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? min;
  const lower = sorted.length % 2 === 0 ? (sorted[middle - 1] ?? min) : upper;
  return { median: (lower + upper) / 2, min, max, runs };
}
