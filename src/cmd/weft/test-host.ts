import { type AgentClient, agentClient, overSocket } from '../../api/client.ts';
import { apiSocketPath } from '../../config/agent-sockets.ts';
import { describePeer, type HostView, type PeerView } from '../../diagnosis/host-view.ts';
import { type MeasuredPath, THIS_HOST } from '../../diagnosis/verdict.ts';
import { judgeWay, type WayFinding, type WayToHost } from '../../diagnosis/way-to-host.ts';
import type { DoctorHost } from '../../doctor/host.ts';
import type { AgentEndpoint, OverlayFacts, OverlayHost } from '../../doctor/overlay-checks.ts';
import { hasErrno } from '../../errno.ts';
import { WeftError } from '../../errors.ts';
import { formatAddr } from '../../ip/address.ts';
import { perFamily } from '../../ip/family.ts';
import { parseIpList } from '../../linux/interfaces.ts';
import { run } from '../../linux/run.ts';
import type { WantedKernel } from './wanted-kernel.ts';

/** Peers whose routes are asked for one by one. */
const MOST_ROUTES = 16;

/** For one answer of the agent; who waits for a cause must have it within ten seconds. */
export const ANSWER_MS = 3_000;

/** Probes need raw sockets. @throws WeftError WEFT_NOT_ROOT. */
export function requireRoot(): void {
  if (process.geteuid?.() === 0) return;
  throw new WeftError('WEFT_NOT_ROOT', `could not send probes as user ${process.geteuid?.() ?? '?'}`, {
    hint: 'Run it as root, for instance with sudo.',
  });
}

/** The host, whose agent has `answerMs` for an answer, however long a check may take. */
export function impatient(host: DoctorHost, answerMs: number): DoctorHost {
  return {
    ...host,
    get: (port, path, signal) => host.get(port, path, AbortSignal.any([signal, AbortSignal.timeout(answerMs)])),
  };
}

/** The host as it is now: what several checks look at is read once, for all of them. */
export function askedOnce(host: DoctorHost, signal: AbortSignal): DoctorHost {
  let links: ReturnType<DoctorHost['links']> | undefined;
  let routes: ReturnType<DoctorHost['routes']> | undefined;
  return {
    ...host,
    links: () => (links ??= host.links(signal)),
    routes: () => (routes ??= host.routes(signal)),
  };
}

/** This host, as the checks of `weft test` see it. */
export function overlayHost({ readText, links }: DoctorHost, subnetFile: string, wanted: WantedKernel): OverlayHost {
  const client = agentClient(THIS_HOST, overSocket(apiSocketPath(subnetFile)), ANSWER_MS);
  return {
    readText,
    links,
    agent: async <T>(endpoint: AgentEndpoint, signal: AbortSignal) =>
      (await ask(client, endpoint, signal)) as T | undefined,
    kernelDifference: (signal) => wanted.difference(signal),
    devicesTo: (addresses, signal) => Promise.all(addresses.map((address) => deviceTo(address, signal))),
  };
}

export function overlayFacts({ known, peers }: HostView, wanted: WantedKernel): OverlayFacts {
  const { external } = known;
  return {
    external: external.name,
    externalAddresses: perFamily((key) => {
      const address = external.addresses[key];
      return address === undefined ? undefined : formatAddr(address);
    }),
    peers: peers.slice(0, MOST_ROUTES).flatMap((peer) => {
      const device = wanted.deviceTo(peer);
      return device === undefined ? [] : { id: peer.id, address: formatAddr(peer.overlay), device };
    }),
    nowMs: Date.now,
  };
}

/** `undefined` when nobody listens. */
async function ask(client: AgentClient, endpoint: AgentEndpoint, signal: AbortSignal): Promise<unknown> {
  try {
    return await client.get(endpoint, signal);
  } catch (error) {
    const { cause } = error as Error;
    if (hasErrno(cause, 'ENOENT') || hasErrno(cause, 'ECONNREFUSED')) return undefined;
    throw error;
  }
}

/** What this host has in the way to the hosts of peers that probes do not reach, by peer. */
export async function waysTo(
  { known, peers }: HostView,
  paths: readonly MeasuredPath[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, WayFinding>> {
  const failing = new Set(paths.flatMap(({ from, to, result }) => (from === 'host' && result.diagnosis ? to : [])));
  const asked = peers.filter((peer) => failing.has(describePeer(peer))).slice(0, MOST_ROUTES);
  const found = await Promise.all(
    asked.map(async (peer) => {
      const way = await wayTo(peer, signal);
      const finding = way && judgeWay(way, known.external.name);
      return finding === undefined ? [] : [[describePeer(peer), finding] as const];
    }),
  );
  return new Map(found.flat());
}

async function wayTo({ underlay }: PeerView, signal: AbortSignal): Promise<WayToHost | undefined> {
  if (underlay === undefined) return undefined;
  const address = formatAddr(underlay);
  const argv = ['ip', '-j', 'route', 'get', address];
  const { stdout, stderr, exitCode } = await run(argv, { okExitCodes: 'any', signal });
  if (exitCode !== 0) {
    const reason = stderr.trim().split('\n')[0]?.replace('RTNETLINK answers: ', '') || `exit code ${exitCode}`;
    return { address, route: { kind: 'none', reason }, neighbour: undefined };
  }
  const [route] = parseIpList(stdout, argv);
  const device = String(route?.dev ?? '');
  const nextHop = typeof route?.gateway === 'string' ? route.gateway : address;
  const asking = ['ip', '-j', 'neigh', 'show', 'to', nextHop, 'dev', device];
  const neighbours = await run(asking, { okExitCodes: 'any', signal });
  const [neighbour] = neighbours.exitCode === 0 ? parseIpList(neighbours.stdout, asking) : [];
  return {
    address,
    route: { kind: 'found', device, nextHop },
    neighbour: neighbour && {
      states: Array.isArray(neighbour.state) ? neighbour.state.map(String) : [],
      mac: typeof neighbour.lladdr === 'string' ? neighbour.lladdr : undefined,
    },
  };
}

async function deviceTo(address: string, signal: AbortSignal): Promise<string> {
  const argv = ['ip', '-j', 'route', 'get', address];
  const { stdout, stderr, exitCode } = await run(argv, { okExitCodes: 'any', signal });
  if (exitCode !== 0) return stderr.trim().split('\n')[0] ?? 'no route';
  const [route] = parseIpList(stdout, argv);
  const type = route?.type === undefined || route.type === 'unicast' ? '' : `${String(route.type)} `;
  return `${type}${String(route?.dev ?? '')}`.trim() || 'no device';
}
