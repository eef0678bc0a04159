import { writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { Command } from 'commander';
import { type AgentClient, agentClient, overSocket } from '../../api/client.ts';
import { ANSWERS, type Endpoint } from '../../api/schema.ts';
import { DEFAULT_API_SOCKET } from '../../config/agent-sockets.ts';
import { describeError, WeftError } from '../../errors.ts';
import { run } from '../../linux/run.ts';
import { startupErrorPath } from '../../node-files/last-error.ts';
import { untilStopped } from '../stop-signal.ts';
import { VERSION } from '../version.ts';
import { type AgentFlags, append, askAll, clientsOf, withRemote } from './agent-target.ts';
import { examineHost } from './examine-host.ts';
import { redact } from './redact.ts';
import { isHealthy, problemsOf } from './status-problems.ts';
import { renderStatus } from './status-report.ts';
import { type TarFile, tarOf } from './tar.ts';

const COMMAND_MS = 15_000;
const LOG_LINES = '5000';
/** The name of a node can be longer than that of a file in the archive. */
const MAX_DIRECTORY = 32;
const VERSIONS = `weft ${VERSION}, Node.js ${process.version}, ${process.platform}/${process.arch}\n`;
/** Of one text; the end is what counts. */
const MAX_TEXT = 4 << 20;

/** What is read of the host; each may be missing, which the report says. None prints a key. */
const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  'host/uname.txt': ['uname', '-a'],
  'host/links.txt': ['ip', '-d', '-s', 'link', 'show'],
  'host/addresses.txt': ['ip', 'address', 'show'],
  'host/routes.txt': ['ip', '-d', 'route', 'show', 'table', 'all'],
  'host/routes6.txt': ['ip', '-6', '-d', 'route', 'show', 'table', 'all'],
  'host/rules.txt': ['ip', 'rule', 'show'],
  'host/neighbours.txt': ['ip', '-s', 'neighbour', 'show'],
  'host/fdb.txt': ['bridge', 'fdb', 'show'],
  'host/xfrm-policies.txt': ['ip', 'xfrm', 'policy'],
  'host/xfrm-states.txt': ['ip', 'xfrm', 'state', 'list', 'nokeys'],
  'host/nft.txt': ['nft', 'list', 'ruleset'],
  'host/iptables.txt': ['iptables-save', '-c'],
  'host/ip6tables.txt': ['ip6tables-save', '-c'],
  'host/wireguard.txt': ['wg', 'show'],
  'host/sockets.txt': ['ss', '-uanp'],
  'host/sysctls.txt': [
    ...['sysctl', 'net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding', 'net.ipv4.conf.all.rp_filter'],
    ...['net.core.rmem_max', 'net.core.wmem_max'],
  ],
  'versions/ip.txt': ['ip', '-V'],
  'versions/nft.txt': ['nft', '--version'],
  'versions/iptables.txt': ['iptables', '--version'],
  'versions/wg.txt': ['wg', '--version'],
};

interface BugreportFlags extends AgentFlags {
  readonly socket: string;
  readonly output?: string;
  readonly log?: string;
  readonly unit: string;
}

/** `weft bugreport`: all that a maintainer asks for, in one archive. Sends nothing anywhere. */
export function bugreportCommand(): Command {
  return withRemote(new Command('bugreport'))
    .summary('collect what a maintainer needs into one archive')
    .description(
      'Collect what a maintainer needs into one archive. It leaves out keys, tokens and passwords; look at it before you send it. Changes nothing. With --cluster, --node or --host, the archive contains the answers of those agents, and nothing from this host.',
    )
    .option('-o, --output <file>', 'archive to write (default: weft-bugreport-HOST-TIME.tar.gz in this directory)')
    .option('--socket <file>', "the agent's socket (--api-socket)", DEFAULT_API_SOCKET)
    .option('--host <[name=]url>', 'ask the agent at this URL (its --api-listen); may be repeated', append)
    .option('--node <name>', 'ask the agent of this Kubernetes node, through the API server')
    .option('--log <file>', "the agent's log (default: the journal of --unit)")
    .option('--unit <name>', 'its systemd unit', 'weft-flanneld')
    .action((flags: BugreportFlags) => report(flags));
}

