import { type AgentClient, agentClient, overSocket } from '../../api/client.ts';
import { apiSocketPath } from '../../config/subnet-file.ts';
import type { HostView } from '../../diagnosis/host-view.ts';
import type { AgentEndpoint, OverlayFacts, OverlayHost } from '../../doctor/overlay-checks.ts';
import { hasErrno } from '../../errno.ts';
import { WeftError } from '../../errors.ts';
import { formatAddr } from '../../ip/address.ts';
import { parseIpList } from '../../linux/interfaces.ts';
import { run } from '../../linux/run.ts';
import { realHost } from './doctor-host.ts';
import type { WantedKernel } from './wanted-kernel.ts';

/** Peers whose routes are asked for one by one. */
const MOST_ROUTES = 16;

/** Probes need raw sockets. @throws WeftError WEFT_NOT_ROOT. */
export function requireRoot(): void {
  if (process.geteuid?.() === 0) return;
  throw new WeftError('WEFT_NOT_ROOT', `could not send probes as user ${process.geteuid?.() ?? '?'}`, {
    hint: 'Run it as root, for instance with sudo.',
  });
}

/** This host, as the checks of `weft test` see it. */
export function overlayHost(subnetFile: string, wanted: WantedKernel): OverlayHost {
  const { readText, links } = realHost();
  const client = agentClient('this host', overSocket(apiSocketPath(subnetFile)));
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
    externalAddress: external.address && formatAddr(external.address),
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

async function deviceTo(address: string, signal: AbortSignal): Promise<string> {
  const argv = ['ip', '-j', 'route', 'get', address];
  const { stdout, stderr, exitCode } = await run(argv, { okExitCodes: 'any', signal });
  if (exitCode !== 0) return stderr.trim().split('\n')[0] ?? 'no route';
  const [route] = parseIpList(stdout, argv);
  const type = route?.type === undefined || route.type === 'unicast' ? '' : `${String(route.type)} `;
  return `${type}${String(route?.dev ?? '')}`.trim() || 'no device';
}
