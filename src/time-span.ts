const UNITS = [
  { word: 'd', letter: 'd', ms: 86_400_000 },
  { word: 'h', letter: 'h', ms: 3_600_000 },
  { word: 'min', letter: 'm', ms: 60_000 },
  { word: 's', letter: 's', ms: 1_000 },
] as const;

interface TimeSpan {
  readonly count: number;
  readonly unit: (typeof UNITS)[number];
}

/** The largest unit of which there are two or more, rounded down; 0 of what is negative. */
function spanOf(ms: number): TimeSpan {
  const unit = UNITS.find((one) => ms >= 2 * one.ms) ?? UNITS.at(-1)!;
  return { count: Math.max(0, Math.floor(ms / unit.ms)), unit };
}

/** For a sentence: `35 s`, `10 min`, `7 h`, `12 d`. */
export function spanText(ms: number): string {
  const { count, unit } = spanOf(ms);
  return `${count} ${unit.word}`;
}

/** The same for a column: `35s`, `10m`. */
export function shortSpan(ms: number): string {
  const { count, unit } = spanOf(ms);
  return `${count}${unit.letter}`;
}
