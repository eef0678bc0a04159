/** Looks at hosts, for tests. */
import type { HostView, LinkView, Overview } from '../../../src/ui/overview.ts';

export function hostView(name: string, more: Partial<HostView> = {}): HostView {
  return { name, state: 'ready', addresses: ['192.168.77.1'], subnets: ['10.244.1.0/24'], backendType: 'udp', ...more };
}

export function linkView(from: number, to: number, more: Partial<LinkView> = {}): LinkView {
  return { from, to, health: 'good', path: 'forwarder', rttMs: 0.4, lossRatio: 0, pathMtuBytes: 1472, ...more };
}

export function look(hosts: readonly HostView[], links: readonly LinkView[], atMs = 1_000_000): Overview {
  return { atMs, hosts, links, omittedLinks: 0 };
}
