import type { CloudRoute } from '../backend/backend.ts';
import { WeftError } from '../errors.ts';
import { formatIpv4 } from '../ip/ipv4.ts';
import { containsPrefix4, formatPrefix4, parsePrefix4 } from '../ip/prefix.ts';
import { TENCENT_ENDPOINTS, TencentVpcApi, type VpcRoute } from './tencent-vpc-api.ts';

/** The gateway is a virtual machine, and the route was made by a user, not by the cloud. */
const GATEWAY_TYPE = 'NORMAL_CVM';
const ROUTE_TYPE = 'USER';

/**
 * Sees to it that the first route table of this machine's VPC leads to the subnet by way of this host, and that no other subnet
 * of the network does: an earlier lease's route would take room in the table, and packets of whoever has that subnet now.
 * Idempotent. @returns what was done, for people. @throws WeftError WEFT_CLOUD_API, without the credentials.
 */
export async function setVpcRoute(
  { subnet, gateway, network, credentials }: CloudRoute,
  signal: AbortSignal,
  endpoints = TENCENT_ENDPOINTS,
): Promise<string> {
  const api = new TencentVpcApi(credentials, endpoints);
  const region = await api.metadata('placement/region', /^[a-z][a-z0-9-]{1,40}$/, signal);
  const mac = await api.metadata('mac', /^(?:[\da-f]{2}:){5}[\da-f]{2}$/i, signal);
  const vpc = await api.metadata(`network/interfaces/macs/${mac}/vpc-id`, /^vpc-[a-z0-9]{1,40}$/, signal);
  const [table] = await api.routeTables(region, vpc, signal);
  if (table === undefined) {
    throw new WeftError('WEFT_CLOUD_API', `no suitable routing table found: ${vpc} has none`, {
      hint: 'Create a route table for the VPC in the Tencent Cloud console.',
    });
  }
  const own = { destination: formatPrefix4(subnet), gatewayType: GATEWAY_TYPE, gateway: formatIpv4(gateway) };
  const isOurs = (route: VpcRoute): boolean => {
    const destination = parsePrefix4(route.destination);
    const { gatewayType, type } = route;
    if (route.gateway !== own.gateway || gatewayType !== GATEWAY_TYPE || type !== ROUTE_TYPE) return false;
    return destination !== undefined && containsPrefix4(network, destination);
  };
  const ours = table.routes.filter(isOurs);
  const isRight = (route: VpcRoute): boolean => route.destination === own.destination && route.isEnabled;
  const stale = ours.filter((route) => !isRight(route));
  for (const { id } of stale) await api.deleteRoute(region, table.id, id, signal);
  const removed = stale.length === 0 ? '' : `; removed ${stale.map(({ destination }) => destination).join(', ')}`;
  if (ours.some(isRight)) return `Route table ${table.id} of ${vpc} leads to ${own.destination} already${removed}`;
  await api.createRoute(region, table.id, own, signal);
  return `Route table ${table.id} of ${vpc} now has a route to ${own.destination} via ${own.gateway}${removed}`;
}
