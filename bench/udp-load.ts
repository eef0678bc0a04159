/**
 * Small packets at a given rate, counted where they come into the receiver's namespace. No socket takes them, so that what is lost is
 * lost by the path, not by a program that reads too slowly.
 */
import { formatIpv4, type Ipv4Addr } from '../src/ip/ipv4.ts';
import type { Place, Topology } from '../src/lab/topology.ts';

const SENDER = new URL('./udp-sender.ts', import.meta.url).pathname;

/** As udp-sender.ts takes them. */
export interface UdpTargets {
  readonly first: Ipv4Addr;
  readonly subnets: number;
  readonly hosts: number;
}

/** @param rate datagrams a second; 0: as many as one thread can. @returns how many the kernel took. */
export async function sendUdp(
  topology: Topology,
  from: Place,
  to: UdpTargets,
  seconds: number,
  rate: number,
  signal: AbortSignal,
): Promise<number> {
  const numbers = [to.subnets, to.hosts, seconds, rate].map(String);
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', SENDER, formatIpv4(to.first), ...numbers];
  const { stdout } = await topology.exec(from, argv, { signal });
  return Number(stdout);
}

/** What udp-sender.ts sends to, and how many bytes it puts behind the headers. */
export const LOAD: UdpKind = { port: 9, payloadBytes: 64 };
const HEADER_BYTES = 28;

/** Datagrams to one port, all of one size. */
export interface UdpKind {
  readonly port: number;
  readonly payloadBytes: number;
}

/** Counts those that come to the place, and drops them: an answer, "port unreachable", would be a load of its own, in the other direction. */
export async function countUdp(topology: Topology, place: Place, kind: UdpKind, signal: AbortSignal): Promise<void> {
  const rule = `udp dport ${kind.port} counter name received drop`;
  const rules = `table ip bench { counter received { }; chain in { type filter hook prerouting priority raw; ${rule}; }; }\n`;
  await topology.exec(place, ['nft', '-f', '-'], { stdin: rules, signal });
}

/**
 * Since {@link countUdp}. A path may hand over several datagrams as one packet, which has the headers of one and the payloads of all, so
 * that packets are not what is counted.
 */
export async function datagramsReceived(
  topology: Topology,
  place: Place,
  kind: UdpKind,
  signal: AbortSignal,
): Promise<number> {
  const { stdout } = await topology.exec(place, ['nft', 'list', 'counter', 'ip', 'bench', 'received'], { signal });
  const [, packets = Number.NaN, bytes = Number.NaN] = /packets (\d+) bytes (\d+)/.exec(stdout)?.map(Number) ?? [];
  return (bytes - packets * HEADER_BYTES) / kind.payloadBytes;
}
