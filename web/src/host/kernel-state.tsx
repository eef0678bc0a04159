import type { Rules, State } from '../../../src/api/schema.ts';
import { count } from '../format.ts';
import { filter } from '../state.ts';

const MAX_ROWS = 300;

/** Wanted against actual; what differs comes first. */
export function KernelState({
  state,
  failure,
}: {
  readonly state: State | undefined;
  readonly failure: string | undefined;
}) {
  const entries = (state?.entries ?? []).filter(({ type, key, wanted, actual }) =>
    filter.value(`${type} ${key} ${wanted ?? ''} ${actual ?? ''}`),
  );
  const rank = (status: string): number => Number(status === 'same');
  const rows = entries.toSorted((a, b) => rank(a.status) - rank(b.status)).slice(0, MAX_ROWS);
  return (
    <>
      <div class="heading-row">
        <h2 class="heading">Kernel, wanted and actual</h2>
        {state !== undefined && (
          <span class={state.isConverged ? 'good' : 'warn'}>
            {state.isConverged ? 'all as wanted' : `${count(state.difference.length, 'change')} outstanding`}
          </span>
        )}
      </div>
      {failure !== undefined && <p class="warn">{failure}</p>}
      {rows.length > 0 && (
        <table class="state">
          <thead>
            <tr>
              <th>type</th>
              <th>wanted</th>
              <th>actual</th>
            </tr>
          </thead>
          <tbody class="mono">
            {rows.map(({ type, key, wanted, actual, status }) => (
              <tr key={`${type} ${key}`} class={status === 'same' ? '' : 'differs'}>
                <td class="dim">{type}</td>
                <td>{wanted === undefined ? <span class="dim">not wanted</span> : withKey(key, wanted)}</td>
                <td>
                  {actual === undefined ? (
                    <span class="bad">missing</span>
                  ) : status === 'same' ? (
                    <span class="good">as wanted</span>
                  ) : (
                    <span class="warn">{withKey(key, actual)}</span>
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {state !== undefined && entries.length + state.omitted > rows.length && (
        <p class="dim">and {entries.length + state.omitted - rows.length} more that are as wanted</p>
      )}
      {state !== undefined && Object.keys(state.repairs).length > 0 && (
        <p class="dim top">
          Restored since the start:{' '}
          {Object.entries(state.repairs)
            .map(([operation, times]) => `${operation} ${times}×`)
            .join(', ')}
        </p>
      )}
    </>
  );
}

export function RuleLines({
  rules,
  failure,
}: {
  readonly rules: Rules | undefined;
  readonly failure: string | undefined;
}) {
  const lines = (rules?.lines ?? []).filter((line) => filter.value(line));
  return (
    <>
      <div class="heading-row">
        <h2 class="heading">Rules{rules?.manager === undefined ? '' : `, ${rules.manager}`}</h2>
        {rules !== undefined && <span class="dim">checked {count(rules.checks, 'time')}</span>}
      </div>
      {failure !== undefined && <p class="warn">{failure}</p>}
      {rules !== undefined && lines.length === 0 && <p class="dim">none</p>}
      {lines.length > 0 && <pre class="mono">{lines.join('\n')}</pre>}
    </>
  );
}

/** Most entries say by themselves what they are about. */
function withKey(key: string, value: string): string {
  return value.includes(key.split(' ')[0]!) ? value : `${key} ${value}`;
}
