/**
 * Frames through the programs of the fast path, in the kernel, and through the forwarder, compared (root):
 *
 *   node test/fuzz/program-fuzz.ts [--frames 1000000] [--seed N] [--require]
 *
 * Prints seed, rate and totals. Exit code 1 when the two do not think alike, with the frame that shows it in hex. A kernel that does
 * not let us load programs is named, and is an error with --require.
 */
import { parseArgs } from 'node:util';
import { describeError, WeftError } from '../../src/errors.ts';
import { runOutboundFuzz } from './outbound-fuzz-run.ts';
import { openProgramBench, type ProgramBench } from './program-bench.ts';
import { fuzzHosts, ProgramFuzzFailure, runProgramFuzz } from './program-fuzz-run.ts';

async function openBench(underlay: 4 | 6, required: boolean): Promise<ProgramBench | number> {
  try {
    return await openProgramBench(fuzzHosts(underlay), underlay);
  } catch (error) {
    if (!(error instanceof WeftError)) throw error;
    process.stderr.write(`NOT RUN: programs and forwarder are not compared on this machine: ${describeError(error)}\n`);
    return required ? 1 : 0;
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      frames: { type: 'string', default: '1000000' },
      seed: { type: 'string' },
      require: { type: 'boolean', default: false },
      help: { type: 'boolean' },
    },
  });
  const packets = Number(values.frames);
  const seed = values.seed === undefined ? Date.now() >>> 0 : Number(values.seed);
  if (values.help === true || !Number.isSafeInteger(packets) || packets < 1 || !Number.isSafeInteger(seed)) {
    process.stderr.write('usage: node test/fuzz/program-fuzz.ts [--frames 1000000] [--seed N] [--require]\n');
    return 2;
  }
  console.log(`seed ${seed}, ${packets} frames`);
  for (const underlay of [4, 6] as const) {
    const exitCode = await compare(underlay, packets, seed, values.require);
    if (exitCode !== 0) return exitCode;
  }
  return 0;
}

/** Half of the frames: those of one version of IP between the hosts, in and out. */
async function compare(underlay: 4 | 6, packets: number, seed: number, required: boolean): Promise<number> {
  const bench = await openBench(underlay, required);
  if (typeof bench === 'number') return bench;
  await using _ = bench;
  const each = { packets: Math.ceil(packets / 4), seed };
  const started = performance.now();
  try {
    const totals = { ...(await runProgramFuzz(bench, each)), ...runOutboundFuzz(bench, each) };
    const seconds = (performance.now() - started) / 1_000;
    console.log(
      `IPv${underlay} between hosts: ${seconds.toFixed(1)} s, ${Math.round((2 * each.packets) / seconds)} frames/s`,
    );
    for (const [name, count] of Object.entries(totals)) console.log(`  ${name.padEnd(22)} ${count}`);
    return 0;
  } catch (error) {
    if (!(error instanceof ProgramFuzzFailure)) throw error;
    process.stderr.write(
      `FAILED IPv${underlay} between hosts: ${error.message}\nagain: node test/fuzz/program-fuzz.ts --frames ${packets} --seed ${seed}\n`,
    );
    return 1;
  }
}

process.exitCode = await main();
