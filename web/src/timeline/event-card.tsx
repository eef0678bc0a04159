import { useAgent } from '../agent.ts';
import { moment } from '../format.ts';
import { type HostEvent, kernelLines, SEVERITY_TONE } from '../model/timeline.ts';

const LOOK_MS = 5_000;
const MAX_LINES = 60;

/** Who, when and why, and what the kernel has of it. */
export function EventCard({ event, nowMs }: { readonly event: HostEvent; readonly nowMs: number }) {
  const { answer: state, failure } = useAgent(event.host, '/state', LOOK_MS);
  const lines = state === undefined ? [] : kernelLines(state.entries, event.subject);
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
      <section class="section">
        <h2>In the kernel now</h2>
        {failure !== undefined && <p class="warn">{failure}</p>}
        {state !== undefined && lines.length === 0 && (
          <p class="dim">No link, address, route or neighbour of {event.host} names it.</p>
        )}
        <ul class="diff mono">
          {lines.slice(0, MAX_LINES).map(({ sign, text }) => (
            <li key={sign + text} class={sign === '+' ? 'good' : sign === '−' ? 'bad' : ''}>
              <span aria-hidden="true">{sign}</span>{' '}
              <span class="sr">{sign === '+' ? 'missing: ' : sign === '−' ? 'not wanted: ' : ''}</span>
              {text}
            </li>
          ))}
        </ul>
      </section>
    </>
  );
}
