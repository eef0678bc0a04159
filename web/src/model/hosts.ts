/** What is said of hosts and links in words. Pure. */
import type { PeerPath } from '../../../src/api/peer-path.ts';
import type { FamilyFigures, HostView, LinkHealth, LinkView, Overview } from '../../../src/ui/overview.ts';
import { duration, percent } from '../format.ts';
import type { Filter } from './filter.ts';

/** What a reader might type to find a host. */
export function hostText(host: HostView): string {
  return [host.name, host.state, host.backendType ?? '', ...host.addresses, ...host.subnets].join(' ');
}

export type Tone = 'good' | 'warn' | 'bad' | 'idle';

export const LINK_TONE: Readonly<Record<LinkHealth, Tone>> = {
  good: 'good',
  degraded: 'warn',
  broken: 'bad',
  unknown: 'idle',
};

/** By its own state, and then by the worst link that leads to it or away from it. */
export function hostTones(overview: Overview): readonly Tone[] {
  const tones: Tone[] = overview.hosts.map(({ state }) =>
    state === 'away' ? 'bad' : state === 'not-ready' ? 'warn' : state === 'ready' ? 'good' : 'idle',
  );
  // A broken link says that one of its ends is wrong, not which: it colours neither, unless all links of a host are.
  const ways = tones.map(() => ({ all: 0, broken: 0, good: 0 }));
  for (const { from, to, health } of overview.links) {
    if (health === 'unknown') continue;
    for (const end of [from, to]) {
      ways[end]!.all++;
      if (health === 'broken') ways[end]!.broken++;
      if (health === 'good') ways[end]!.good++;
    }
  }
  return tones.map((tone, index) => {
    const { all, broken, good } = ways[index]!;
    if (tone === 'bad') return tone;
    if (all > 1 && broken === all) return 'bad';
    return tone === 'idle' && good > 0 ? 'good' : tone;
  });
}

export const STATE_WORDS: Readonly<Record<HostView['state'], string>> = {
  ready: 'ready',
  'not-ready': 'not ready',
  away: 'does not answer',
  peer: 'known as a peer',
};

const PATH_WORDS: Readonly<Record<PeerPath, string>> = {
  'fast-path': 'fast path (eBPF)',
  forwarder: 'user space (udp)',
  vxlan: 'vxlan',
  wireguard: 'wireguard',
  ipsec: 'ipsec',
  ipip: 'ipip',
  direct: 'direct route',
  command: 'command of the extension',
  others: 'carried by others',
  skipped: 'not reached',
};

export function pathWords(path: LinkView['path']): string {
  return path === undefined ? 'unknown' : ((PATH_WORDS as Partial<typeof PATH_WORDS>)[path] ?? path);
}

/** What is measured in one family. */
export function figureWords({ rttMs, lossRatio, pathMtuBytes }: FamilyFigures): string {
  return [
    rttMs === undefined ? 'no answer' : duration(rttMs),
    ...(lossRatio === undefined ? [] : [`${percent(lossRatio)} lost`]),
    ...(pathMtuBytes === undefined ? [] : [`${pathMtuBytes} bytes`]),
  ].join(', ');
}

export interface Problem {
  readonly tone: 'warn' | 'bad';
  readonly title: string;
  readonly text: string;
  /** Indices in `hosts`. */
  readonly host: number;
  readonly to?: number;
}

/** Whether one of the hosts that a problem names is found by the filter. */
export function isAbout({ host, to }: Problem, { hosts }: Overview, filter: Filter): boolean {
  return [host, to].some((index) => index !== undefined && filter(hostText(hosts[index]!)));
}

/** Everything that is wrong, the worst first. */
export function problemsOf(overview: Overview): readonly Problem[] {
  const problems: Problem[] = [];
  overview.hosts.forEach(({ name, state, reason }, host) => {
    if (state === 'away') problems.push({ tone: 'bad', title: `${name} does not answer`, text: reason ?? '', host });
    if (state === 'not-ready') problems.push({ tone: 'warn', title: `${name} is not ready`, text: reason ?? '', host });
  });
  for (const link of overview.links) {
    if (link.health !== 'broken' && link.health !== 'degraded') continue;
    const [from, to] = [overview.hosts[link.from]!.name, overview.hosts[link.to]!.name];
    const tone = link.health === 'broken' ? 'bad' : 'warn';
    problems.push({ tone, title: `${from} → ${to}`, text: link.why ?? '', host: link.from, to: link.to });
  }
  return problems.sort((a, b) => Number(a.tone === 'warn') - Number(b.tone === 'warn'));
}

/** Names of machines of a cloud are longer than a column or a card has room for. */
const MAX_LABEL = 22;

/**
 * Names that fit: without the domain, where it is the same for all, and of what is still too long the beginning and the end, since some
 * differ here and some there.
 */
export function labelsOf(names: readonly string[], max: number = MAX_LABEL): readonly string[] {
  const domains = new Set(names.map((name) => domainOf(name)));
  const [domain = ''] = domains;
  return names.map((name) => middleCut(domains.size === 1 ? name.slice(0, name.length - domain.length) : name, max));
}

/** With its dot; empty of a name without one, and of an address. */
function domainOf(name: string): string {
  return /^[\d.]+$/.test(name) ? '' : (/\..*$/s.exec(name)?.[0] ?? '');
}

function middleCut(text: string, max: number): string {
  if (text.length <= max) return text;
  const end = Math.floor((max - 1) / 2);
  return `${text.slice(0, max - 1 - end)}…${text.slice(-end)}`;
}
