/**
 * `make bench-start-up`: the one executable of `make dist` beside the sources: its size, and how long each program takes to its
 * first answer. Runs are interleaved, so that a busy machine is busy for both. Options: --runs N, --json.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { architecturesOf, DIST, ROOT } from '../scripts/packaging/architecture.ts';
import { describeError } from '../src/errors.ts';
import { run } from '../src/linux/run.ts';
import { type Summary, summarise } from './stats.ts';

interface Program {
  readonly title: string;
  /** Its name in dist/ and below src/cmd/. */
  readonly name: string;
  readonly folder: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

const PROGRAMS: readonly Program[] = [
  { title: '`flanneld --version`', name: 'flanneld', folder: 'flanneld', args: ['--version'] },
  { title: '`weft --help`', name: 'weft', folder: 'weft', args: ['--help'] },
  { title: 'CNI plugin, `VERSION`', name: 'flannel', folder: 'cni', args: [], env: { CNI_COMMAND: 'VERSION' } },
];
const WAYS = ['executable', 'sources', 'sources, compile cache'] as const;
type Way = (typeof WAYS)[number];

const executables = join(DIST, `linux-${architecturesOf([])[0]!.name}`);

async function once(program: Program, way: Way, cache: string): Promise<number> {
  const source = join(ROOT, 'src/cmd', program.folder, 'main.ts');
  const command =
    way === 'executable'
      ? [join(executables, program.name)]
      : [process.execPath, '--disable-warning=ExperimentalWarning', source];
  const env = { ...program.env, ...(way === 'sources, compile cache' ? { NODE_COMPILE_CACHE: cache } : {}) };
  const from = performance.now();
  await run([...command, ...program.args], { env, stdin: '{"cniVersion":"1.0.0"}' });
  return performance.now() - from;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { runs: { type: 'string', default: '20' }, json: { type: 'boolean', default: false } },
  });
  const runs = Number(values.runs);
  if (!(Number.isInteger(runs) && runs > 0)) throw new RangeError('--runs must be above 0');
  const file = readFileSync(join(executables, 'weft'));
  const size = { megabytes: file.length / 1e6, gzippedMegabytes: gzipSync(file, { level: 9 }).length / 1e6 };
  const cache = mkdtempSync(join(tmpdir(), 'weft-bench-start-up-'));
  const figures: Record<string, Record<Way, Summary>> = {};
  try {
    for (const program of PROGRAMS) {
      const taken: Record<Way, number[]> = { executable: [], sources: [], 'sources, compile cache': [] };
      // The first round fills caches.
      for (let round = -1; round < runs; round++) {
        for (const way of WAYS) {
          const ms = await once(program, way, cache);
          if (round >= 0) taken[way].push(ms);
        }
      }
      const summaries = WAYS.map((way) => [way, summarise(taken[way])]);
      figures[program.title] = Object.fromEntries(summaries) as Record<Way, Summary>;
    }
  } finally {
    rmSync(cache, { recursive: true });
  }
  const machine = `${cpus().length} cores, Linux ${release()}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`;
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ machine, unit: 'ms', size, figures })}\n`);
    return;
  }
  const cell = ({ median, min }: Summary): string => `${median.toFixed(0)} (${min.toFixed(0)})`;
  const rows = Object.entries(figures).map(
    ([title, byWay]) => `| ${title} | ${WAYS.map((way) => cell(byWay[way])).join(' | ')} |`,
  );
  process.stdout.write(
    `${[`| ms to the answer, median (fastest) | ${WAYS.join(' | ')} |`, '|---|---|---|---|', ...rows].join('\n')}\n\n` +
      `${size.megabytes.toFixed(0)} MB, ${size.gzippedMegabytes.toFixed(0)} MB gzipped; ${runs} interleaved runs; ${machine}\n`,
  );
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
