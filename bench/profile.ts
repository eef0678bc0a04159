/**
 * `make bench-profile`: where the processor time of 64 KB from container to container goes, for one TCP stream over kernel VXLAN, weft's
 * fast path and weft's forwarder. perf(1) samples both processors while the stream runs; each sample counts for the call or the
 * process that it was taken in. Options: --rounds N, --seconds N (of each stream), --json, --write (docs/PERFORMANCE.md).
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import { describeError, WeftError } from '../src/errors.ts';
import { lines, run, start } from '../src/linux/run.ts';
import { writeBetween } from './document.ts';
import { describeMachine } from './machine.ts';
import { createRig, type Rig, tcpStream } from './measure.ts';
import { createPath, PATH_TITLES, type PathName } from './paths.ts';
import { PERF_FIELDS, readSamples, STAGE_TITLES, STAGES, type Stage, stageOf } from './profile-samples.ts';
import { saysReady } from './says-ready.ts';
import { type Summary, summarise } from './stats.ts';

const PROFILED = ['vxlan', 'weft', 'forwarder'] as const satisfies readonly PathName[];
const UNDERLAYS = ['native', 'wire'] as const;
type Underlay = (typeof UNDERLAYS)[number];
/** Off the beat of timers that fire in whole milliseconds. */
const SAMPLES_PER_SECOND = 1_999;
const UNIT_BYTES = 65_536;
const DIGITS = 1;

type Profile = Readonly<Record<Stage, number>>;
type Profiles = Partial<Record<Underlay, Partial<Record<PathName, Readonly<Record<Stage | 'sum', Summary>>>>>>;

/** Microseconds of processor time for each 64 KB received, by stage. */
async function profile(rig: Rig, seconds: number, directory: string, signal: AbortSignal): Promise<Profile> {
  const file = join(directory, 'perf.data');
  const options = ['--all-cpus', '--event', 'cpu-clock', '--freq', String(SAMPLES_PER_SECOND), '-g', '--output', file];
  // With a command, perf counts from that command's start on.
  await using perf = await start(['perf', 'record', ...options, '--', 'sh', '-c', 'echo ready; exec sleep 600'], {
    signal,
  });
  await saysReady(perf, /^ready$/);
  const { bytes, senderPid } = await tcpStream(rig, seconds, signal);
  perf.kill('SIGINT');
  await perf.exited;
  const [forwarderOut, forwarderIn] = rig.path.forwarders.map(({ pid }) => pid);
  const roles = {
    sender: senderPid,
    receiver: rig.receiverPid,
    forwarders:
      forwarderOut === undefined || forwarderIn === undefined ? undefined : ([forwarderOut, forwarderIn] as const),
  };
  const counts = new Map<Stage, number>(STAGES.map((stage) => [stage, 0]));
  await using script = await start(['perf', 'script', '--input', file, '-F', PERF_FIELDS], { signal });
  let samples = 0;
  for await (const sample of readSamples(lines(script.stdout!))) {
    samples++;
    const stage = stageOf(sample, roles);
    if (stage !== undefined) counts.set(stage, counts.get(stage)! + 1);
  }
  const { code } = await script.exited;
  if (code !== 0 || samples === 0) {
    throw new WeftError('WEFT_LAB_FAILED', `perf recorded ${samples} samples, and perf script ended with ${code}`, {
      hint: `perf record said: ${perf.tail().trim()}\nperf script said: ${script.tail().trim()}`,
    });
  }
  const microseconds = (count: number): number => (count / SAMPLES_PER_SECOND) * 1e6 * (UNIT_BYTES / bytes);
  return Object.fromEntries(STAGES.map((stage) => [stage, microseconds(counts.get(stage)!)])) as Profile;
}

async function profileAll(rounds: number, seconds: number, signal: AbortSignal): Promise<Profiles> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-profile-'));
  try {
    const profiles: Profiles = {};
    for (const underlay of UNDERLAYS) {
      await using stack = new AsyncDisposableStack();
      const rigs: (readonly [PathName, Rig, Profile[]])[] = [];
      for (const name of PROFILED) {
        process.stderr.write(`${underlay}: setting up ${PATH_TITLES[name]}\n`);
        const path = stack.use(await createPath(name, underlay, signal));
        rigs.push([name, stack.use(await createRig(path)), []]);
      }
      for (let round = 0; round < rounds; round++) {
        for (const [name, rig, runs] of rigs) {
          runs.push(await profile(rig, seconds, directory, signal));
          process.stderr.write(
            `${underlay}: ${PATH_TITLES[name]}: ${sum(runs.at(-1)!).toFixed(DIGITS)} µs for 64 KB\n`,
          );
        }
      }
      profiles[underlay] = Object.fromEntries(rigs.map(([name, , runs]) => [name, summaries(runs)]));
    }
    return profiles;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function sum(microseconds: Profile): number {
  return STAGES.reduce((total, stage) => total + microseconds[stage], 0);
}

function summaries(runs: readonly Profile[]): Record<Stage | 'sum', Summary> {
  const stages = STAGES.map((stage) => [stage, summarise(runs.map((one) => one[stage]))] as const);
  return Object.fromEntries([...stages, ['sum', summarise(runs.map(sum))]]) as Record<Stage | 'sum', Summary>;
}

function table(profiles: Profiles): string {
  const columns = UNDERLAYS.flatMap((underlay) => PROFILED.map((name) => [underlay, name] as const));
  const row = (title: string, cells: readonly string[]): string => `| ${title} | ${cells.join(' | ')} |`;
  const cells = (stage: Stage | 'sum'): string[] =>
    columns.map(([underlay, name]) => profiles[underlay]![name]![stage].median.toFixed(DIGITS));
  return [
    row(
      'µs of CPU for each 64 KB received',
      columns.map(([underlay, name]) => `${PATH_TITLES[name]}, ${underlay === 'native' ? 'veth' : 'wire-like'}`),
    ),
    `|---|${columns.map(() => '---|').join('')}`,
    ...STAGES.map((stage) => row(STAGE_TITLES[stage], cells(stage))),
    row('**in all**', cells('sum')),
  ].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '3' },
      json: { type: 'boolean', default: false },
      write: { type: 'boolean', default: false },
    },
  });
  const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
  if (!(Number.isInteger(rounds) && rounds > 0 && seconds > 0))
    throw new RangeError('--rounds and --seconds must be above 0');
  using stopped = untilStopped();
  // perf that is there but may not count says so now, and not after the hosts are made.
  await run(['perf', 'stat', '--all-cpus', '--event', 'cpu-clock', '--', 'true'], { signal: stopped.signal });
  const profiles = await profileAll(rounds, seconds, stopped.signal);
  const machine = describeMachine();
  if (values.write) {
    await writeBetween(
      'docs/PERFORMANCE.md',
      'profile',
      `${table(profiles)}\n\nMedians of ${rounds} rounds. Measured by \`make bench-profile ARGS=--write\`: ${machine}.`,
    );
  }
  if (values.json) process.stdout.write(`${JSON.stringify({ machine, profiles }, undefined, 2)}\n`);
  else process.stdout.write(`${table(profiles)}\n\n${machine}\n`);
}

try {
  await main();
} catch (error) {
  process.stderr.write(`bench: ${describeError(error)}\n`);
  process.exitCode = 1;
}
