/** From a look at the hosts to what the map draws. Pure. */
import type { LinkView, Overview } from '../../../src/ui/overview.ts';
import type { Filter } from './filter.ts';
import { hostText, hostTones, LINK_TONE, type Tone } from './hosts.ts';
import { type LinkRate, linkKey } from './rates.ts';

const WORST: Readonly<Record<Tone, number>> = { bad: 0, warn: 1, good: 2, idle: 3 };
/** Thicker lines would hide hosts. */
const MAX_WIDTH = 7;
/** More lines are one grey area. */
const ALL_PAIRS_UP_TO = 1_500;

/** Of a line: a pixel more for every ten times more packets a second. */
export function lineWidth(packetsPerSecond: number): number {
  return Math.min(MAX_WIDTH, 1 + Math.log10(1 + Math.max(0, packetsPerSecond)));
}

/** Both directions between two hosts. */
export interface MapPair {
  readonly a: number;
  readonly b: number;
  readonly tone: Tone;
  /** Pixels. */
  readonly width: number;
  readonly isShown: boolean;
  /** Keys of the two directions in `Dots`, a to b first. */
  readonly keys: readonly [string, string];
}

export interface MapScene {
  readonly hosts: readonly { readonly tone: Tone; readonly isShown: boolean }[];
  readonly pairs: readonly MapPair[];
  /** Pairs that nobody has measured and that have no traffic, left out because there are too many lines. */
  readonly quietPairs: number;
  /** The host where all links begin or end; undefined where there is no such. */
  readonly hub: number | undefined;
}

export function sceneOf(overview: Overview, rates: ReadonlyMap<string, LinkRate>, filter: Filter): MapScene {
  const tones = hostTones(overview);
  const hosts = overview.hosts.map((host, index) => ({ tone: tones[index]!, isShown: filter(hostText(host)) }));
  const byPair = new Map<string, LinkView[]>();
  for (const link of overview.links) {
    const key = `${Math.min(link.from, link.to)} ${Math.max(link.from, link.to)}`;
    const pair = byPair.get(key);
    if (pair === undefined) byPair.set(key, [link]);
    else pair.push(link);
  }
  const all = Array.from(byPair.values(), (links): MapPair => {
    const a = Math.min(links[0]!.from, links[0]!.to);
    const b = Math.max(links[0]!.from, links[0]!.to);
    const keys = [linkKey(overview, { from: a, to: b }), linkKey(overview, { from: b, to: a })] as const;
    const worst = links.map(({ health }) => LINK_TONE[health]).sort((x, y) => WORST[x] - WORST[y])[0]!;
    const rate = keys.reduce((sum, key) => sum + (rates.get(key)?.packets ?? 0), 0);
    // A filter names hosts: their links are those to be seen.
    return { a, b, tone: worst, width: lineWidth(rate), isShown: hosts[a]!.isShown || hosts[b]!.isShown, keys };
  });
  const pairs = all.length <= ALL_PAIRS_UP_TO ? all : all.filter(({ tone, width }) => tone !== 'idle' || width > 1);
  return { hosts, pairs, quietPairs: all.length - pairs.length, hub: hubOf(overview) };
}

function hubOf({ hosts, links }: Overview): number | undefined {
  const asked = hosts.flatMap(({ state }, index) => (state === 'peer' ? [] : [index]));
  const [only] = asked;
  const isHub = hosts.length > 2 && asked.length === 1 && links.every(({ from, to }) => from === only || to === only);
  return isHub ? only : undefined;
}
