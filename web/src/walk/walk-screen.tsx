import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { LabResult } from '../../../src/lab/lab-result.ts';
import { getJson } from '../feed.ts';
import { chooseWalk, type End, endsOf, type WalkChoice } from '../model/walk-choice.ts';
import { bytesOf, FLOW_KINDS, type Flow, type FlowKind, timeTo } from '../model/walk-flows.ts';
import { usePalette } from '../palette.ts';
import { choose, filter, isPaused, overview, route } from '../state.ts';
import { Waiting } from '../waiting.tsx';
import { FlowTable } from './flow-table.tsx';
import { savePng, saveSvg } from './save-picture.ts';
import { headerColour, WalkPicture } from './walk-picture.tsx';

const HOP_MS = 620;

/** One packet on its way, in slow motion, and what each way costs. */
export function WalkScreen() {
  const now = overview.value;
  const [lab, setLab] = useState<LabResult | null | undefined>(undefined);
  useEffect(() => {
    const over = new AbortController();
    getJson<LabResult | null>('/lab', over.signal).then(setLab, () => setLab(null));
    return () => over.abort();
  }, []);
  const { query } = route.value;
  const { from, to } = query;
  const choice = useMemo(
    () => (now === undefined || lab === undefined ? undefined : chooseWalk(now, lab ?? undefined, { from, to })),
    [now, lab, from, to],
  );
  if (now === undefined || lab === undefined) return <Waiting />;
  if (choice === undefined) return <p class="empty">A walk needs two hosts.</p>;
  // Where it is not the one in use, the table beside it says so.
  const kind = FLOW_KINDS.find((one) => one === query.path) ?? choice.inUse ?? 'forwarder';
  return <Walk key={`${choice.from.id} ${choice.to.id} ${kind}`} choice={choice} kind={kind} lab={lab} />;
}

interface WalkProps {
  readonly choice: WalkChoice;
  readonly kind: FlowKind;
  readonly lab: LabResult | null;
}

function Walk({ choice, kind, lab }: WalkProps) {
  const flow = choice.flows.get(kind)!;
  const native = choice.flows.get('native')!;
  const last = flow.hops.length - 1;
  const palette = usePalette();
  const svg = useRef<SVGSVGElement>(null);
  const { at, isPlaying, step, toggle, replay } = usePlayer(last);
  const current = Math.round(at);
  const name = `weft-walk-${choice.from.id}-${choice.to.id}-${kind}`;
  return (
    <div class="walk">
      <div class="toolbar">
        <EndChoice choice={choice} lab={lab} />
        <span class="space" />
        <div class="buttons">
          <button type="button" class="button" onClick={() => step(-1)} disabled={at <= 0} title="Step back (←)">
            ‹ Back
          </button>
          <button type="button" class="button" onClick={toggle} title="Space">
            {isPlaying ? 'Stop' : 'Go'}
          </button>
          <button type="button" class="button" onClick={() => step(1)} disabled={at >= last} title="Step (→)">
            Step ›
          </button>
          <button type="button" class="button" onClick={replay} title="Replay (r)">
            Replay
          </button>
        </div>
        <div class="buttons">
          <button type="button" class="button" onClick={() => saveSvg(svg.current!, name)}>
            SVG
          </button>
          <button type="button" class="button" onClick={() => void savePng(svg.current!, name)}>
            PNG
          </button>
        </div>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard. */}
      <section class="walk-area" tabIndex={0} aria-label="Picture">
        <WalkPicture
          flow={flow}
          native={native}
          at={at}
          from={captionOf(choice.from, kind)}
          to={captionOf(choice.to, kind)}
          palette={palette}
          svg={svg}
        />
        <div class="walk-below">
          <HopCard flow={flow} current={current} isPlaying={isPlaying} />
          <FlowTable choice={choice} kind={kind} />
        </div>
      </section>
    </div>
  );
}

function captionOf({ id, host }: End, kind: FlowKind): string {
  return kind === 'native' ? host : id === host ? `${host}, any container` : `${host}, container ${id}`;
}

interface Player {
  readonly at: number;
  readonly isPlaying: boolean;
  step(by: 1 | -1): void;
  toggle(): void;
  replay(): void;
}

