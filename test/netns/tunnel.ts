import { fileURLToPath } from 'node:url';
import type { PeerCounters } from '../../src/dataplane/counters.ts';
import type { DestinationCheck } from '../../src/dataplane/destination-check.ts';
import type { FastPathInMode, FastPathMode } from '../../src/dataplane/fast-path/mode.ts';
import type { SourceCheck } from '../../src/dataplane/source-check.ts';
import { formatIpv4, ipv4Of } from '../../src/ip/ipv4.ts';
import { formatPrefix4, type Ipv4Prefix, parsePrefix4, prefix4 } from '../../src/ip/prefix.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { LineFeed } from './waiting.ts';

export const NETWORK: Ipv4Prefix = parsePrefix4('10.244.0.0/16')!;
export const PORT = 8285;
/** Outer IPv4 and UDP headers. */
export const OVERHEAD = 28;

/** 10.244.1.0/24 for the first host, and so on. */
export function subnetOf(host: LabHost): Ipv4Prefix {
  return prefix4(ipv4Of(NETWORK.addr + (host.index + 1) * 256), 24);
}

/** Gives the host's containers their addresses in {@link subnetOf}. */
export async function attach(topology: Topology, host: LabHost, mtuBytes: number): Promise<void> {
  const subnet = subnetOf(host);
  await topology.attachContainers(host, { subnet, gateway: ipv4Of(subnet.addr + 1), mtuBytes });
}

export interface TunnelCounters {
  readonly peers: readonly {
    readonly subnet: string;
    readonly endpoint: string;
    readonly sent: PeerCounters;
    readonly received: PeerCounters;
  }[];
  readonly nobody: { readonly sent: PeerCounters; readonly received: PeerCounters };
  readonly totals: Readonly<Record<string, number>>;
}

export interface TunnelSettings {
  /** By the hosts' underlay addresses unless said otherwise. */
  readonly listen?: string;
  readonly peers: readonly { readonly host: LabHost; readonly address?: string; readonly subnet?: string }[];
  /** Own address and length of the network, when they are not those of {@link subnetOf}. */
  readonly address?: string;
  readonly destinationCheck?: DestinationCheck;
  readonly sourceCheck?: SourceCheck;
  readonly fastPath?: FastPathMode;
  readonly fastPathIn?: FastPathInMode;
  readonly mtuBytes?: number;
  /** The command that is `weft`, when it is not to be the sources. */
  readonly weft?: readonly string[];
}

/** A `weft tunnel` on a host, once it is ready. Ended with the topology, or by disposal. */
export class Tunnel implements AsyncDisposable {
  readonly child: Child;
  readonly stderr: LineFeed;

  private constructor(child: Child) {
    this.child = child;
    this.stderr = new LineFeed(child.stderr!);
  }

  static async start(topology: Topology, host: LabHost, settings: TunnelSettings): Promise<Tunnel> {
    const main = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
    const weft = settings.weft ?? [process.execPath, '--disable-warning=ExperimentalWarning', main];
    const child = await topology.start(
      host,
      [
        ...[...weft, 'tunnel'],
        ...['--address', settings.address ?? `${formatIpv4(subnetOf(host).addr)}/${NETWORK.length}`],
        ...['--listen', `${settings.listen ?? formatIpv4(host.address)}:${PORT}`],
        ...['--mtu', String(settings.mtuBytes ?? 1500 - OVERHEAD), '--source-check', settings.sourceCheck ?? 'loose'],
        ...(settings.destinationCheck === undefined ? [] : ['--destination-check', settings.destinationCheck]),
        ...['--fast-path', settings.fastPath ?? 'auto', '--fast-path-in', settings.fastPathIn ?? 'auto'],
        ...settings.peers.flatMap((peer) => [
          '--peer',
          `${peer.subnet ?? formatPrefix4(subnetOf(peer.host))}=${peer.address ?? formatIpv4(peer.host.address)}`,
        ]),
      ],
      { stderr: 'pipe' },
    );
    const tunnel = new Tunnel(child);
    await new LineFeed(child.stdout!)
      .find((text) => text === 'ready')
      .catch((error: unknown) => {
        throw new Error(`weft tunnel: ${tunnel.stderr.seen.map(({ text }) => text).join('\n')}`, { cause: error });
      });
    return tunnel;
  }

  /** What it writes to standard error at SIGUSR1. */
  async counters(): Promise<TunnelCounters> {
    const from = this.stderr.mark;
    this.child.kill('SIGUSR1');
    const line = await this.stderr.find((text) => text.startsWith('{'), from);
    return JSON.parse(line.text) as TunnelCounters;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.child[Symbol.asyncDispose]();
  }
}
