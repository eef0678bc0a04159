import { readFile } from 'node:fs/promises';
import { Command } from 'commander';
import { confFilesBefore, hiddenBy } from '../../cni/conf-dir.ts';
import {
  CONF_FILE_NAME,
  type ConfList,
  DEFAULT_CONF_TEMPLATE,
  FLANNEL_CONF_LIST,
  parseConfList,
  programsOf,
} from '../../cni/conf-list.ts';
import { installPlugins, type PluginOutcome } from '../../cni/install-plugins.ts';
import { DEBIAN_PLUGIN_FOLDER } from '../../cni/plugin-remedy.ts';
import { hasErrno } from '../../errno.ts';
import { describeError, WeftError } from '../../errors.ts';
import { ensureTunNode } from '../../linux/tun-device.ts';

interface InstallCniFlags {
  readonly binDir: string;
  readonly source: readonly string[];
  readonly conf: string;
  readonly confDir: string;
  readonly wrapper?: true;
  readonly tunDevice?: true;
  readonly json?: true;
}

/**
 * `weft install-cni`: what must be on a node before its first pod. Exit code 0 when every plugin that the configuration
 * names can be started, 1 when one is missing. Standard output has a line for each plugin, or one JSON object.
 */
export function installCniCommand(): Command {
  return new Command('install-cni')
    .summary('install the CNI plugins that the network needs')
    .description(
      'Install the CNI plugins that the network needs for the container runtime. Existing plugins are never overwritten.',
    )
    .option('--bin-dir <dir>', 'CNI plugin directory of the container runtime', '/opt/cni/bin')
    .option('--source <dir...>', 'directories to copy missing plugins from', [DEBIAN_PLUGIN_FOLDER])
    .option(
      '--conf <file>',
      "CNI configuration that names the plugins; if the file does not exist, flannel's default",
      DEFAULT_CONF_TEMPLATE,
    )
    .option(
      '--conf-dir <dir>',
      "CNI configuration directory, checked for files that take precedence over weft's",
      '/etc/cni/net.d',
    )
    .option(
      '--wrapper',
      'also install the flannel plugin, for pods that start with it instead of with the configuration written by the agent',
    )
    .option('--tun-device', 'also create /dev/net/tun if it is missing, so that the agent does not need CAP_MKNOD')
    .option('--json', 'print one JSON object')
    .action((flags: InstallCniFlags) => install(flags));
}

async function install(flags: InstallCniFlags): Promise<void> {
  const tun = flags.tunDevice === true ? ensureTunNode() : undefined;
  const list = await readConf(flags.conf);
  const plugins = [...programsOf(list, flags.wrapper === true), 'loopback'];
  const outcomes = await installPlugins({ plugins, binDir: flags.binDir, sources: flags.source });
  const hiding = await confFilesBefore(flags.confDir, CONF_FILE_NAME);
  if (flags.json) {
    const result = { binDir: flags.binDir, plugins: outcomes, hiding, ...(tun !== undefined && { tunDevice: tun }) };
    process.stdout.write(`${JSON.stringify(result)}\n`);
  } else for (const outcome of outcomes) process.stdout.write(`${describeOutcome(outcome, flags.binDir)}\n`);
  if (tun?.status === 'made' && !flags.json) process.stdout.write('made /dev/net/tun (character device 10:200)\n');
  if (tun?.status === 'missing') process.stderr.write(`weft: warning: no TUN device: ${tun.reason}. ${tun.remedy}\n`);
  if (hiding.length > 0) process.stderr.write(`weft: warning: ${hiddenBy(flags.confDir, hiding, CONF_FILE_NAME)}\n`);
  const missing = outcomes.filter((outcome) => outcome.status === 'missing');
  if (missing.length === 0) return;
  throw new WeftError(
    'WEFT_CNI_PLUGIN_MISSING',
    `CNI plugins that ${list === FLANNEL_CONF_LIST ? 'the network' : flags.conf} needs cannot be started: ${missing.map(({ name }) => name).join(', ')}`,
    { hint: missing.map(({ remedy }) => remedy).join(' ') },
  );
}

async function readConf(path: string): Promise<ConfList> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return FLANNEL_CONF_LIST;
    throw new WeftError('WEFT_CNI_CONF_INVALID', `cannot read the CNI configuration ${path}: ${describeError(error)}`, {
      hint: 'Check the path, its permissions and, in a pod, the mount of the ConfigMap.',
      cause: error,
    });
  }
  return parseConfList(text, path);
}

function describeOutcome(outcome: PluginOutcome, binDir: string): string {
  const what = `${outcome.name.padEnd(12)} ${outcome.status.padEnd(9)}`;
  switch (outcome.status) {
    case 'present':
      return `${what} ${binDir}/${outcome.name}`;
    case 'installed':
    case 'updated':
      return `${what} ${binDir}/${outcome.name} from ${outcome.from}`;
    case 'missing':
      return `${what} ${outcome.remedy}`;
  }
}
