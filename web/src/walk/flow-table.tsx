import type { WalkChoice } from '../model/walk-choice.ts';
import { crossingsOf, FLOW_KINDS, FLOW_TITLES, type FlowKind, overheadOf } from '../model/walk-flows.ts';
import { choose } from '../state.ts';

/** All ways beside each other: why one is faster. */
export function FlowTable({ choice, kind }: { readonly choice: WalkChoice; readonly kind: FlowKind }) {
  const { captured, from, to } = choice;
  const isCaptured = captured?.from === from.id && captured.to === to.id;
  return (
    <div class="flows">
      <h2 class="heading">Ways to send it</h2>
      {choice.notDrawn !== undefined && (
        <p class="warn">
          {choice.notDrawn} Shown is {FLOW_TITLES[kind]}.
        </p>
      )}
      <table>
        <thead>
          <tr>
            <th>way</th>
            <th class="num">hops</th>
            <th class="num">kernel ↔ user</th>
            <th class="num">bytes added</th>
            {isCaptured && <th class="num">captured</th>}
          </tr>
        </thead>
        <tbody>
          {FLOW_KINDS.map((one) => {
            const flow = choice.flows.get(one)!;
            return (
              <tr key={one}>
                <td>
                  <button type="button" class="way" aria-pressed={one === kind} onClick={() => choose({ path: one })}>
                    <svg width="22" height="6" aria-hidden="true">
                      <line
                        x1="0"
                        x2="22"
                        y1="3"
                        y2="3"
                        stroke={`var(--${flow.colour})`}
                        stroke-width="2"
                        stroke-dasharray="5 3"
                      />
                    </svg>
                    {flow.title}
                    {one === choice.inUse && <span class="good">in use</span>}
                  </button>
                </td>
                <td class="num">{flow.hops.length}</td>
                <td class="num">{crossingsOf(flow)}</td>
                <td class="num">{overheadOf(flow)}</td>
                {isCaptured && (
                  <td class="num">
                    {flow.durationUs === undefined ? <span class="dim">–</span> : `${flow.durationUs.toFixed(0)} µs`}
                  </td>
                )}
              </tr>
            );
          })}
        </tbody>
      </table>
      {captured !== undefined && !isCaptured && (
        <p class="dim top">
          The lab captured a packet from{' '}
          <button type="button" class="link" onClick={() => choose(captured)}>
            {captured.from} to {captured.to}
          </button>
          , with times.
        </p>
      )}
    </div>
  );
}
