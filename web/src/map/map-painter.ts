/**
 * Draws the map on three canvases, one above the other: links, moving dots, hosts. Only the dots are drawn for each frame; the
 * others when something has changed.
 */
import type { HostView } from '../../../src/ui/overview.ts';
import type { Dots } from '../model/dots.ts';
import type { Tone } from '../model/hosts.ts';
import { CARD_HEIGHT, CARD_WIDTH, type Placement } from '../model/layout.ts';
import type { MapPair } from '../model/scene.ts';
import type { Palette } from '../palette.ts';

export interface SceneHost {
  readonly view: HostView;
  /** Its name, so short that it fits. */
  readonly label: string;
  readonly tone: Tone;
  /** Found by the filter. */
  readonly isShown: boolean;
}

export interface Scene {
  readonly hosts: readonly SceneHost[];
  readonly links: readonly MapPair[];
  readonly placement: Placement;
  readonly selected: number | undefined;
  readonly palette: Palette;
}

const DOT_RADIUS = 2.1;
/** Each direction keeps to its right. */
const LANE = 2.6;
const SANS = 'Inter, ui-sans-serif, system-ui, "DejaVu Sans", sans-serif';
const MONO = '"JetBrains Mono", ui-monospace, "DejaVu Sans Mono", monospace';

export class MapPainter {
  readonly #layers: readonly CanvasRenderingContext2D[];
  #width = 0;
  #height = 0;
  #ratio = 1;
  #scene: Scene | undefined;
  /** From where to where each direction of a link leads, by its key in `Dots`. */
  #ways: ReadonlyMap<string, readonly [number, number]> = new Map();
  #dot: { readonly picture: HTMLCanvasElement; readonly colour: string; readonly ratio: number } | undefined;

  /** @param canvases for links, dots and hosts. */
  constructor(canvases: readonly HTMLCanvasElement[]) {
    this.#layers = canvases.map((canvas) => canvas.getContext('2d')!);
  }

  resize(width: number, height: number, ratio: number): void {
    this.#width = width;
    this.#height = height;
    this.#ratio = ratio;
    for (const { canvas } of this.#layers) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    for (const layer of this.#layers) layer.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.#scene !== undefined) this.show(this.#scene);
  }

  show(scene: Scene): void {
    this.#scene = scene;
    this.#ways = new Map(
      scene.links
        .filter(({ isShown }) => isShown)
        .flatMap(({ a, b, keys: [there, back] }) => [
          [there, [a, b]],
          [back, [b, a]],
        ]),
    );
    this.#drawLinks(this.#clear(0), scene);
    this.#drawHosts(this.#clear(2), scene);
  }

  /** One frame. */
  drawDots(dots: Dots, nowMs: number): void {
    const scene = this.#scene;
    if (scene === undefined) return;
    const context = this.#clear(1);
    const { points } = scene.placement;
    const dot = this.#dotOf(scene.palette.text);
    const half = dot.width / this.#ratio / 2;
    for (const link of dots.links) {
      const way = this.#ways.get(link);
      if (way === undefined) continue;
      const [from, to] = [points[way[0]]!, points[way[1]]!];
      const [dx, dy] = [to.x - from.x, to.y - from.y];
      const length = Math.hypot(dx, dy) || 1;
      const [sideX, sideY] = [(-dy / length) * LANE - half, (dx / length) * LANE - half];
      for (const share of dots.along(link, nowMs)) {
        context.drawImage(dot, from.x + dx * share + sideX, from.y + dy * share + sideY, 2 * half, 2 * half);
      }
    }
  }

