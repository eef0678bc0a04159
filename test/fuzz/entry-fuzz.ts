/**
 * Random entries through the parsers of the three stores:
 *
 *   node test/fuzz/entry-fuzz.ts [--entries 1000000] [--seed N]
 *
 * Prints seed, rate and totals. Exit code 1 when something is wrong, with the entry that shows it.
 */
import { parseArgs } from 'node:util';
import { EntryFuzzFailure, runEntryFuzz } from './entry-fuzz-run.ts';

function main(): number {
  const { values } = parseArgs({
    options: { entries: { type: 'string', default: '1000000' }, seed: { type: 'string' }, help: { type: 'boolean' } },
  });
  const entries = Number(values.entries);
  const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed);
  if (values.help === true || !Number.isSafeInteger(entries) || entries < 1 || !Number.isSafeInteger(seed)) {
    process.stderr.write('usage: node test/fuzz/entry-fuzz.ts [--entries 1000000] [--seed N]\n');
    return 2;
  }
  console.log(`seed ${seed}, ${entries} entries`);
  const started = performance.now();
  try {
    const totals = runEntryFuzz({ entries, seed });
    const seconds = (performance.now() - started) / 1_000;
    console.log(`${seconds.toFixed(1)} s, ${Math.round(totals.entries / seconds)} entries/s`);
    for (const [name, count] of Object.entries(totals)) console.log(`  ${name.padEnd(12)} ${Math.round(count)}`);
    return 0;
  } catch (error) {
    if (!(error instanceof EntryFuzzFailure)) throw error;
    process.stderr.write(
      `FAILED ${error.message}\nagain: node test/fuzz/entry-fuzz.ts --entries ${entries} --seed ${seed}\n`,
    );
    return 1;
  }
}

process.exitCode = main();
