/**
 * `scripts/run.sh scripts/faults-table.ts FILE [DOCUMENT]`: the rows that the tests have appended to FILE as a Markdown table, on
 * standard output or between the markers of DOCUMENT.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import type { Row } from '../test/e2e/fault-net.ts';

const MARKERS = /(<!-- faults:start -->\n).*?(<!-- faults:end -->)/s;

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(ms < 10_000 ? 2 : 0)} s`;
}

/** Test files run in the order of their names; the table goes from the store to the hosts. */
function rank({ store, fault }: Row): number {
  return (fault.startsWith('clock') ? 10 : 0) + ['etcd', 'Kubernetes', 'local'].indexOf(store);
}

function table(rows: readonly Row[]): string {
  const lines = rows
    .toSorted((a, b) => rank(a) - rank(b))
    .map(
      ({ store, fault, sent, lost, longestGapMs, recoveredMs, leasesLost }) =>
        `| ${store} | ${fault} | ${lost} of ${sent} | ${seconds(longestGapMs)} | ${seconds(recoveredMs)} | ${leasesLost} |`,
    );
  return [
    '| store | fault | packets lost | longest silence | recovered after | leases lost |',
    '|---|---|---|---|---|---|',
    ...lines,
    '',
    `Measured on ${cpus().length} busy cores (${cpus()[0]?.model.trim() ?? 'unknown'}).`,
    '',
  ].join('\n');
}

const [file, document] = process.argv.slice(2);
if (file === undefined) throw new Error('usage: faults-table.ts FILE [DOCUMENT]');
const rows = (await readFile(file, 'utf8'))
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line) as Row);
const text = table(rows);
if (document === undefined) {
  process.stdout.write(text);
} else {
  const before = await readFile(document, 'utf8');
  if (!MARKERS.test(before)) throw new Error(`${document} has no markers for the table`);
  await writeFile(
    document,
    before.replace(MARKERS, (_all, start: string, end: string) => `${start}\n${text}\n${end}`),
  );
}
