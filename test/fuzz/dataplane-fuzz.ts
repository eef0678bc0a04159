/**
 * Random and mutated packets through the data plane's core:
 *
 *   node test/fuzz/dataplane-fuzz.ts [--packets 10000000] [--seed N]
 *
 * Prints seed, rate and totals. Exit code 1 when something is wrong, with the packets that show it in hex. The packets
 * run on a thread of their own, watched by this one: a loop without end is found too.
 */
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { batchAt, FuzzFailure, type FuzzTotals, runFuzz } from './fuzz-run.ts';

/** A batch takes well under a millisecond; the longest, a few super-packets of one-byte segments, some hundred. */
const STUCK_AFTER_MS = 60_000;

type Report = { readonly totals: FuzzTotals } | { readonly failure: string };

interface Job {
  readonly packets: number;
  readonly seed: number;
  /** Float64: packets so far; Int32: batches, state of the generator before the batch at work. */
  readonly progress: SharedArrayBuffer;
}

function work({ packets, seed, progress }: Job): Report {
  const done = new Float64Array(progress, 0, 1);
  const words = new Int32Array(progress, 8, 2);
  let batches = 0;
  try {
    const onBatch = (soFar: number, state: number): void => {
      done[0] = soFar;
      words[1] = state;
      Atomics.store(words, 0, ++batches | 0);
    };
    return { totals: runFuzz({ packets, seed, onBatch }) };
  } catch (error) {
    if (error instanceof FuzzFailure) return { failure: error.message };
    throw error;
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { packets: { type: 'string', default: '10000000' }, seed: { type: 'string' }, help: { type: 'boolean' } },
  });
  const packets = Number(values.packets);
  const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed);
  if (values.help === true || !Number.isSafeInteger(packets) || packets < 1 || !Number.isSafeInteger(seed)) {
    process.stderr.write('usage: node test/fuzz/dataplane-fuzz.ts [--packets 10000000] [--seed N]\n');
    return 2;
  }
  console.log(`seed ${seed}, ${packets} packets`);
  const progress = new SharedArrayBuffer(16);
  const words = new Int32Array(progress, 8, 2);
  const started = performance.now();
  const worker = new Worker(new URL(import.meta.url), { workerData: { packets, seed, progress } satisfies Job });
  const report = new Promise<Report>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
    let batches = -1;
    let movedAt = performance.now();
    const timer = setInterval(() => {
      const now = Atomics.load(words, 0);
      if (now !== batches) {
        batches = now;
        movedAt = performance.now();
      } else if (performance.now() - movedAt > STUCK_AFTER_MS) {
        resolve({ failure: `hangs in the batch after state ${words[1]}:\n${batchAt(seed, words[1] ?? 0)}` });
      }
    }, 500);
    worker.once('exit', () => clearInterval(timer));
  });
  const outcome = await report;
  await worker.terminate();
  if ('failure' in outcome) {
    process.stderr.write(
      `FAILED ${outcome.failure}\nagain: node test/fuzz/dataplane-fuzz.ts --packets ${packets} --seed ${seed}\n`,
    );
    return 1;
  }
  const seconds = (performance.now() - started) / 1_000;
  const { drops, ...totals } = outcome.totals;
  console.log(`${seconds.toFixed(1)} s, ${Math.round(totals.packets / seconds)} packets/s`);
  for (const [name, count] of Object.entries(totals)) console.log(`  ${name.padEnd(10)} ${count}`);
  console.log('dropped:');
  for (const [reason, count] of Object.entries(drops)) console.log(`  ${reason.padEnd(20)} ${count}`);
  return 0;
}

if (isMainThread) process.exitCode = await main();
else parentPort?.postMessage(work(workerData as Job));
