import type { Flow, Header, Layer } from '../model/walk-flows.ts';
import { layOut, pathThrough, placeAlong, type Spot, type WalkLayout } from '../model/walk-picture.ts';
import type { ColourName, Palette } from '../palette.ts';

export const PICTURE_WIDTH = 1240;
export const PICTURE_HEIGHT = 372;

const SANS = 'Inter, ui-sans-serif, system-ui, "DejaVu Sans", sans-serif';
const MONO = '"JetBrains Mono", ui-monospace, "DejaVu Sans Mono", monospace';
const LAYERS: readonly (readonly [Layer, string, string])[] = [
  ['user', 'user', 'space'],
  ['kernel', 'kernel', 'space'],
  ['physical', 'physical', 'layer'],
];
/** Words for boxes that are narrow. */
const SHORT: Readonly<Record<string, string>> = { application: 'app', 'UDP socket': 'socket', 'flannel.ipip': 'ipip' };
const NARROW = 66;

interface PictureProps {
  readonly flow: Flow;
  /** Drawn beside it, where it is another one. */
  readonly native: Flow;
  /** Hop where the packet is, with a fraction. */
  readonly at: number;
  readonly from: string;
  readonly to: string;
  readonly palette: Palette;
  readonly svg: { current: SVGSVGElement | null };
}

/**
 * The well-known picture of udp mode, with packets that move. Colours are attributes and not classes, so that the picture can
 * leave the page as it is.
 */
export function WalkPicture({ flow, native, at, from, to, palette, svg }: PictureProps) {
  const layout = layOut(flow, PICTURE_WIDTH, PICTURE_HEIGHT);
  const isNative = flow.kind === 'native';
  const beside = isNative ? undefined : besideOf(flow, native, layout);
  const current = Math.round(Math.max(0, Math.min(flow.hops.length - 1, at)));
  return (
    <svg
      ref={svg}
      xmlns="http://www.w3.org/2000/svg"
      viewBox={`0 0 ${PICTURE_WIDTH} ${PICTURE_HEIGHT}`}
      role="img"
      aria-label={`The path of a packet from ${from} to ${to}: ${flow.title}`}
      font-family={SANS}
      font-size="11"
    >
      <rect width={PICTURE_WIDTH} height={PICTURE_HEIGHT} fill={palette.bg} />
      <Background layout={layout} palette={palette} from={from} to={to} />
      {beside !== undefined && (
        <>
          <Line spots={beside.spots} colour={palette.native} />
          {beside.boxes.map(({ spot, text }, index) => (
            <Box key={index} spot={spot} text={text} layout={layout} palette={palette} stroke={palette.native} />
          ))}
        </>
      )}
      <Line spots={layout.spots} colour={palette[flow.colour]} />
      {flow.hops.map((hop, index) => (
        <Box
          key={index}
          spot={layout.spots[index]!}
          text={hop.place}
          layout={layout}
          palette={palette}
          stroke={index === current ? palette[flow.colour] : palette.edge}
          isCurrent={index === current}
          {...(hop.atUs !== undefined && { note: `${hop.atUs.toFixed(0)} µs` })}
        />
      ))}
      {beside !== undefined && (
        <Packet
          spot={placeAlong(beside.spots, at)}
          headers={native.hops[clamped(at, native)]!.headers}
          palette={palette}
          colour="native"
        />
      )}
      <Packet
        spot={placeAlong(layout.spots, at)}
        headers={flow.hops[current]!.headers}
        palette={palette}
        colour={flow.colour}
      />
    </svg>
  );
}

function clamped(at: number, { hops }: Flow): number {
  return Math.round(Math.max(0, Math.min(hops.length - 1, at)));
}

interface Beside {
  readonly spots: readonly Spot[];
  readonly boxes: readonly { readonly spot: Spot; readonly text: string }[];
}

/** A native socket's way shares card and wire with the other, and goes straight down to the card. */
function besideOf(flow: Flow, native: Flow, layout: WalkLayout): Beside {
  const out = flow.hops.findIndex(({ place, isContainer }) => place === 'eth0' && !isContainer);
  const back = flow.hops.findLastIndex(({ place, isContainer }) => place === 'eth0' && !isContainer);
  const own = layOut(native, layout.width, layout.height);
  const nativeOut = native.hops.findIndex(({ place }) => place === 'eth0');
  const nativeBack = native.hops.findLastIndex(({ place }) => place === 'eth0');
  const boxes: { spot: Spot; text: string }[] = [];
  // A little above the other on the wire, so that both are seen.
  const shared = layout.spots.slice(out, back + 1).map(({ x, y }) => ({ x, y: y - 7 }));
  const spots = native.hops.flatMap((hop, index) => {
    if (index >= nativeOut && index <= nativeBack) return index === nativeOut ? shared : [];
    const spot = { x: layout.spots[index < nativeOut ? out : back]!.x, y: own.spots[index]!.y };
    boxes.push({ spot, text: hop.place });
    return [spot];
  });
  return { spots, boxes };
}

