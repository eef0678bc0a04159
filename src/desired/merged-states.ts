import type { WantedState } from './state.ts';

/** One state for several backends on one host; `first` decides what a state says only once, such as its networks. */
export function mergedStates(first: WantedState, others: readonly WantedState[]): WantedState {
  if (others.length === 0) return first;
  const all = [first, ...others];
  const links = new Map(all.flatMap((state) => state.links).map((link) => [link.name, link]));
  return {
    ...first,
    links: [...links.values()],
    addresses: all.flatMap(({ addresses }) => addresses),
    sysctls: all.flatMap(({ sysctls }) => sysctls),
    routes: all.flatMap(({ routes }) => routes),
    neighbours: all.flatMap(({ neighbours }) => neighbours),
    fdb: all.flatMap(({ fdb }) => fdb),
  };
}