  /** A dot as a picture: copying it costs less than filling a circle a thousand times in a frame. */
  #dotOf(colour: string): HTMLCanvasElement {
    if (this.#dot?.colour === colour && this.#dot.ratio === this.#ratio) return this.#dot.picture;
    const picture = document.createElement('canvas');
    picture.width = picture.height = Math.ceil(2 * (DOT_RADIUS + 0.5) * this.#ratio);
    const context = picture.getContext('2d')!;
    context.fillStyle = colour;
    context.arc(picture.width / 2, picture.width / 2, DOT_RADIUS * this.#ratio, 0, 7);
    context.fill();
    this.#dot = { picture, colour, ratio: this.#ratio };
    return picture;
  }

  #clear(layer: number): CanvasRenderingContext2D {
    const context = this.#layers[layer]!;
    context.clearRect(0, 0, this.#width, this.#height);
    return context;
  }

  #drawLinks(context: CanvasRenderingContext2D, { links, placement, palette, selected }: Scene): void {
    const { points, style } = placement;
    const isCrowded = style === 'dot';
    // The worst last, so that nothing lies over it.
    const order: readonly Tone[] = ['idle', 'good', 'warn', 'bad'];
    for (const tone of order) {
      context.strokeStyle = tone === 'idle' ? palette.edge : palette[tone];
      for (const link of links) {
        if (link.tone !== tone) continue;
        const isOfSelected = selected === undefined || link.a === selected || link.b === selected;
        const base = tone === 'bad' || tone === 'warn' ? 0.9 : isCrowded ? 0.22 : tone === 'idle' ? 0.7 : 0.5;
        context.globalAlpha = !link.isShown ? 0.05 : isOfSelected ? base : base * 0.25;
        context.lineWidth = tone === 'bad' ? Math.max(2, link.width) : link.width;
        context.setLineDash(tone === 'bad' ? [6, 5] : []);
        const [from, to] = [points[link.a]!, points[link.b]!];
        context.beginPath();
        context.moveTo(from.x, from.y);
        context.lineTo(to.x, to.y);
        context.stroke();
      }
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
  }

  #drawHosts(context: CanvasRenderingContext2D, scene: Scene): void {
    const { placement, palette, selected } = scene;
    context.textBaseline = 'middle';
    scene.hosts.forEach((host, index) => {
      const point = placement.points[index]!;
      context.globalAlpha = host.isShown ? 1 : 0.15;
      const isSelected = index === selected;
      if (placement.style === 'card') drawCard(context, host, point.x, point.y, isSelected, palette);
      else drawSpot(context, host, point.x, point.y, isSelected, scene);
    });
    context.globalAlpha = 1;
  }
}

function drawCard(
  context: CanvasRenderingContext2D,
  { view, label, tone }: SceneHost,
  x: number,
  y: number,
  isSelected: boolean,
  palette: Palette,
): void {
  const [left, top] = [x - CARD_WIDTH / 2, y - CARD_HEIGHT / 2];
  context.beginPath();
  context.roundRect(left, top, CARD_WIDTH, CARD_HEIGHT, 6);
  context.fillStyle = palette.panel;
  context.fill();
  context.lineWidth = isSelected ? 2 : 1;
  context.strokeStyle = isSelected ? palette.tun : tone === 'bad' ? palette.bad : palette.edge;
  context.stroke();
  mark(context, left + 14, top + 15, 4, tone, palette);
  context.textAlign = 'left';
  context.fillStyle = palette.text;
  context.font = `600 13px ${SANS}`;
  context.fillText(fitted(context, label, CARD_WIDTH - 36), left + 25, top + 15.5);
  context.font = `11px ${MONO}`;
  context.fillStyle = palette.dim;
  context.fillText(fitted(context, view.subnets[0] ?? 'no subnet', CARD_WIDTH - 22), left + 11, top + 31);
  context.fillText(fitted(context, view.addresses[0] ?? '', CARD_WIDTH - 22), left + 11, top + 44);
}

function drawSpot(
  context: CanvasRenderingContext2D,
  { label, tone, isShown }: SceneHost,
  x: number,
  y: number,
  isSelected: boolean,
  { placement, palette }: Scene,
): void {
  const radius = placement.style === 'label' ? 6 : placement.reach;
  mark(context, x, y, radius, tone, palette);
  if (isSelected) {
    context.beginPath();
    context.arc(x, y, radius + 4, 0, 7);
    context.lineWidth = 2;
    context.strokeStyle = palette.tun;
    context.stroke();
  }
  // Among very many, only the names that matter.
  const isNamed = placement.style === 'label' || isSelected || (tone === 'bad' && isShown);
  if (!isNamed) return;
  context.font = `500 12px ${SANS}`;
  context.textAlign = 'center';
  context.fillStyle = palette.text;
  context.lineWidth = 3;
  context.strokeStyle = palette.bg;
  context.strokeText(label, x, y - radius - 9);
  context.fillText(label, x, y - radius - 9);
}

/** Tones differ in form as well: not everybody tells the colours apart. */
function mark(
  context: CanvasRenderingContext2D,
  x: number,
  y: number,
  radius: number,
  tone: Tone,
  palette: Palette,
): void {
  context.beginPath();
  if (tone === 'bad') context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  else if (tone === 'warn') {
    context.moveTo(x, y - radius * 1.3);
    context.lineTo(x + radius * 1.3, y);
    context.lineTo(x, y + radius * 1.3);
    context.lineTo(x - radius * 1.3, y);
    context.closePath();
  } else context.arc(x, y, tone === 'idle' ? radius - 0.75 : radius, 0, 7);
  if (tone === 'idle') {
    context.fillStyle = palette.bg;
    context.fill();
    context.lineWidth = 1.5;
    context.strokeStyle = palette.idle;
    context.stroke();
  } else {
    context.fillStyle = palette[tone];
    context.fill();
  }
}

function fitted(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}
