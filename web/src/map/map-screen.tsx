import { useEffect, useMemo, useRef, useState } from 'preact/hooks';
import { count, si } from '../format.ts';
import { Dots, packetsPerDot } from '../model/dots.ts';
import { labelsOf } from '../model/hosts.ts';
import { hostAt, placeHosts } from '../model/layout.ts';
import { sceneOf } from '../model/scene.ts';
import { usePalette } from '../palette.ts';
import { choose, filter, isPaused, overview, rates, route } from '../state.ts';
import { Waiting } from '../waiting.tsx';
import { HostList } from './host-list.tsx';
import { MapPainter } from './map-painter.ts';
import { PeerCard } from './peer-card.tsx';

/** At the bottom, where no host is put. */
const LEGEND_HEIGHT = 30;
/** So many characters are in the card of a host. */
const MAX_LABEL = 11;

/** Hosts, the links between them, and the packets on these. */
export function MapScreen() {
  const now = overview.value;
  const last = useRef<string | undefined>(undefined);
  if (now === undefined || now.hosts.length === 0) return <Waiting />;
  const wanted = route.value.query.host;
  const selected = now.hosts.findIndex(({ name }) => name === wanted);
  // The list begins where its reader left it.
  if (selected !== -1) last.current = wanted;
  return (
    <div class="split">
      <MapPicture selected={selected === -1 ? undefined : selected} />
      <aside class="side" aria-label="Hosts">
        {selected === -1 ? <HostList returnTo={last.current} /> : <PeerCard overview={now} host={selected} />}
      </aside>
    </div>
  );
}

function MapPicture({ selected }: { readonly selected: number | undefined }) {
  const now = overview.value!;
  const box = useRef<HTMLDivElement>(null);
  const painter = useRef<MapPainter | undefined>(undefined);
  const dots = useMemo(() => new Dots(), []);
  const [size, setSize] = useState({ width: 0, height: 0 });
  const palette = usePalette();

  useEffect(() => {
    const area = box.current!;
    painter.current = new MapPainter([...area.querySelectorAll('canvas')]);
    const observer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = area;
      painter.current?.resize(width, height, devicePixelRatio);
      setSize({ width, height });
    });
    observer.observe(area);
    return () => observer.disconnect();
  }, []);

  const scene = useMemo(() => sceneOf(now, rates.value, filter.value), [now, rates.value, filter.value]);
  const placement = useMemo(
    () => placeHosts(now.hosts.length, size.width, size.height - LEGEND_HEIGHT, scene.hub),
    [now.hosts.length, size.width, size.height, scene.hub],
  );
  const perDot = useMemo(
    () => packetsPerDot(Array.from(rates.value.values(), ({ packets }) => packets)),
    [rates.value],
  );

  useEffect(() => {
    const labels = labelsOf(
      now.hosts.map(({ name }) => name),
      MAX_LABEL,
    );
    painter.current?.show({
      hosts: scene.hosts.map((host, index) => ({ ...host, view: now.hosts[index]!, label: labels[index]! })),
      links: scene.pairs,
      placement,
      selected,
      palette,
    });
  }, [scene, placement, selected, palette, now]);

  useEffect(() => {
    dots.feed(rates.value, perDot);
  }, [rates.value, perDot, dots]);

  const isStill = isPaused.value;
  useEffect(() => {
    if (isStill) return;
    let frame = requestAnimationFrame(function draw(nowMs) {
      dots.advance(nowMs);
      painter.current?.drawDots(dots, nowMs);
      frame = requestAnimationFrame(draw);
    });
    return () => cancelAnimationFrame(frame);
  }, [dots, isStill]);

  const quiet = now.omittedLinks + scene.quietPairs;
  const pick = (event: MouseEvent): number | undefined => {
    const { left, top } = box.current!.getBoundingClientRect();
    return hostAt(placement, event.clientX - left, event.clientY - top);
  };
  return (
    // The list beside it is the same for keyboard and screen reader.
    // biome-ignore lint/a11y/useKeyWithClickEvents: see above.
    <div
      class="map"
      ref={box}
      role="img"
      aria-label={`Map of ${count(now.hosts.length, 'host')} and ${count(scene.pairs.length, 'link')}; the list of hosts has the same`}
      onClick={(event) => {
        const found = pick(event);
        choose({ host: found === undefined ? undefined : now.hosts[found]!.name });
      }}
      onMouseMove={(event) => {
        box.current!.style.cursor = pick(event) === undefined ? '' : 'pointer';
      }}
    >
      <canvas />
      <canvas />
      <canvas />
      <div class="legend" aria-hidden="true">
        <span class="good">
          <i class="swatch" /> <span class="dim">healthy</span>
        </span>
        <span class="warn">
          <i class="swatch" /> <span class="dim">degraded</span>
        </span>
        <span class="bad">
          <i class="swatch" /> <span class="dim">broken</span>
        </span>
        <span>
          <i class="swatch" /> not measured
        </span>
        <span>width: packets a second</span>
        <span>one dot: {perDot === 1 ? 'one packet' : `${si(perDot)} packets`}</span>
        {quiet > 0 && <span>{count(quiet, 'quiet link')} not shown</span>}
      </div>
    </div>
  );
}
