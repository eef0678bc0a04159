import { useMemo } from 'preact/hooks';
import { count } from '../format.ts';
import { isAbout, labelsOf, problemsOf } from '../model/hosts.ts';
import { type Matrix, METRICS, type Metric, matrixOf, RTT_STEPS_MS } from '../model/matrix.ts';
import { choose, filter, overview, route } from '../state.ts';
import { Waiting } from '../waiting.tsx';
import { MatrixPicture } from './matrix-picture.tsx';
import { PairCard } from './pair-card.tsx';

/** Above it the cells have no room for figures. */
const FIGURES_UP_TO = 16;
/** Above it the matrix is a picture: so many elements would make the page slow. */
const TABLE_UP_TO = 40;

/** Every host to every other. */
export function MatrixScreen() {
  const now = overview.value;
  const { query } = route.value;
  const metric = METRICS.find(({ id }) => id === query.metric)?.id ?? 'rtt';
  const matrix = useMemo(() => now && matrixOf(now, metric, filter.value), [now, metric, filter.value]);
  if (now === undefined || matrix === undefined || now.hosts.length === 0) return <Waiting />;
  const [from, to] = [query.from, query.to].map((name) => now.hosts.findIndex((host) => host.name === name));
  const chosen = from !== undefined && to !== undefined && from >= 0 && to >= 0 ? { from, to } : undefined;
  const pick = (row: number, column: number): void =>
    choose({ from: now.hosts[row]!.name, to: now.hosts[column]!.name });
  return (
    <div class="split">
      <div class="matrix">
        <div class="toolbar">
          <MetricChoice metric={metric} />
          <Scale metric={metric} />
        </div>
        {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keyboard. */}
        <section class="matrix-area" tabIndex={0} aria-label="Matrix">
          {matrix.order.length === 0 ? (
            <p class="empty">No host has that name.</p>
          ) : matrix.order.length <= TABLE_UP_TO ? (
            <MatrixTable matrix={matrix} metric={metric} pick={pick} />
          ) : (
            <MatrixPicture overview={now} matrix={matrix} pick={pick} />
          )}
        </section>
      </div>
      <aside class="side" aria-label="Pairs">
        {chosen !== undefined && <PairCard overview={now} from={chosen.from} to={chosen.to} />}
        <Worst />
      </aside>
    </div>
  );
}

function MetricChoice({ metric }: { readonly metric: Metric }) {
  return (
    <div class="choice" role="radiogroup" aria-label="What to show">
      {METRICS.map(({ id, title }) => (
        <label key={id}>
          <input type="radio" name="metric" checked={id === metric} onChange={() => choose({ metric: id })} />
          {title}
        </label>
      ))}
    </div>
  );
}

function Scale({ metric }: { readonly metric: Metric }) {
  const steps = RTT_STEPS_MS.map((ms) => `≤ ${ms} ms`).concat('more');
  return (
    <span class="scale wide">
      {metric === 'rtt' &&
        steps.map((text, index) => (
          <span class="scale" key={text}>
            <i class={`cell-${index}`} /> {text}
          </span>
        ))}
      {metric !== 'rtt' && (
        <span class="scale">
          <i class="cell-0" /> {metric === 'loss' ? 'none' : 'bytes, full size'}
        </span>
      )}
      <span class="scale">
        <i class="cell-warn" /> degraded
      </span>
      <span class="scale">
        <i class="cell-bad" /> broken
      </span>
    </span>
  );
}

interface TableProps {
  readonly matrix: Matrix;
  readonly metric: Metric;
  readonly pick: (row: number, column: number) => void;
}

function MatrixTable({ matrix, metric, pick }: TableProps) {
  const { hosts } = overview.value!;
  const { order } = matrix;
  const hasFigures = order.length <= FIGURES_UP_TO;
  const title = METRICS.find(({ id }) => id === metric)!.title;
  const labels = labelsOf(hosts.map(({ name }) => name));
  return (
    <table class={hasFigures ? 'grid' : 'grid tight'} onKeyDown={moveFocus}>
      <caption class="sr">{title} from the host of the row to that of the column</caption>
      <thead>
        <tr>
          <th>
            <span class="dim">from \ to</span>
          </th>
          {order.map((index) => (
            <th key={index} scope="col" title={hosts[index]!.name}>
              <span>{labels[index]}</span>
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {order.map((from, row) => (
          <tr key={from}>
            <th scope="row" title={hosts[from]!.name}>
              {labels[from]}
            </th>
            {order.map((to, column) => {
              const { look, text, link } = matrix.cell(row, column);
              if (look === 'self') return <td key={to} class="cell-self" />;
              const label = `${hosts[from]!.name} to ${hosts[to]!.name}: ${text || 'not measured'}`;
              return (
                <td key={to} class={`cell-${look}`}>
                  <button
                    type="button"
                    aria-label={link?.why === undefined ? label : `${label}, ${link.why}`}
                    title={link?.why ?? label}
                    data-row={row}
                    data-column={column}
                    onClick={() => pick(from, to)}
                  >
                    {hasFigures ? text || '·' : look === 'bad' ? '✕' : ''}
                  </button>
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Arrow keys from cell to cell, over the diagonal. */
function moveFocus(event: KeyboardEvent): void {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  const cell = event.target as HTMLElement;
  if (step === undefined || cell.dataset.row === undefined) return;
  const table = event.currentTarget as HTMLElement;
  for (let far = 1; far <= 2; far++) {
    const row = Number(cell.dataset.row) + far * step[0]!;
    const column = Number(cell.dataset.column) + far * step[1]!;
    const next = table.querySelector<HTMLElement>(`[data-row="${row}"][data-column="${column}"]`);
    if (next === null) continue;
    event.preventDefault();
    next.focus();
    return;
  }
}

const MAX_WORST = 40;

function Worst() {
  const now = overview.value!;
  const pairs = problemsOf(now).filter((problem) => problem.to !== undefined && isAbout(problem, now, filter.value));
  return (
    <section class="section">
      <h2>{pairs.length === 0 ? 'All measured pairs are healthy' : count(pairs.length, 'pair')}</h2>
      {pairs.slice(0, MAX_WORST).map(({ tone, title, text, host, to }) => (
        <button
          type="button"
          class={`problem ${tone}`}
          key={title}
          onClick={() => choose({ from: now.hosts[host]!.name, to: now.hosts[to!]!.name })}
        >
          <strong>{title}</strong>
          <span>{text}</span>
        </button>
      ))}
      {pairs.length > MAX_WORST && <p class="dim">and {pairs.length - MAX_WORST} more</p>}
    </section>
  );
}
