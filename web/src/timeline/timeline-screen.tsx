import { useEffect, useMemo, useState } from 'preact/hooks';
import type { EventsSince } from '../../../src/ui/event-logs.ts';
import { getJson, repeat } from '../feed.ts';
import { count, moment } from '../format.ts';
import {
  type EventLog,
  eventText,
  type HostEvent,
  idOf,
  mergeEvents,
  newestFirst,
  SEVERITY_TONE,
  SPANS,
  spanOf,
} from '../model/timeline.ts';
import { choose, filter, overview, route } from '../state.ts';
import { Waiting } from '../waiting.tsx';
import { EventCard } from './event-card.tsx';
import { Lanes } from './lanes.tsx';

const MAX_ROWS = 400;
const LOOK_MS = 2_000;

/** What happened on all hosts, when, and why. */
export function TimelineScreen() {
  const now = overview.value;
  const names = now?.hosts.flatMap(({ name, state }) => (state === 'peer' ? [] : [name])).join('\n') ?? '';
  const logs = useEvents();
  const { span, event: chosen } = route.value.query;
  const all = useMemo(() => newestFirst(logs.values()), [logs]);
  const shown = useMemo(() => all.filter((event) => filter.value(eventText(event))), [all, filter.value]);
  if (now === undefined) return <Waiting />;
  const nowMs = now.atMs;
  const range = spanOf(span, shown, nowMs);
  const inRange = shown.filter(({ atMs }) => atMs >= range[0]);
  const selected = all.find((event) => idOf(event) === chosen);
  return (
    <div class="split">
      <div class="timeline">
        <div class="toolbar">
          <div class="choice" role="radiogroup" aria-label="How far back">
            {SPANS.map(({ id, title }) => (
              <label key={id}>
                <input
                  type="radio"
                  name="span"
                  checked={id === (span ?? 'all')}
                  onChange={() => choose({ span: id })}
                />
                {title}
              </label>
            ))}
          </div>
          <span class="dim">{count(inRange.length, 'event')}</span>
        </div>
        <Lanes events={inRange} hosts={names.split('\n').filter(Boolean)} range={range} chosen={chosen} pick={pick} />
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard. */}
        <section class="events" tabIndex={0} aria-label="Events">
          <table>
            <thead>
              <tr>
                <th>time</th>
                <th>host</th>
                <th>event</th>
                <th>about</th>
                <th>what</th>
              </tr>
            </thead>
            <tbody>
              {inRange.slice(0, MAX_ROWS).map((event) => (
                <Row key={idOf(event)} event={event} nowMs={nowMs} isChosen={idOf(event) === chosen} />
              ))}
            </tbody>
          </table>
          {inRange.length === 0 && <p class="empty">No events in this time range.</p>}
          {inRange.length > MAX_ROWS && <p class="dim">and {inRange.length - MAX_ROWS} earlier ones: use the filter</p>}
        </section>
      </div>
      <aside class="side" aria-label="Event">
        {selected === undefined ? (
          <p class="section dim">Select an event to see its cause and the resulting kernel state.</p>
        ) : (
          <EventCard event={selected} all={all} nowMs={nowMs} />
        )}
      </aside>
    </div>
  );
}

function pick(event: HostEvent): void {
  choose({ event: idOf(event) });
}

interface RowProps {
  readonly event: HostEvent;
  readonly nowMs: number;
  readonly isChosen: boolean;
}

function Row({ event, nowMs, isChosen }: RowProps) {
  return (
    <tr class={isChosen ? 'chosen' : ''}>
      <td class="mono dim nowrap">{moment(event.atMs, nowMs)}</td>
      <td>{event.host}</td>
      <td class="dim nowrap">{event.kind}</td>
      <td class="mono">{event.subject}</td>
      <td>
        <button type="button" class="what" aria-pressed={isChosen} onClick={() => pick(event)}>
          <i class={`mark ${SEVERITY_TONE[event.severity]}`} aria-hidden="true" />
          {event.severity !== 'info' && <span class="sr">{event.severity}: </span>}
          <span>{event.text}</span>
        </button>
      </td>
    </tr>
  );
}

/** Of all hosts, by one question that does not grow with them; only what is new is asked for. */
function useEvents(): ReadonlyMap<string, EventLog> {
  const [logs, setLogs] = useState<ReadonlyMap<string, EventLog>>(new Map());
  useEffect(() => {
    let known: ReadonlyMap<string, EventLog> = new Map();
    let seen = 0;
    return repeat(async (signal) => {
      const { newest, hosts } = await getJson<EventsSince>(`/events?after=${seen}`, signal);
      if (signal.aborted || hosts.length === 0) return;
      seen = newest;
      known = mergeEvents(known, hosts);
      setLogs(known);
    }, LOOK_MS);
  }, []);
  return logs;
}
