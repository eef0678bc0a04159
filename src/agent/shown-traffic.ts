import type { Peer, Self, Traffic } from '../api/schema.ts';
import type { DirectionFigures, PacketFigures } from '../metrics/snapshot.ts';

function traffic({ packets, bytes, drops }: PacketFigures): Traffic {
  const counted = Object.entries(drops).flatMap(([reason, count]): [string, number][] =>
    count === undefined || count === 0 ? [] : [[reason, count]],
  );
  return { packets, bytes, drops: Object.fromEntries(counted) };
}

/** Both directions of what was counted, as the API shows it. */
export function directions({ tx, rx }: DirectionFigures): { readonly tx: Traffic; readonly rx: Traffic } {
  return { tx: traffic(tx), rx: traffic(rx) };
}

/** The sums of all peers; absent when no peer's packets are counted. */
export function totalsOf(peers: readonly Peer[]): Pick<Self, 'totals'> {
  const counted = peers.flatMap(({ tx, rx }) => (tx === undefined || rx === undefined ? [] : [{ tx, rx }]));
  if (counted.length === 0) return {};
  const sum = (direction: 'tx' | 'rx'): Traffic => {
    const total = { packets: 0, bytes: 0, drops: {} as Record<string, number> };
    for (const { [direction]: one } of counted) {
      total.packets += one.packets;
      total.bytes += one.bytes;
      for (const [reason, count] of Object.entries(one.drops)) total.drops[reason] = (total.drops[reason] ?? 0) + count;
    }
    return total;
  };
  return { totals: { tx: sum('tx'), rx: sum('rx') } };
}
