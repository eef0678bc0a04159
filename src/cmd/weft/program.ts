import { Command } from 'commander';
import type { ProcessLife } from '../process-life.ts';
import { VERSION } from '../version.ts';
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

/** `weft` with all its commands; docs/COMMANDS.md lists the same options (a test compares the two). Throws where commander would exit. */
export function weftProgram(life: ProcessLife): Command {
  const program = new Command('weft')
    .description('A flannel-compatible overlay network for containers.')
    .version(VERSION, '-V, --version', 'print the version')
    .showHelpAfterError('(weft --help lists the commands)')
    .commandsGroup('Ask the agent:')
    .addCommand(statusCommand())
    .addCommand(peersCommand())
    .addCommand(leasesCommand())
    .addCommand(eventsCommand())
    .addCommand(topCommand())
    .addCommand(uiCommand(life))
    .commandsGroup('Find what is broken:')
    .addCommand(doctorCommand())
    .addCommand(testCommand())
    .addCommand(pingCommand())
    .addCommand(traceCommand())
    .addCommand(captureCommand())
    .addCommand(bugreportCommand())
    .commandsGroup('Set up and remove:')
    .addCommand(installCniCommand())
    .addCommand(dockerOptsCommand())
    .addCommand(rotateKeyCommand())
    .addCommand(cleanupCommand())
    .commandsGroup('Without a cluster:')
    .addCommand(labCommand(life))
    .addCommand(tunnelCommand(life));
  for (const command of [program, ...program.commands]) command.exitOverride();
  return program;
}
