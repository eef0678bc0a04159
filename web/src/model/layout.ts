/** Where hosts are on the map. Pure: the same names in the same area are always in the same places. */

export interface Point {
  readonly x: number;
  readonly y: number;
}

export interface Placement {
  readonly points: readonly Point[];
  /** `card`: room for name, address and subnet; `label`: for the name; `dot`: for nothing. */
  readonly style: 'card' | 'label' | 'dot';
  /** Half of what a host takes, in pixels: what a click hits. */
  readonly reach: number;
}

export const CARD_WIDTH = 132;
export const CARD_HEIGHT = 54;

const CARDS_UP_TO = 12;
const LABELS_UP_TO = 40;
const GOLDEN_ANGLE = Math.PI * (3 - Math.sqrt(5));

/**
 * Up to forty hosts on an ellipse, more as the seeds of a sunflower: both fill the area evenly, and no host moves when
 * another changes its state.
 *
 * @param hub index of the host that all links begin at, where there is only one such: it is put into the middle.
 */
export function placeHosts(count: number, width: number, height: number, hub?: number): Placement {
  const style = count <= CARDS_UP_TO ? 'card' : count <= LABELS_UP_TO ? 'label' : 'dot';
  const centre = { x: width / 2, y: height / 2 };
  if (count === 1) return { points: [centre], style, reach: CARD_HEIGHT / 2 };
  const around = hub === undefined ? count : count - 1;
  const outer =
    style === 'dot'
      ? Array.from({ length: around }, (_, index) => seed(index, around, width, height))
      : onEllipse(around, width, height, style);
  const points =
    hub === undefined
      ? outer
      : Array.from({ length: count }, (_, i) => (i === hub ? centre : outer[i < hub ? i : i - 1]!));
  const reach = style === 'card' ? CARD_HEIGHT / 2 : style === 'label' ? 9 : dotRadius(count, width, height);
  return { points, style, reach };
}

/** Of a host that is only a dot: a fifth of the room that it has. */
export function dotRadius(count: number, width: number, height: number): number {
  return Math.max(2, Math.min(7, Math.sqrt((width * height) / count) / 5));
}

function onEllipse(count: number, width: number, height: number, style: 'card' | 'label'): Point[] {
  const [marginX, marginY] = style === 'card' ? [CARD_WIDTH / 2 + 24, CARD_HEIGHT / 2 + 24] : [72, 36];
  // The first on the left, so that two hosts are side by side, as one draws them.
  const angles = Array.from({ length: count }, (_, index) => Math.PI + (index / count) * 2 * Math.PI);
  const [across, down] = [angles.map(Math.cos), angles.map(Math.sin)];
  return angles.map((_, index) => ({
    x: stretched(across, index, width, marginX),
    y: stretched(down, index, height, marginY),
  }));
}

/** So that the outermost are at the edges: three on a circle are not in its middle. */
function stretched(values: readonly number[], index: number, length: number, margin: number): number {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const room = Math.max(0, length - 2 * margin);
  if (most - least < 1e-6) return length / 2;
  return length / 2 + ((values[index]! - least) / (most - least) - 0.5) * room;
}

/** Vogel's model of a sunflower; the first seeds are left out, for the hub and its links. */
function seed(index: number, count: number, width: number, height: number): Point {
  const skipped = 4;
  const radius = Math.sqrt((index + skipped) / (count + skipped));
  const angle = index * GOLDEN_ANGLE;
  return {
    x: width / 2 + (width / 2 - 20) * radius * Math.cos(angle),
    y: height / 2 + (height / 2 - 20) * radius * Math.sin(angle),
  };
}

/** The host at this place, if there is one: the closest, and no farther than `reach`. */
export function hostAt(placement: Placement, x: number, y: number): number | undefined {
  let found: number | undefined;
  let best = Number.POSITIVE_INFINITY;
  placement.points.forEach((point, index) => {
    const [dx, dy] = [Math.abs(point.x - x), Math.abs(point.y - y)];
    const isInside =
      placement.style === 'card'
        ? dx <= CARD_WIDTH / 2 && dy <= CARD_HEIGHT / 2
        : Math.hypot(dx, dy) <= Math.max(placement.reach, 8) + 3;
    const distance = Math.hypot(dx, dy);
    if (isInside && distance < best) {
      best = distance;
      found = index;
    }
  });
  return found;
}
