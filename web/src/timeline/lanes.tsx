import { useEffect, useRef, useState } from 'preact/hooks';
import { clock, moment } from '../format.ts';
import { labelsOf } from '../model/hosts.ts';
import { type HostEvent, idOf, SEVERITY_TONE, ticksOf } from '../model/timeline.ts';

const LANE = 20;
const LEFT = 128;
/** So many characters are in it. */
const MAX_LABEL = 17;
const RIGHT = 16;
/** More lanes would leave no room for the list. */
const MAX_LANES = 12;
const MAX_MARKS = 3_000;
const TICK_EVERY = 120;

interface LanesProps {
  readonly events: readonly HostEvent[];
  readonly hosts: readonly string[];
  readonly range: readonly [number, number];
  readonly chosen: string | undefined;
  readonly pick: (event: HostEvent) => void;
}

/** A lane a host, marks where something happened. The list below is the same for keyboard and screen reader. */
export function Lanes({ events, hosts, range, chosen, pick }: LanesProps) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(800);
  useEffect(() => {
    const observer = new ResizeObserver(() => setWidth(box.current!.clientWidth));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  const lanes = hosts.length <= MAX_LANES ? hosts : ['all hosts'];
  const laneOf = (event: HostEvent): number => (lanes.length === hosts.length ? hosts.indexOf(event.host) : 0);
  const labels = lanes === hosts ? labelsOf(hosts, MAX_LABEL) : lanes;
  const [from, to] = range;
  const x = (atMs: number): number => LEFT + ((atMs - from) / (to - from)) * (width - LEFT - RIGHT);
  const ticks = ticksOf(range, Math.max(2, (width - LEFT - RIGHT) / TICK_EVERY));
  const height = lanes.length * LANE + 26;
  return (
    <div class="lanes" ref={box}>
      <svg width={width} height={height} aria-hidden="true">
        {ticks.map((tick) => (
          <g key={tick}>
            <line x1={x(tick)} x2={x(tick)} y1={0} y2={height - 20} stroke="var(--line)" />
            <text x={x(tick)} y={height - 6} text-anchor="middle" class="tick">
              {to - from > 86_400_000 ? moment(tick, to).replace(/:\d\d$/, '') : clock(tick)}
            </text>
          </g>
        ))}
        {lanes.map((name, index) => (
          <g key={name}>
            <line
              x1={LEFT}
              x2={width - RIGHT}
              y1={LANE * (index + 0.5) + 2}
              y2={LANE * (index + 0.5) + 2}
              stroke="var(--edge)"
            />
            <text x={LEFT - 12} y={LANE * (index + 0.5) + 6} text-anchor="end" class="lane">
              {labels[index]}
            </text>
          </g>
        ))}
        {events.slice(0, MAX_MARKS).map((event) => {
          const isChosen = idOf(event) === chosen;
          return (
            // biome-ignore lint/a11y/noStaticElementInteractions: the list below has the same events as buttons.
            <circle
              key={idOf(event)}
              cx={x(event.atMs)}
              cy={LANE * (laneOf(event) + 0.5) + 2}
              r={isChosen ? 6 : 4.2}
              class={`event ${SEVERITY_TONE[event.severity]}`}
              stroke={isChosen ? 'var(--tun)' : 'var(--bg)'}
              stroke-width={isChosen ? 2 : 1}
              onClick={() => pick(event)}
            >
              <title>{event.text}</title>
            </circle>
          );
        })}
      </svg>
    </div>
  );
}
