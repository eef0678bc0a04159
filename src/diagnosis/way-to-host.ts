/** What this host's kernel says of the way to the host of a peer, beside the overlay. */
export interface WayToHost {
  readonly address: string;
  /** The device that packets leave by and whom they go to first, or why they do not leave. */
  readonly route:
    | { readonly kind: 'found'; readonly device: string; readonly nextHop: string }
    | { readonly kind: 'none'; readonly reason: string };
  /** Of the next hop; `undefined`: the kernel knows no neighbour of that address. */
  readonly neighbour: { readonly states: readonly string[]; readonly mac: string | undefined } | undefined;
}

/** Stable words, for scripts. */
export type WayFault = 'underlay-route' | 'underlay-neighbour';

export interface WayFinding {
  readonly fault: WayFault;
  readonly cause: string;
  readonly remedy: string;
}

/**
 * What on this host keeps packets from the host of a peer; `undefined`: nothing that its kernel knows. Only for a peer that is not
 * reached: each of these may be intended, and work.
 * @param external the device that leads to other hosts.
 */
export function judgeWay({ address, route, neighbour }: WayToHost, external: string): WayFinding | undefined {
  if (route.kind === 'none')
    return {
      fault: 'underlay-route',
      cause: `this host has no route to ${address}, the host of the peer: ${route.reason}`,
      remedy: `Find out what removed or added a route: ip route get ${address}; ip route; ip rule.`,
    };
  const { device, nextHop } = route;
  if (device !== external)
    return {
      fault: 'underlay-route',
      cause: `packets to ${address}, the host of the peer, leave by ${device}, and the agent uses ${external}`,
      remedy: `Find out what added that route: ip route get ${address}; ip route; ip rule.`,
    };
  if (neighbour === undefined || !neighbour.states.includes('PERMANENT')) return undefined;
  return {
    fault: 'underlay-neighbour',
    cause: `the neighbour entry of ${nextHop} on ${device} was set by hand to ${neighbour.mac ?? 'no address'}, so this host never asks for its MAC address, and it does not answer`,
    remedy: `ip neigh delete ${nextHop} dev ${device}: the kernel then finds the MAC address by itself.`,
  };
}
