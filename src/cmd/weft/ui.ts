import { hostname } from 'node:os';
import { Command, InvalidArgumentError } from 'commander';
import { DEFAULT_API_SOCKET } from '../../config/agent-sockets.ts';
import { readKeptLab } from '../../lab/lab-page.ts';
import type { LabResult } from '../../lab/lab-result.ts';
import { openInBrowser } from '../../linux/browser.ts';
import { type AgentSource, openSource, socketSource, urlSource } from '../../ui/agent-source.ts';
import { Fleet } from '../../ui/fleet.ts';
import type { ProcessLife } from '../process-life.ts';
import { append, hostsOf, withRemote } from './agent-target.ts';
import type { ClusterFlags } from './cluster.ts';
import { pageFiles } from './page-files.ts';

const DEFAULT_PORT = 8087;
/** The page shows what the agents' sockets let only root see: it is for this machine, and for whoever has its address. */
const LISTEN = '127.0.0.1';
const HOST_NAMES = ['localhost', LISTEN];
/** Through an API server, which has other things to do: a hundred nodes are asked every two seconds, and as many are followed. */
const THROUGH_API_SERVER = { mostPerSecond: 50, mostFollowed: 100 };

interface UiFlags extends ClusterFlags {
  readonly cluster?: true;
  readonly socket?: readonly string[];
  readonly host?: readonly string[];
  readonly tokenFile?: string;
  readonly lab?: string;
  readonly port: number;
  readonly open?: true;
}

/**
 * `weft ui`: serves the page until it is stopped, and prints its address on standard output: whoever has it may read. Everything is only
 * read.
 *
 * @throws WeftError WEFT_USAGE, WEFT_UI_LISTEN, WEFT_UI_PAGE_MISSING, WEFT_API_UNREACHABLE, WEFT_API_REFUSED, WEFT_KUBE_CONFIG
 */
export function uiCommand(life: ProcessLife): Command {
  return withRemote(new Command('ui'))
    .summary('serve a page with hosts, paths, packets and events')
    .description('Serve a live, read-only page on this machine with hosts, the paths between them, packets and events.')
    .option(
      '--socket <path>',
      `API socket of an agent on this machine; may be repeated (default: ${DEFAULT_API_SOCKET})`,
      append,
    )
    .option(
      '--host <[name=]url>',
      'URL of the API of an agent on another host (its --api-listen); may be repeated',
      append,
    )
    .option('--lab <id>', 'show all hosts of a lab kept with weft lab --keep')
    .option('--port <n>', 'port on 127.0.0.1; 0 selects a free port', portNumber, DEFAULT_PORT)
    .option('--open', 'open the page in a browser')
    .action((flags: UiFlags) => serve(flags, life));
}

function portNumber(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65_535)) throw new InvalidArgumentError('want a port, 0 to 65535');
  return port;
}

async function serve(flags: UiFlags, life: ProcessLife): Promise<void> {
  using stop = life.untilStopped();
  const { sources, lab } = await sourcesOf(flags, stop.signal);
  // No other verb needs an HTTP server.
  const { uiApp } = await import('../../ui/app.ts');
  const { PageAccess } = await import('../../ui/page-access.ts');
  const { startPageServer } = await import('../../ui/page-server.ts');
  const access = new PageAccess();
  using fleet = new Fleet(sources, flags.cluster === true ? THROUGH_API_SERVER : {});
  const app = uiApp({ fleet, files: pageFiles(), hostNames: HOST_NAMES, access, lab: () => lab });
  await using server = await startPageServer(app, LISTEN, flags.port, stop.signal);
  const address = access.address(`http://${LISTEN}:${server.port}`);
  process.stdout.write(`weft ui: ${address}\n`);
  using _opened = flags.open ? await openInBrowser(address, stop.signal) : undefined;
  const stopped = Promise.withResolvers<void>();
  stop.signal.addEventListener('abort', () => stopped.resolve(), { once: true });
  if (!stop.signal.aborted) await stopped.promise;
}

interface Shown {
  readonly sources: readonly AgentSource[];
  readonly lab: LabResult | undefined;
}

async function sourcesOf(flags: UiFlags, signal: AbortSignal): Promise<Shown> {
  const { socket = [], host = [], tokenFile, lab: id, cluster } = flags;
  const lab = id === undefined ? undefined : readKeptLab(id);
  const hosts = await hostsOf(host, tokenFile);
  // No other page needs anything of Kubernetes.
  const nodes = cluster === true ? await (await import('./cluster.ts')).clusterAgents(flags, undefined, signal) : [];
  const isOthers = hosts.length > 0 || lab !== undefined || cluster === true;
  const sockets = socket.length === 0 && !isOthers ? [DEFAULT_API_SOCKET] : socket;
  const named = sockets.length === 1 ? () => hostname() : (path: string) => path;
  const sources = [
    ...sockets.map((path) => socketSource(named(path), path)),
    ...hosts.map(({ name, url, token }) => urlSource(name, url, token)),
    ...nodes.map(({ name, open }) => openSource(name, open)),
    ...Array.from(lab?.sockets ?? [], ([name, path]) => socketSource(name, path)),
  ];
  return { sources, lab: lab?.result };
}
