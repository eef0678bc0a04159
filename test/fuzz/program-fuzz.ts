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
import { FUZZ_PEERS, ProgramFuzzFailure, runProgramFuzz } from './program-fuzz-run.ts';

async function openBench(required: boolean): Promise<ProgramBench | number> {
  try {
    return await openProgramBench(FUZZ_PEERS.map(({ publicIp }) => publicIp));
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
  const bench = await openBench(values.require);
  if (typeof bench === 'number') return bench;
  await using _ = bench;
  console.log(`seed ${seed}, ${packets} frames`);
  const started = performance.now();
  try {
    const totals = {
      ...(await runProgramFuzz(bench, { packets: Math.ceil(packets / 2), seed })),
      ...runOutboundFuzz(bench, { packets: Math.ceil(packets / 2), seed }),
    };
    const seconds = (performance.now() - started) / 1_000;
    console.log(`${seconds.toFixed(1)} s, ${Math.round(packets / seconds)} frames/s`);
    for (const [name, count] of Object.entries(totals)) console.log(`  ${name.padEnd(22)} ${count}`);
    return 0;
  } catch (error) {
    if (!(error instanceof ProgramFuzzFailure)) throw error;
    process.stderr.write(
      `FAILED ${error.message}\nagain: node test/fuzz/program-fuzz.ts --frames ${packets} --seed ${seed}\n`,
    );
    return 1;
  }
}

process.exitCode = await main();
