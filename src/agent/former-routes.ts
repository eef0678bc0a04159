import type { ExternalInterface } from '../backend/backend.ts';
import { type ActualRoute, BOOT_ROUTE_PROTOCOL, effectiveMetric, type UnicastRoute } from '../desired/state.ts';
import { containsAddr, containsPrefix, equalPrefix, isPrefix4 } from '../ip/address.ts';
import type { SubnetEnvNetworks } from '../node-files/subnet-env.ts';

/**
 * The routes by the external interface that a flanneld has left (host-gw, or DirectRouting), of those that a host has before weft
 * runs there for the first time. They have nothing that marks them. So each of these has to be as flanneld makes it: of a maker
 * without a protocol number, without a metric, to a subnet of the very size of this host's, inside the network in flanneld's
 * subnet.env, by way of a host on the link. Pure.
 */
export function formerRoutes(
  routes: readonly ActualRoute[],
  { networks, subnets }: SubnetEnvNetworks,
  external: Pick<ExternalInterface, 'name' | 'onLink'>,
): readonly UnicastRoute[] {
  return routes.flatMap((route): UnicastRoute[] => {
    const { dst, metric, dev, via, onlink, scope } = route;
    const family = isPrefix4(dst) ? 'ipv4' : 'ipv6';
    const [network, subnet] = [networks[family], subnets[family]];
    if (network === undefined || subnet === undefined || dev !== external.name || via === undefined) return [];
    const isFlannels =
      route.protocol === BOOT_ROUTE_PROTOCOL &&
      route.type === 'unicast' &&
      !route.elaborate &&
      metric === effectiveMetric({ dst, metric: undefined }) &&
      dst.length === subnet.length &&
      containsPrefix(network, dst) &&
      !equalPrefix(subnet, dst) &&
      external.onLink.some((prefix) => containsAddr(prefix, via));
    return isFlannels ? [{ type: 'unicast', dst, metric: undefined, dev, via, onlink, scope }] : [];
  });
}