interface BackgroundProps {
  readonly layout: WalkLayout;
  readonly palette: Palette;
  readonly from: string;
  readonly to: string;
}

function Background({ layout, palette, from, to }: BackgroundProps) {
  const { hosts, containers, layers, width } = layout;
  return (
    <>
      {hosts.map(([left, right], index) => (
        <g key={index}>
          <rect
            x={left}
            y={6}
            width={right - left}
            height={layers.kernel[1] - 10}
            rx={8}
            fill={palette.panel}
            stroke={palette.line}
          />
          {containers[index] !== undefined && (
            <rect
              x={containers[index][0]}
              y={32}
              width={containers[index][1] - containers[index][0]}
              height={layers.kernel[1] - 44}
              rx={6}
              fill="none"
              stroke={palette.edge}
              stroke-dasharray="1 3"
            />
          )}
          <text
            x={index === 0 ? left + 10 : right - 10}
            y={24}
            text-anchor={index === 0 ? 'start' : 'end'}
            fill={palette.dim}
            font-weight="600"
          >
            {index === 0 ? from : to}
          </text>
        </g>
      ))}
      {LAYERS.map(([layer, first, second]) => {
        const [top, bottom] = layers[layer];
        return (
          <g key={layer} fill={palette.dim}>
            {layer !== 'user' && (
              <line x1={0} x2={width} y1={top} y2={top} stroke={palette.edge} stroke-dasharray="2 4" />
            )}
            <text x={4} y={(top + bottom) / 2 - 1}>
              {first}
            </text>
            <text x={4} y={(top + bottom) / 2 + 13}>
              {second}
            </text>
          </g>
        );
      })}
    </>
  );
}

function Line({ spots, colour }: { readonly spots: readonly Spot[]; readonly colour: string }) {
  return (
    <path
      d={pathThrough(spots)}
      fill="none"
      stroke={colour}
      stroke-width={1.8}
      stroke-dasharray="6 4"
      stroke-linecap="round"
    />
  );
}

interface BoxProps {
  readonly spot: Spot;
  readonly text: string;
  readonly layout: WalkLayout;
  readonly palette: Palette;
  readonly stroke: string;
  readonly isCurrent?: boolean;
  readonly note?: string;
}

function Box({ spot, text, layout, palette, stroke, isCurrent = false, note }: BoxProps) {
  const { boxWidth, boxHeight } = layout;
  return (
    <g>
      <rect
        x={spot.x - boxWidth / 2}
        y={spot.y - boxHeight / 2}
        width={boxWidth}
        height={boxHeight}
        rx={5}
        fill={palette.raised}
        stroke={stroke}
        stroke-width={isCurrent ? 2 : 1}
      />
      <text x={spot.x} y={spot.y + (note === undefined ? 4 : -1)} text-anchor="middle" fill={palette.text}>
        {boxWidth < NARROW ? (SHORT[text] ?? text) : text}
      </text>
      {note !== undefined && (
        <text x={spot.x} y={spot.y + 11} text-anchor="middle" fill={palette.dim} font-size="9" font-family={MONO}>
          {note}
        </text>
      )}
    </g>
  );
}

/** Pixels a byte would make headers too narrow to be seen beside data. */
const WIDTHS: Readonly<Record<Header['name'], number>> = {
  ...{ Ethernet: 8, IP: 12, UDP: 8, data: 18 },
  ...{ VXLAN: 10, WireGuard: 12, ESP: 12, trailer: 10 },
};

export function headerColour({ name, isOuter }: Header): ColourName {
  return name === 'data' ? 'good' : name === 'Ethernet' ? 'idle' : isOuter ? 'warn' : 'tun';
}

interface PacketProps {
  readonly spot: Spot;
  readonly headers: readonly Header[];
  readonly palette: Palette;
  readonly colour: ColourName;
}

function Packet({ spot, headers, palette, colour }: PacketProps) {
  const width = headers.reduce((sum, { name }) => sum + WIDTHS[name], 0);
  let x = spot.x - width / 2;
  const y = spot.y - 30;
  return (
    <g>
      <line x1={spot.x} x2={spot.x} y1={y + 12} y2={spot.y - 15} stroke={palette[colour]} stroke-width={1.5} />
      <rect
        x={x - 2}
        y={y - 2}
        width={width + 4}
        height={16}
        rx={3}
        fill={palette.bg}
        stroke={palette[colour]}
        stroke-width={1.5}
      />
      {headers.map((header, index) => {
        const left = x;
        x += WIDTHS[header.name];
        return (
          <rect
            key={index}
            x={left + 0.5}
            y={y}
            width={WIDTHS[header.name] - 1}
            height={12}
            rx={1}
            fill={palette[headerColour(header)]}
          />
        );
      })}
    </g>
  );
}
