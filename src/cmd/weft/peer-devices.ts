import type { PeerPart } from '../../backend/backend.ts';
import type { Route, UnicastRoute } from '../../desired/state.ts';
import { containsPrefix, type IpPrefix } from '../../ip/address.ts';
import { present } from '../../ip/family.ts';

/** By which device packets leave for each subnet of a peer: by a route of its own, or by the forwarder's, which is for the whole network. */
export function peerDevices(
  hostRoutes: readonly Route[],
  { kernel, forward }: Pick<PeerPart, 'kernel' | 'forward'>,
): readonly (readonly [subnet: IpPrefix, device: string])[] {
  const routes = kernel.routes.filter(isUnicast).map(({ dst, dev }) => [dst, dev] as const);
  const forwarded = forward === undefined ? [] : present(forward.subnets);
  return [
    ...routes,
    ...forwarded.flatMap((subnet) => {
      const whole = hostRoutes.filter(isUnicast).find(({ dst }) => containsPrefix(dst, subnet));
      return whole === undefined ? [] : [[subnet, whole.dev] as const];
    }),
  ];
}

function isUnicast(route: Route): route is UnicastRoute {
  return route.type === 'unicast';
}
