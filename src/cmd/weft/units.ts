const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  for (; value >= 1024 && unit < UNITS.length - 1; unit++) value /= 1024;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** The same without a unit of its own, for a column: `1.5M`. */
export function formatAmount(bytes: number): string {
  return formatBytes(bytes).replace(/ (?:([KMGTP])i)?B$/, '$1');
}

const PREFIXES = ['', 'k', 'M', 'G', 'T'];

/** Bits a second of bytes a second, for a column that says so: `1.5M`. */
export function formatBitRate(bytesPerSecond: number): string {
  return withPrefix(bytesPerSecond * 8);
}

/** Of at most five characters: `99999`, `123k`, `1.5M`. */
export function formatCount(count: number): string {
  return count < 99_999.5 ? String(Math.round(count)) : withPrefix(count);
}

/** A round trip for a column: `0.4ms`, `150ms`. */
export function formatRtt(ms: number): string {
  return `${ms.toFixed(ms < 99.95 ? 1 : 0)}ms`;
}

function withPrefix(number: number): string {
  let value = number;
  let unit = 0;
  for (; value >= 1000 && unit < PREFIXES.length - 1; unit++) value /= 1000;
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)}${PREFIXES[unit]}`;
}