function usePlayer(last: number): Player {
  const isCalm = matchMedia('(prefers-reduced-motion: reduce)').matches;
  const [at, setAt] = useState(0);
  const [isPlaying, setPlaying] = useState(!isCalm);
  const isHeld = isPaused.value;
  useEffect(() => {
    if (!isPlaying || isHeld) return;
    let before: number | undefined;
    let frame = requestAnimationFrame(function move(nowMs) {
      const elapsed = nowMs - (before ?? nowMs);
      before = nowMs;
      setAt((value) => Math.min(last, value + elapsed / HOP_MS));
      frame = requestAnimationFrame(move);
    });
    return () => cancelAnimationFrame(frame);
  }, [isPlaying, isHeld, last]);
  useEffect(() => {
    if (at >= last) setPlaying(false);
  }, [at, last]);
  const step = (by: 1 | -1): void => {
    setPlaying(false);
    setAt((value) =>
      Math.max(0, Math.min(last, by > 0 ? Math.floor(value + 0.001) + 1 : Math.ceil(value - 0.001) - 1)),
    );
  };
  const replay = (): void => {
    setAt(0);
    setPlaying(true);
  };
  const toggle = (): void => (at >= last ? replay() : setPlaying((value) => !value));
  useEffect(() => {
    const onKey = (event: KeyboardEvent): void => {
      const { tagName } = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || /^(?:INPUT|SELECT)$/.test(tagName)) return;
      if (event.key === 'ArrowRight') step(1);
      else if (event.key === 'ArrowLeft') step(-1);
      else if (event.key === ' ' && tagName !== 'BUTTON') toggle();
      else if (event.key === 'r') replay();
      else return;
      event.preventDefault();
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  });
  return { at, isPlaying, step, toggle, replay };
}

function EndChoice({ choice, lab }: { readonly choice: WalkChoice; readonly lab: LabResult | null }) {
  const ends = endsOf(overview.value!, lab ?? undefined);
  const shown = (chosen: string) => ends.filter(({ id, text }) => id === chosen || filter.value(text));
  return (
    <>
      <label class="end">
        from{' '}
        <select
          value={choice.from.id}
          onChange={(event) => choose({ from: event.currentTarget.value, to: choice.to.id })}
        >
          {shown(choice.from.id).map(({ id, text }) => (
            <option key={id} value={id}>
              {text}
            </option>
          ))}
        </select>
      </label>
      <label class="end">
        to{' '}
        <select
          value={choice.to.id}
          onChange={(event) => choose({ from: choice.from.id, to: event.currentTarget.value })}
        >
          {shown(choice.to.id)
            .filter(({ host }) => host !== choice.from.host)
            .map(({ id, text }) => (
              <option key={id} value={id}>
                {text}
              </option>
            ))}
        </select>
      </label>
    </>
  );
}

interface HopCardProps {
  readonly flow: Flow;
  readonly current: number;
  readonly isPlaying: boolean;
}

/** What happens at one hop, and the packet as it is there. */
function HopCard({ flow, current, isPlaying }: HopCardProps) {
  const hop = flow.hops[current]!;
  const time = timeTo(flow, current);
  const total = bytesOf(hop.headers);
  return (
    <div class="hop">
      <h2 class="heading">
        Hop {current + 1} of {flow.hops.length}
      </h2>
      {/* A screen reader says each step, but not a packet that walks by itself. */}
      <div aria-live={isPlaying ? 'off' : 'polite'} aria-atomic="true">
        <p class="title">
          {hop.place} <span class="dim">{hop.layer === 'physical' ? 'physical layer' : `${hop.layer} space`}</span>
          {hop.atUs !== undefined && <span class="dim"> · +{hop.atUs.toFixed(1)} µs</span>}
        </p>
        <p>{hop.what}</p>
        {time !== undefined && (
          <p class="dim">
            {time.us.toFixed(1)} µs from {time.from} to here
          </p>
        )}
      </div>
      <ol class="packet" aria-label={`The packet here: ${total} bytes`}>
        {hop.headers.map((header, index) => (
          <li
            key={index}
            class={`part ${headerColour(header)}`}
            style={{ flexGrow: String(Math.max(header.bytes, 12)) }}
          >
            <span>{header.name}</span>
            <span class="dim">{header.bytes}</span>
          </li>
        ))}
      </ol>
      <p class="dim">{total} bytes</p>
      {hop.seen?.map((line) => (
        <p class="mono" key={line}>
          {line}
        </p>
      ))}
      <ol class="sr">
        {flow.hops.map(({ place, what, layer }, index) => (
          <li key={index} aria-current={index === current ? 'step' : undefined}>
            {layer}: {place}: {what}
          </li>
        ))}
      </ol>
    </div>
  );
}
