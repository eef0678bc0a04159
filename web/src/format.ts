/** Numbers and times as the page shows them: short, and of one width where they change. Pure. */

const SI = ['', 'k', 'M', 'G', 'T'] as const;

/** Three significant digits with an SI prefix: `0`, `7.5`, `12.3 k`. */
export function si(value: number): string {
  let scaled = Math.abs(value);
  let step = 0;
  while (scaled >= 999.5 && step < SI.length - 1) {
    scaled /= 1000;
    step++;
  }
  const digits = step === 0 && Number.isInteger(value) ? 0 : scaled >= 99.95 ? 0 : scaled >= 9.995 ? 1 : 2;
  const text = `${value < 0 ? '−' : ''}${scaled.toFixed(digits)}`;
  return step === 0 ? text : `${text} ${SI[step]}`;
}

/** Packets a second. */
export function packetRate(perSecond: number): string {
  return perSecond > 0 && perSecond < 1 ? '<1 pkt/s' : `${spaced(si(Math.round(perSecond)))}pkt/s`;
}

/** From bytes a second. */
export function bitRate(bytesPerSecond: number): string {
  return `${spaced(si(Math.round(bytesPerSecond * 8)))}bit/s`;
}

/** Powers of 1024. */
export function bytes(value: number): string {
  let scaled = value;
  let unit = 'B';
  for (const next of ['KiB', 'MiB', 'GiB', 'TiB']) {
    if (scaled < 1023.5) break;
    scaled /= 1024;
    unit = next;
  }
  return `${unit === 'B' || scaled >= 99.95 ? scaled.toFixed(0) : scaled.toFixed(1)} ${unit}`;
}

/** A prefix is set right before the unit, a bare number apart from it. */
function spaced(text: string): string {
  return /[a-zA-Z]$/.test(text) ? text : `${text} `;
}

/** Milliseconds, in the unit that suits them. */
export function duration(ms: number): string {
  if (ms < 0.9995) return `${(ms * 1000).toFixed(0)} µs`;
  if (ms < 9.995) return `${ms.toFixed(2)} ms`;
  if (ms < 99.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  const seconds = ms / 1000;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.round(hours / 24)} d`;
}

/** A share of 0 … 1. */
export function percent(share: number): string {
  if (share === 0) return '0 %';
  if (share > 0 && share < 0.001) return '<0.1 %';
  return `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

const two = (value: number): string => String(value).padStart(2, '0');

/** Of the day, in the reader's time zone: `14:03:07`. */
export function clock(ms: number): string {
  const date = new Date(ms);
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** `clock` with the date before it when that is not today's. */
export function moment(ms: number, nowMs: number): string {
  const [date, now] = [new Date(ms), new Date(nowMs)];
  if (date.toDateString() === now.toDateString()) return clock(ms);
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${clock(ms)}`;
}

/** `1 host`, `2 hosts`. */
export function count(value: number, noun: string): string {
  return `${value} ${noun}${value === 1 ? '' : 's'}`;
}
