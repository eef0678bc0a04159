/** `weft`: the command for people. One file a verb. */
import { Command, CommanderError } from 'commander';
import { describeError, WeftError } from '../../errors.ts';
import { openOutput } from '../../linux/output.ts';
import { printableLines } from '../../printable.ts';
import { type ProcessLife, runProgram } from '../process-life.ts';
import { bugreportCommand } from './bugreport.ts';
import { captureCommand } from './capture.ts';
import { cleanupCommand } from './cleanup.ts';
import { dockerOptsCommand } from './docker-opts.ts';
import { doctorCommand } from './doctor.ts';
import { eventsCommand } from './events.ts';
import { installCniCommand } from './install-cni.ts';
import { labCommand } from './lab.ts';
import { leasesCommand } from './leases.ts';
import { peersCommand } from './peers.ts';
import { pingCommand } from './ping.ts';
import { rotateKeyCommand } from './rotate-key.ts';
import { statusCommand } from './status.ts';
import { testCommand } from './test.ts';
import { topCommand } from './top.ts';
import { traceCommand } from './trace.ts';
import { tunnelCommand } from './tunnel.ts';
import { uiCommand } from './ui.ts';

/** Wrong usage, as most Unix programs have it. */
const EXIT_USAGE = 2;
/** Errors of the lab end with the last lines of an agent's log. */
const MAX_ERROR = 10_000;

async function main(life: ProcessLife): Promise<number> {
  const program = new Command('weft')
    .description('A flannel-compatible overlay network for containers.')
    .showHelpAfterError('(weft --help lists the commands)')
    .addCommand(labCommand(life))
    .addCommand(tunnelCommand(life))
    .addCommand(uiCommand(life))
    .addCommand(cleanupCommand())
    .addCommand(dockerOptsCommand())
    .addCommand(installCniCommand())
    .addCommand(statusCommand())
    .addCommand(peersCommand())
    .addCommand(leasesCommand())
    .addCommand(eventsCommand())
    .addCommand(topCommand())
    .addCommand(bugreportCommand())
    .addCommand(doctorCommand())
    .addCommand(rotateKeyCommand())
    .addCommand(testCommand())
    .addCommand(pingCommand())
    .addCommand(traceCommand())
    .addCommand(captureCommand());
  for (const command of [program, ...program.commands]) command.exitOverride();
  try {
    await program.parseAsync();
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
    process.stderr.write(`weft: ${printableLines(describeError(error), MAX_ERROR)}\n`);
    return error instanceof WeftError && error.code === 'WEFT_USAGE' ? EXIT_USAGE : 1;
  }
}

runProgram('weft', (text) => openOutput(2)(`weft: ${printableLines(text, MAX_ERROR)}\n`), main);
