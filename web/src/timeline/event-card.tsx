import { useAgent } from '../agent.ts';
import { count, moment } from '../format.ts';
import { changesOf, type DiffLine, type HostEvent, kernelLines, SEVERITY_TONE } from '../model/timeline.ts';

const LOOK_MS = 5_000;
const MAX_LINES = 60;

interface EventCardProps {
  readonly event: HostEvent;
  /** Of all hosts: what followed from it is among them. */
  readonly all: readonly HostEvent[];
  readonly nowMs: number;
}

/** Who, when and why, and what the kernel has of it. */
export function EventCard({ event, all, nowMs }: EventCardProps) {
  const { answer: state, failure } = useAgent(event.host, '/state', LOOK_MS);
  const lines = state === undefined ? [] : kernelLines(state.entries, event);
  const changes = changesOf(event, all);
  return (
    <>
      <section class="section">
        <p class={SEVERITY_TONE[event.severity]}>{event.severity}</p>
        <h2 class="plain">{event.text}</h2>
        <dl class="facts top">
          <dt>when</dt>
          <dd class="mono">{moment(event.atMs, nowMs)}</dd>
          <dt>on host</dt>
          <dd>{event.host}</dd>
          <dt>about</dt>
          <dd class="mono">{event.subject}</dd>
          <dt>event</dt>
          <dd class="mono">{event.kind}</dd>
          {event.cause !== undefined && (
            <>
              <dt>why</dt>
              <dd>{event.cause}</dd>
            </>
          )}
          {event.revision !== undefined && (
            <>
              <dt>revision</dt>
              <dd class="mono">{event.revision}</dd>
            </>
          )}
        </dl>
      </section>
      {changes.lines.length + changes.left > 0 && (
        <section class="section">
          <h2>Changed in the kernel</h2>
          <Diff lines={changes.lines} />
          {changes.left > 0 && <p class="dim">and {count(changes.left, 'operation')} that the agent no longer lists</p>}
        </section>
      )}
      <section class="section">
        <h2>In the kernel now</h2>
        {failure !== undefined && <p class="warn">{failure}</p>}
        {state !== undefined && lines.length === 0 && (
          <p class="dim">No link, address, route or neighbour of {event.host} names it.</p>
        )}
        <Diff lines={lines.slice(0, MAX_LINES)} />
      </section>
    </>
  );
}

const SIGN_WORDS = { '+': 'added or missing: ', '−': 'not wanted: ', ' ': '' } as const;

function Diff({ lines }: { readonly lines: readonly DiffLine[] }) {
  return (
    <ul class="diff mono">
      {lines.map(({ sign, text }) => (
        <li key={sign + text} class={sign === '+' ? 'good' : sign === '−' ? 'bad' : ''}>
          <span aria-hidden="true">{sign}</span> <span class="sr">{SIGN_WORDS[sign]}</span>
          {text}
        </li>
      ))}
    </ul>
  );
}
