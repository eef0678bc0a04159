/** Where the hops of a walk are in its picture: time from left to right, the layers from top to bottom. Pure. */
import type { Flow, Layer } from './walk-flows.ts';

export interface Spot {
  readonly x: number;
  readonly y: number;
}

export interface WalkLayout {
  readonly width: number;
  readonly height: number;
  /** Upper and lower end of each layer. */
  readonly layers: Readonly<Record<Layer, readonly [number, number]>>;
  readonly spots: readonly Spot[];
  readonly boxWidth: number;
  readonly boxHeight: number;
  /** From where to where each host reaches. */
  readonly hosts: readonly [readonly [number, number], readonly [number, number]];
  /** The same for the containers; empty where an application of the host itself sends. */
  readonly containers: readonly (readonly [number, number])[];
}

const LEFT = 86;
const RIGHT = 20;
const BOX_HEIGHT = 30;
/** Within the kernel, a packet sinks to the network card and rises from it. */
const KERNEL_DEPTH: Readonly<Record<string, number>> = {
  socket: 0.12,
  'UDP socket': 0.12,
  veth: 0.36,
  cni0: 0.52,
  routing: 0.66,
  flannel0: 0.34,
  'flannel.1': 0.5,
  'flannel.ipip': 0.5,
  'flannel-wg': 0.5,
  VXLAN: 0.62,
  'IP in IP': 0.62,
  IPsec: 0.62,
  eth0: 0.88,
};

export function layOut(flow: Flow, width: number, height: number): WalkLayout {
  const layers = {
    user: [0, height * 0.26],
    kernel: [height * 0.26, height * 0.82],
    physical: [height * 0.82, height],
  } as const;
  const count = flow.hops.length;
  const step = (width - LEFT - RIGHT) / count;
  const boxWidth = Math.min(84, step - 8);
  const spots = flow.hops.map(({ layer, place }, index): Spot => {
    const [top, bottom] = layers[layer];
    const depth = layer === 'kernel' ? (KERNEL_DEPTH[place] ?? 0.5) : 0.55;
    const room = bottom - top - BOX_HEIGHT;
    return { x: LEFT + step * (index + 0.5), y: top + BOX_HEIGHT / 2 + room * depth };
  });
  const edge = (side: 'from' | 'to'): readonly [number, number] => {
    const at = flow.hops.flatMap((hop, index) => (hop.side === side ? [spots[index]!.x] : []));
    return [at[0]! - boxWidth / 2 - 14, at.at(-1)! + boxWidth / 2 + 14];
  };
  const containers = (['from', 'to'] as const).flatMap((side) => {
    const at = flow.hops.flatMap((hop, index) => (hop.side === side && hop.isContainer ? [spots[index]!.x] : []));
    return at.length === 0 ? [] : [[at[0]! - boxWidth / 2 - 6, at.at(-1)! + boxWidth / 2 + 6] as const];
  });
  return {
    width,
    height,
    layers,
    containers,
    spots,
    boxWidth,
    boxHeight: BOX_HEIGHT,
    hosts: [edge('from'), edge('to')],
  };
}

/** The line through all hops, as an SVG path with round corners. */
export function pathThrough(spots: readonly Spot[], radius = 10): string {
  return spots
    .map((spot, index) => {
      const [before, after] = [spots[index - 1], spots[index + 1]];
      if (before === undefined) return `M${round(spot.x)} ${round(spot.y)}`;
      if (after === undefined) return `L${round(spot.x)} ${round(spot.y)}`;
      const [into, out] = [towards(spot, before, radius), towards(spot, after, radius)];
      return `L${round(into.x)} ${round(into.y)}Q${round(spot.x)} ${round(spot.y)} ${round(out.x)} ${round(out.y)}`;
    })
    .join('');
}

/** Where a packet is between two hops. @param at hop with a fraction; outside of the walk it is at its end. */
export function placeAlong(spots: readonly Spot[], at: number): Spot {
  const limited = Math.max(0, Math.min(spots.length - 1, at));
  const index = Math.min(spots.length - 2, Math.floor(limited));
  const [from, to] = [spots[index]!, spots[index + 1]!];
  const share = eased(limited - index);
  return { x: from.x + (to.x - from.x) * share, y: from.y + (to.y - from.y) * share };
}

/** Slow at each hop: that is where something happens. */
function eased(share: number): number {
  return share * share * (3 - 2 * share);
}

function towards(from: Spot, to: Spot, distance: number): Spot {
  const length = Math.hypot(to.x - from.x, to.y - from.y) || 1;
  const part = Math.min(distance, length / 2) / length;
  return { x: from.x + (to.x - from.x) * part, y: from.y + (to.y - from.y) * part };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
