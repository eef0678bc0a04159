import type { Family, PerFamily } from '../ip/family.ts';
import type { ReadFile } from './bridge-netfilter.ts';

/** What the kernel asks before it passes a packet on from one device to another. */
export interface ForwardingSetting {
  /** As sysctl takes it. */
  readonly name: string;
  readonly path: string;
}

/** Of IPv6 it is that of all devices: those of single ones only say who is a router there (net/ipv6/ip6_output.c, ip6_forward). */
const SETTINGS: PerFamily<ForwardingSetting> = {
  ipv4: { name: 'net.ipv4.ip_forward', path: '/proc/sys/net/ipv4/ip_forward' },
  ipv6: { name: 'net.ipv6.conf.all.forwarding', path: '/proc/sys/net/ipv6/conf/all/forwarding' },
};

/** Those of these families that are off: containers of this host reach nobody beyond it in that family, and nobody reaches them. */
export async function forwardingOff(
  families: readonly Family[],
  read: ReadFile,
): Promise<readonly ForwardingSetting[]> {
  const off: ForwardingSetting[] = [];
  for (const { key } of families) {
    const setting = SETTINGS[key];
    if ((await read(setting.path))?.trim() === '0') off.push(setting);
  }
  return off;
}

/** What it means, for whoever knows the remedy from {@link forwardingRemedy}. */
export function describeForwardingOff(off: readonly ForwardingSetting[]): string {
  const names = off.map(({ name }) => name).join(' and ');
  return `${names} ${off.length === 1 ? 'is' : 'are'} 0: pods cannot reach anything beyond this host`;
}

export function forwardingRemedy(off: readonly ForwardingSetting[]): string {
  const command = off.map(({ name }) => `sysctl -w ${name}=1`).join('; ');
  return `Run ${command}. The bridge plugin sets it for the first pod, so another program may reset it.`;
}
