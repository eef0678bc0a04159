import { Command } from 'commander';
import { DEFAULT_CONF_TEMPLATE } from '../../cni/conf-list.ts';
import type { CheckResult } from '../../doctor/check.ts';
import type { DoctorPaths } from '../../doctor/host.ts';
import { untilStopped } from '../stop-signal.ts';
import { DEFAULT_PATHS, examineFastPath, examineHost } from './examine-host.ts';
import { portNumber } from './option-values.ts';

const MARKS = { ok: '✔', warn: '!', fail: '✖' } as const;

interface DoctorFlags extends DoctorPaths {
  readonly fastPath?: true;
  readonly json?: true;
}

/**
 * `weft doctor`: all that can keep pods of this host from having a network, looked at one by one. Exit code 1 when a check
 * has failed; warnings do not count. With `--json`, standard output gets `{ok, checks}` and nothing else.
 */
export function doctorCommand(): Command {
  return new Command('doctor')
    .summary('check this host for problems')
    .description('Check this host for problems that break pod networking, and suggest fixes. Changes nothing.')
    .option('--subnet-file <file>', "the agent's --subnet-file", DEFAULT_PATHS.subnetFile)
    .option('--net-config-path <file>', "the agent's --net-config-path", DEFAULT_PATHS.netConfigPath)
    .option('--healthz-port <port>', "the agent's --healthz-port", portNumber, DEFAULT_PATHS.healthzPort)
    .option('--cni-conf-dir <dir>', 'CNI configuration directory of the container runtime', DEFAULT_PATHS.cniConfDir)
    .option('--cni-conf-template <file>', "the agent's --cni-conf-template", DEFAULT_CONF_TEMPLATE)
    .option('--cni-bin-dir <dir>', 'CNI plugin directory of the container runtime', DEFAULT_PATHS.cniBinDir)
    .option('--fast-path', 'only check whether the agent can use the fast path on this host; exit with 1 if not')
    .option('--json', 'print one JSON object')
    .action((flags: DoctorFlags) => examine(flags, flags.json === true));
}

async function examine(paths: DoctorFlags, json: boolean): Promise<void> {
  using stopped = untilStopped();
  const results =
    paths.fastPath === true ? await examineFastPath(stopped.signal) : await examineHost(paths, stopped.signal);
  const failed = results.some(({ status }) => status === 'fail');
  process.stdout.write(json ? `${JSON.stringify({ ok: !failed, checks: results })}\n` : results.map(render).join(''));
  process.exitCode = failed ? 1 : 0;
}

function render(result: CheckResult): string {
  const line = `${MARKS[result.status]} ${result.name.padEnd(16)} ${result.looksAt}: ${result.found}\n`;
  return result.status === 'ok' ? line : `${line}${' '.repeat(19)}→ ${result.remedy}\n`;
}
