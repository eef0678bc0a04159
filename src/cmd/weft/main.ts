/** `weft`: the command for people. One file a verb. */
import { Command, CommanderError } from 'commander';
import { describeError, WeftError } from '../../errors.ts';
import { cleanupCommand } from './cleanup.ts';
import { dockerOptsCommand } from './docker-opts.ts';
import { doctorCommand } from './doctor.ts';
import { installCniCommand } from './install-cni.ts';
import { labCommand } from './lab.ts';
import { tunnelCommand } from './tunnel.ts';

/** Wrong usage, as most Unix programs have it. */
const EXIT_USAGE = 2;

const program = new Command('weft')
  .description('A flannel-compatible overlay network for containers.')
  .showHelpAfterError('(weft --help lists the commands)')
  .addCommand(labCommand())
  .addCommand(tunnelCommand())
  .addCommand(cleanupCommand())
  .addCommand(dockerOptsCommand())
  .addCommand(installCniCommand())
  .addCommand(doctorCommand());
for (const command of [program, ...program.commands]) command.exitOverride();

// No await here: the single executable is a CommonJS module, which has none outside functions.
program.parseAsync().catch((error: unknown) => {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : EXIT_USAGE;
  } else {
    process.stderr.write(`weft: ${describeError(error)}\n`);
    process.exitCode = error instanceof WeftError && error.code === 'WEFT_USAGE' ? EXIT_USAGE : 1;
  }
});
