import { describeHostCommand, type RunHostCommand } from '../config/host-command.ts';
import type { Log } from '../log/log.ts';
import { failingAs } from './failing-as.ts';

/** Runs commands of the network configuration with flannel's lines in the log. */
export function loggedCommands(run: RunHostCommand, log: Pick<Log, 'info'>): RunHostCommand {
  return async (command, signal) => {
    const output = await failingAs('failed to run command: ', () => run(command, signal));
    const said = [output.stdout, output.stderr].filter((text) => text !== '').join(' ');
    log.info(`Ran command: ${describeHostCommand(command)}${said === '' ? '' : `\n  Output: ${said}`}`);
    return output;
  };
}
