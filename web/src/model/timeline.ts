/** Events of all hosts as one list and as marks on lanes. Pure. */
import type { State } from '../../../src/api/schema.ts';
import type { HostEvents } from '../../../src/ui/event-logs.ts';

export type HostEvent = HostEvents['events'][number] & { readonly host: string };

/** What is known of one host's events. */
export interface EventLog {
  /** Of the process: with another one, ids begin anew. */
  readonly startedAtMs: number;
  readonly events: readonly HostEvent[];
}

/** As many of one host as an agent keeps, and of all together as many as weft ui keeps. */
const MAX_OF_HOST = 10_000;
const MAX_EVENTS = 50_000;

/** What is known, and what has come since; of a host whose agent is another process now, that alone. */
export function mergeEvents(
  logs: ReadonlyMap<string, EventLog>,
  news: readonly HostEvents[],
): ReadonlyMap<string, EventLog> {
  const merged = new Map(logs);
  const most = Math.min(MAX_OF_HOST, Math.floor(MAX_EVENTS / Math.max(logs.size, news.length)));
  for (const { host, startedAtMs, events } of news) {
    const log = merged.get(host);
    const before = log?.startedAtMs === startedAtMs ? log.events : [];
    const all = [...before, ...events.map((event): HostEvent => ({ ...event, host }))];
    merged.set(host, { startedAtMs, events: all.slice(-most) });
  }
  return merged;
}

export function eventText({ host, kind, subject, text, cause, severity }: HostEvent): string {
  return `${host} ${kind} ${severity} ${subject} ${text} ${cause ?? ''}`;
}

/** Of an event among those of all hosts and of earlier processes. */
export function idOf({ host, id, atMs }: HostEvent): string {
  return `${host}.${id}.${atMs}`;
}

/** Of all hosts, the newest first. */
export function newestFirst(logs: Iterable<EventLog>): HostEvent[] {
  return Array.from(logs, ({ events }) => events)
    .flat()
    .sort((a, b) => b.atMs - a.atMs || (a.host < b.host ? -1 : 1) || b.id - a.id);
}

export const SEVERITY_TONE = { info: 'good', warning: 'warn', error: 'bad' } as const;

export const SPANS = [
  { id: '5m', title: '5 min', ms: 300_000 },
  { id: '1h', title: '1 h', ms: 3_600_000 },
  { id: '24h', title: '24 h', ms: 86_400_000 },
  { id: 'all', title: 'All', ms: undefined },
] as const;

/** From when to when the lanes reach. */
export function spanOf(id: string | undefined, events: readonly HostEvent[], nowMs: number): readonly [number, number] {
  const ms = SPANS.find((span) => span.id === id)?.ms;
  if (ms !== undefined) return [nowMs - ms, nowMs];
  const oldest = events.reduce((least, { atMs }) => Math.min(least, atMs), nowMs - 1000);
  return [oldest - (nowMs - oldest) * 0.02, nowMs];
}

/** Round times for an axis, about `count` of them. */
export function ticksOf([from, to]: readonly [number, number], count: number): number[] {
  const steps = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 604_800].map((s) => s * 1000);
  const step = steps.find((one) => (to - from) / one <= count) ?? steps.at(-1)!;
  const ticks: number[] = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) ticks.push(at);
  return ticks;
}

export interface DiffLine {
  /** `+` is wanted and missing, `−` is there and not wanted, a blank is as it should be. */
  readonly sign: '+' | '−' | ' ';
  readonly text: string;
}

/** Addresses, prefixes and MAC addresses. */
const NAMED = /(?:[\da-f]+[.:]){3,}[\da-f.:]+(?:\/\d+)?/gi;

function namesIn({ subject, text }: Pick<HostEvent, 'subject' | 'text'>): string[] {
  return [...subject.split(/[&,\s]+/), ...(text.match(NAMED) ?? [])].filter((name) => name.length > 2);
}

/** An operation on the kernel, as a line of a diff. */
function changeOf(operation: string): DiffLine {
  const sign = /^(?:delete|removed?) /i.test(operation) ? '−' : '+';
  return { sign, text: operation };
}

/** So many events after one are looked at for what followed from it. */
const FOLLOWING = 50;
const FOLLOWING_MS = 10_000;

/**
 * What an event changed in the kernel: what it did itself, or, of one that names something, those operations on it that came
 * next. \`left\`: operations that are not known any more.
 */
export function changesOf(
  event: HostEvent,
  all: readonly HostEvent[],
): { readonly lines: readonly DiffLine[]; readonly left: number } {
  const own = event.operations?.map(changeOf) ?? [];
  if (own.length > 0 || event.moreOperations !== undefined) return { lines: own, left: event.moreOperations ?? 0 };
  const names = namesIn(event);
  const followed = all
    .filter(
      ({ host, kind, id, atMs }) =>
        kind === 'kernel-changed' &&
        host === event.host &&
        id > event.id &&
        id <= event.id + FOLLOWING &&
        atMs - event.atMs < FOLLOWING_MS,
    )
    .sort((a, b) => a.id - b.id)
    .flatMap(({ operations = [] }) => operations)
    .filter((operation) => names.some((name) => operation.includes(name)));
  return { lines: followed.map(changeOf), left: 0 };
}

/** Lines of a kernel's state that are about what an event names, as a diff has them. */
export function kernelLines(entries: State['entries'], event: Pick<HostEvent, 'subject' | 'text'>): DiffLine[] {
  const names = namesIn(event);
  const isAbout = (text: string | undefined): boolean => names.some((name) => text?.includes(name));
  return entries
    .filter(({ key, wanted, actual }) => isAbout(key) || isAbout(wanted) || isAbout(actual))
    .flatMap(({ type, key, wanted, actual, status }): DiffLine[] => {
      const line = (value: string): string =>
        value.includes(key.split(' ')[0]!) ? `${type} ${value}` : `${type} ${key} ${value}`;
      if (status === 'same' && actual !== undefined) return [{ sign: ' ', text: line(actual) }];
      return [
        ...(actual === undefined ? [] : [{ sign: '−' as const, text: line(actual) }]),
        ...(wanted === undefined ? [] : [{ sign: '+' as const, text: line(wanted) }]),
      ];
    });
}