async function report(flags: BugreportFlags): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  const now = new Date();
  const time = now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  const isRemote = flags.cluster === true || flags.node !== undefined || flags.host !== undefined;
  const name = `weft-bugreport-${isRemote ? 'agents' : fileName(hostname(), 40)}-${time}`;
  const files = isRemote ? await collectRemote(flags, signal) : await collect(flags, signal);
  const shown = files.map(({ name: path, content }) => ({ name: `${name}/${path}`, content: redact(content) }));
  const path = flags.output ?? `${name}.tar.gz`;
  const archive = gzipSync(tarOf(shown, now));
  try {
    // What is in it is for its owner, and nothing that is there is overwritten.
    writeFileSync(path, archive, { flag: 'wx', mode: 0o600 });
  } catch (error) {
    throw new WeftError('WEFT_OUTPUT_UNWRITABLE', `cannot write the report to ${path}: ${describeError(error)}`, {
      hint: 'Name a new file in a directory that you may write to, with -o.',
      cause: error,
    });
  }
  process.stdout.write(`${path}\n`);
}

async function collect(flags: BugreportFlags, signal: AbortSignal): Promise<TarFile[]> {
  const client = agentClient(flags.socket, overSocket(flags.socket));
  const state = dirname(flags.socket);
  const texts: Record<string, Promise<string>> = {
    'weft.txt': Promise.resolve(VERSIONS),
    ...answersOf(client, signal),
    'doctor.json': examineHost({ subnetFile: join(state, 'subnet.env') }, signal).then(
      (checks) => `${JSON.stringify(checks, undefined, 1)}\n`,
    ),
    'agent.log': logText(flags, signal),
    'state/subnet.env': readFile(join(state, 'subnet.env'), 'utf8'),
    'state/last-error': readFile(startupErrorPath(state), 'utf8'),
    'host/os-release.txt': readFile('/etc/os-release', 'utf8'),
  };
  for (const [name, argv] of Object.entries(COMMANDS)) texts[name] = outputOf(argv, signal);
  return await filesOf(texts, signal);
}

/** What agents elsewhere say: a directory for each. */
async function collectRemote(flags: BugreportFlags, signal: AbortSignal): Promise<TarFile[]> {
  const clients = await clientsOf(flags, signal);
  const asked = await askAll(clients, (client) => filesOf(answersOf(client, signal), signal), signal);
  const taken = new Set<string>();
  const files = asked.flatMap((one, at) => {
    const wanted = fileName(one.name, MAX_DIRECTORY);
    const directory = taken.has(wanted) ? `${wanted}.${at}` : wanted;
    taken.add(directory);
    return 'answer' in one ? one.answer.map(({ name, content }) => ({ name: `${directory}/${name}`, content })) : [];
  });
  return [{ name: 'weft.txt', content: VERSIONS }, ...files];
}

function answersOf(client: AgentClient, signal: AbortSignal): Record<string, Promise<string>> {
  const texts: Record<string, Promise<string>> = { 'status.txt': statusText(client, signal) };
  for (const endpoint of Object.keys(ANSWERS) as Endpoint[]) {
    const query = endpoint === '/events' ? { limit: '10000' } : {};
    texts[`api${endpoint}.json`] = client
      .get(endpoint, signal, query)
      .then((answer) => `${JSON.stringify(answer, undefined, 1)}\n`);
  }
  return texts;
}

/** With what could not be read, and why. */
async function filesOf(texts: Record<string, Promise<string>>, signal: AbortSignal): Promise<TarFile[]> {
  const files = Object.entries(texts).map(async ([name, text]): Promise<TarFile> => {
    const content = await text.catch((error: unknown) => {
      signal.throwIfAborted();
      return `not read: ${describeError(error)}\n`;
    });
    return { name, content: content.slice(-MAX_TEXT) };
  });
  return await Promise.all(files);
}

function fileName(text: string, most: number): string {
  return text.replaceAll(/[^\w.-]/g, '_').slice(0, most);
}

async function statusText(client: AgentClient, signal: AbortSignal): Promise<string> {
  const [self, peers, readiness, { events }] = await Promise.all([
    client.get('/self', signal),
    client.get('/peers', signal),
    client.get('/readiness', signal),
    client.get('/events', signal, { limit: '10000' }),
  ]);
  const answers = { self, peers, readiness, events };
  const problems = problemsOf(answers);
  return `${renderStatus(answers, problems)}\n${isHealthy(problems) ? 'healthy' : 'not healthy'}\n`;
}

async function logText({ log, unit }: BugreportFlags, signal: AbortSignal): Promise<string> {
  if (log !== undefined) return await readFile(log, 'utf8');
  return await outputOf(['journalctl', '--no-pager', '-o', 'short-iso', '-n', LOG_LINES, '-u', unit], signal);
}

/** What it printed, and how it ended where that was not well. */
async function outputOf(argv: readonly string[], signal: AbortSignal): Promise<string> {
  const { stdout, stderr, exitCode } = await run(argv, { okExitCodes: 'any', timeoutMs: COMMAND_MS, signal });
  return exitCode === 0 ? stdout : `${stdout}${stderr}exit code ${exitCode}\n`;
}
