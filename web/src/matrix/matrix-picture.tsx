import { useEffect, useRef, useState } from 'preact/hooks';
import type { Overview } from '../../../src/ui/overview.ts';
import type { CellLook, Matrix } from '../model/matrix.ts';
import { useThemed } from '../palette.ts';

const LOOKS: readonly CellLook[] = [0, 1, 2, 3, 4, 'warn', 'bad', 'none', 'self'];
const MIN_CELL = 2;
const MAX_CELL = 18;
const LEFT = 110;

interface PictureProps {
  readonly overview: Overview;
  readonly matrix: Matrix;
  readonly pick: (from: number, to: number) => void;
}

/** A matrix of many hosts: a few pixels a cell. The list beside it names the pairs that are not healthy. */
export function MatrixPicture({ overview, matrix, pick }: PictureProps) {
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [hover, setHover] = useState('');
  const colours = useThemed(readColours);
  const count = matrix.order.length;
  const [room, setRoom] = useState(600);
  useEffect(() => {
    const area = box.current!.parentElement!;
    const observer = new ResizeObserver(() => setRoom(Math.min(area.clientWidth - LEFT, area.clientHeight - 70)));
    observer.observe(area);
    return () => observer.disconnect();
  }, []);
  const side = Math.max(MIN_CELL, Math.min(MAX_CELL, Math.floor(room / count)));

  useEffect(() => {
    const context = canvas.current!.getContext('2d')!;
    const ratio = devicePixelRatio;
    context.canvas.width = context.canvas.height = Math.round(side * count * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const gap = side > 5 ? 1 : 0;
    for (let row = 0; row < count; row++) {
      for (let column = 0; column < count; column++) {
        const { look } = matrix.cell(row, column);
        if (look === 'none') continue;
        context.fillStyle = colours.get(look)!;
        // A red cell must be seen, however small the others are.
        const grow = look === 'bad' && side < 6 ? 2 : 0;
        context.fillRect(column * side - grow, row * side - grow, side - gap + 2 * grow, side - gap + 2 * grow);
      }
    }
  }, [matrix, side, count, colours]);

  const at = (event: MouseEvent): readonly [number, number] | undefined => {
    const { left, top } = canvas.current!.getBoundingClientRect();
    const [column, row] = [Math.floor((event.clientX - left) / side), Math.floor((event.clientY - top) / side)];
    return row >= 0 && column >= 0 && row < count && column < count && row !== column ? [row, column] : undefined;
  };
  return (
    <div class="picture" ref={box}>
      {/* The list beside it is the same for keyboard and screen reader. */}
      <canvas
        ref={canvas}
        style={{ width: `${side * count}px`, height: `${side * count}px` }}
        role="img"
        aria-label={`Matrix of ${count} hosts; the list beside it names the pairs that are not healthy`}
        onMouseMove={(event) => {
          const found = at(event);
          if (found === undefined) return setHover('');
          const [row, column] = found;
          const { text, link } = matrix.cell(row, column);
          const [from, to] = [overview.hosts[matrix.order[row]!]!, overview.hosts[matrix.order[column]!]!];
          setHover(`${from.name} → ${to.name}: ${link?.why ?? (text || 'not measured')}`);
        }}
        onMouseLeave={() => setHover('')}
        onClick={(event) => {
          const found = at(event);
          if (found !== undefined) pick(matrix.order[found[0]]!, matrix.order[found[1]]!);
        }}
      />
      <p class="dim top">{hover || 'Rows: from. Columns: to. Point at a cell for the pair.'}</p>
    </div>
  );
}

/** As style.css has them for cells, in the theme of now. */
function readColours(): ReadonlyMap<CellLook, string> {
  const probe = document.createElement('span');
  probe.hidden = true;
  document.body.append(probe);
  const colours = new Map(
    LOOKS.map((look) => {
      probe.className = `cell-${look}`;
      return [look, getComputedStyle(probe).backgroundColor] as const;
    }),
  );
  probe.remove();
  return colours;
}
