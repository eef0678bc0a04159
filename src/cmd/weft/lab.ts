import { Command, InvalidArgumentError, Option } from 'commander';
import { DEFAULT_BACKEND } from '../../config/net-conf.ts';
import { describeOutcome, removeLabs } from '../../lab/down.ts';
import { LAB_BACKENDS, MAX_LAB_HOSTS, MIN_HOSTS, runLab } from '../../lab/lab.ts';
import { Progress } from '../../lab/progress.ts';
import { renderReport, WIDE_COLUMNS } from '../../lab/report.ts';
import { SUBNET_STORE_KINDS, type SubnetStoreKind } from '../../lab/subnet-store.ts';
import type { ProcessLife } from '../process-life.ts';

interface LabFlags {
  readonly hosts: number;
  readonly keep?: true;
  readonly open?: true;
  readonly json?: true;
  readonly subnetMgr: SubnetStoreKind;
  readonly backend: string;
}

/**
 * `weft lab` and `weft lab down`. Exit code 0 when everything passed (`down`: everything asked for was removed), 1 when
 * not, 130 when interrupted. With `--json`, standard output gets one JSON object and nothing else; progress goes to
 * standard error.
 */
export function labCommand(life: ProcessLife): Command {
  const lab = new Command('lab')
    .summary('run a network of simulated hosts on this machine')
    .description(
      'Run a network of simulated hosts on this machine: a network namespace for each host, with an agent and containers that exchange real packets.',
    )
    .option('--hosts <n>', `number of hosts, ${MIN_HOSTS} to ${MAX_LAB_HOSTS}`, hostCount, 3)
    .option('--keep', 'leave the lab running and print commands to try')
    .option('--open', 'like --keep, and open its page in a browser')
    .option('--json', 'print one JSON object')
    .addOption(
      new Option('--subnet-mgr <kind>', 'lease store of the agents').choices(SUBNET_STORE_KINDS).default('local'),
    )
    .addOption(
      new Option('--backend <type>', 'backend that carries packets between hosts')
        .choices(LAB_BACKENDS)
        .default(DEFAULT_BACKEND),
    )
    .action((flags: LabFlags) => runAndShow(flags, life));
  lab
    .command('down')
    .argument('[id]', 'lab to remove, even if it is in use (default: all labs that are not in use)')
    .description('Remove labs left by --keep or by a crash.')
    .action((id: string | undefined) => down(id));
  return lab;
}

function hostCount(text: string): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= MIN_HOSTS && value <= MAX_LAB_HOSTS)) {
    throw new InvalidArgumentError(`want a whole number from ${MIN_HOSTS} to ${MAX_LAB_HOSTS}`);
  }
  return value;
}

/** What was made is removed, also after an error that should not be possible; that takes a while for a large lab. */
const REMOVAL_MS = 60_000;

async function runAndShow(flags: LabFlags, life: ProcessLife): Promise<void> {
  const out = flags.json ? process.stderr : process.stdout;
  const colour = out.isTTY === true && !process.env.NO_COLOR;
  // A reader that has gone away (`| head`) or a closed terminal must not stop the removal of what was made.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  using stop = life.untilStopped({ fatalMs: REMOVAL_MS });
  const hangUp = new AbortController();
  process.once('SIGHUP', () => hangUp.abort(new Error('the terminal was closed')));
  const signal = AbortSignal.any([stop.signal, hangUp.signal]);
  const result = await (async () => {
    using progress = new Progress({
      write: (text) => out.write(text),
      isTerminal: out.isTTY === true && process.env.TERM !== 'dumb',
      colour,
    });
    const options = {
      hosts: flags.hosts,
      subnetStore: flags.subnetMgr,
      backend: flags.backend,
      keep: flags.keep ?? flags.open ?? false,
      open: flags.open ?? false,
      purpose: `weft ${process.argv.slice(2).join(' ')}`,
    };
    try {
      return await runLab(options, progress, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
      return undefined;
    }
  })();
  if (result === undefined) {
    process.stderr.write('weft lab: interrupted; the lab has been removed\n');
    process.exitCode = 130;
    return;
  }
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } else {
    process.stdout.write(renderReport(result, { colour, width: process.stdout.columns ?? WIDE_COLUMNS }));
  }
  process.exitCode = result.ok ? 0 : 1;
}

async function down(id: string | undefined): Promise<void> {
  const outcomes = await removeLabs(id);
  if (outcomes.length === 0) process.stdout.write('there are no labs on this machine\n');
  for (const outcome of outcomes) {
    const stream = outcome.kind === 'removed' ? process.stdout : process.stderr;
    stream.write(`${describeOutcome(outcome)}\n`);
    if (outcome.kind === 'failed') process.exitCode = 1;
  }
}
