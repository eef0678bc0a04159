import { useEffect, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import type { History } from '../model/rates.ts';
import { type ColourName, usePalette } from '../palette.ts';

interface SparklineProps {
  /** Of one length. */
  readonly series: readonly { readonly history: History; readonly colour: ColourName }[];
  readonly height: number;
  /** How many looks there are: draws anew when it rises. */
  readonly looks: number;
}

/** A line without axes: how it moves is the point, the figure stands beside it. */
export function Sparkline({ series, height, looks }: SparklineProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const palette = usePalette();
  const colours = series.map(({ colour }) => palette[colour]).join();
  // The lines are the same as long as their colours are.
  useEffect(() => {
    const area = box.current!;
    const made = new uPlot(
      {
        width: area.clientWidth || 100,
        height,
        padding: [2, 0, 2, 0],
        legend: { show: false },
        cursor: { show: false },
        axes: [{ show: false }, { show: false }],
        scales: { x: { time: true }, y: { range: (_, __, max) => [0, Math.max(max, 1e-9) * 1.05] } },
        series: [
          {},
          ...series.map(({ colour }, index) => ({
            stroke: palette[colour],
            width: 1.5,
            points: { show: false },
            ...(index === 0 && { fill: palette[colour].replace(/^rgb\((.*)\)$/, 'rgba($1, 0.12)') }),
          })),
        ],
      },
      dataOf(series),
      area,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: area.clientWidth, height }));
    observer.observe(area);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [colours, height, series.length]);
  // Histories grow in place; `looks` says that they have.
  useEffect(() => plot.current?.setData(dataOf(series)), [looks]);
  return <div class="spark" ref={box} aria-hidden="true" />;
}

function dataOf(series: SparklineProps['series']): uPlot.AlignedData {
  const [first] = series;
  return [first!.history.atMs.map((ms) => ms / 1000), ...series.map(({ history }) => [...history.values])];
}
