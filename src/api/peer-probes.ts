import type { Peer, Probe } from './schema.ts';

/** What probes found in each family that they measure; agents of earlier versions have one for both. */
export function probesOf({ probe, probes }: Peer): readonly Probe[] {
  return probes ?? (probe === undefined ? [] : [probe]);
}

/** By which probes name it, of a subnet as the API writes it. */
export function familyOf(subnet: string): NonNullable<Probe['family']> {
  return subnet.includes(':') ? 'IPv6' : 'IPv4';
}

/** Which family a finding is about, before it: `IPv6: `. Empty of a peer that has one family only. */
export function familyPrefix({ subnets }: Peer, { family }: Probe): string {
  return subnets.length < 2 || family === undefined ? '' : `${family}: `;
}
