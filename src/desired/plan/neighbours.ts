import type { Actual } from '../actual.ts';
import type { Op } from '../op.ts';
import type { Wanted } from '../wanted.ts';
import { type LinkPlan, neighbourLinks } from './links.ts';

/** What to do about the neighbours with these keys; `undefined` is all of them. */
export function planNeighbours(
  wanted: Wanted,
  actual: Actual,
  links: LinkPlan,
  keys: Iterable<string> | undefined,
): readonly Op[] {
  // A new MAC address of the link takes its neighbours away (NETDEV_CHANGEADDR in net/ipv4/arp.c).
  const flushed = new Set(links.ops.flatMap((op) => (op.type === 'link-set' && op.mac !== undefined ? [op.name] : [])));
  const kept = neighbourLinks(wanted.host.links);
  const ops: Op[] = [];
  for (const key of keys ?? new Set([...wanted.neighbours.keys(), ...actual.neighbours.keys()])) {
    const neighbour = wanted.neighbours.get(key);
    const entry = actual.neighbours.get(key);
    const there = entry === undefined || links.fresh.has(entry.link) || flushed.has(entry.link) ? undefined : entry;
    if (neighbour !== undefined && links.up.has(neighbour.link)) {
      if (there?.mac !== neighbour.mac) ops.push({ type: 'neighbour-replace', neighbour });
    } else if (there !== undefined && kept.has(there.link) && wanted.host.isPartial !== true) {
      ops.push({ type: 'neighbour-delete', neighbour: there });
    }
  }
  return ops;
}
