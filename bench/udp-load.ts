/**
 * Small packets at a given rate, counted where they come out of the device in the receiver's namespace. No socket takes them, so that
 * what is lost is lost by the path, not by a program that reads too slowly.
 */
import { formatIpv4, type Ipv4Addr } from '../src/ip/ipv4.ts';
import { CONTAINER_DEVICE } from '../src/lab/namespaces.ts';
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

/** Packets that the place's eth0 has received since it was made (proc(5), /proc/net/dev). */
export async function packetsReceived(topology: Topology, place: Place, signal: AbortSignal): Promise<number> {
  const { stdout } = await topology.exec(place, ['cat', '/proc/net/dev'], { signal });
  return Number(new RegExp(`${CONTAINER_DEVICE}:\\s*\\d+\\s+(\\d+)`).exec(stdout)?.[1]);
}

/** No answer to datagrams that nobody takes: "port unreachable" would be a load of its own, in the other direction. */
export async function discardUdp(topology: Topology, place: Place, signal: AbortSignal): Promise<void> {
  const rules = 'table ip bench { chain in { type filter hook prerouting priority raw; udp dport 9 drop; }; }\n';
  await topology.exec(place, ['nft', '-f', '-'], { stdin: rules, signal });
}
