import { present } from '../ip/family.ts';
import { type GoValue, marshalGo } from './go-marshal.ts';
import { type Cidr, formatCidr } from './ip-text.ts';
import { parseRoutes, type Route, routeTo } from './ipam-routes.ts';
import type { JsonObject, PluginConfig } from './plugin-config.ts';
import type { PluginSubnetEnv } from './plugin-subnet-env.ts';

/** What the delegate is started with. */
export interface DelegateConfig {
  /** The name of the delegate's program. */
  readonly type: string;
  /** The name of the IPAM plugin's program, which the delegate starts; '' when the user's `ipam.type` is no name. */
  readonly ipamType: string;
  /** Its configuration, to the byte what flannel's plugin makes: flannel's DEL can use it after ours wrote it. */
  readonly json: string;
}

/**
 * Merges the plugin's configuration with what flanneld says about this node. The user's `delegate` and `ipam` win, apart
 * from what only flannel knows: name, cniVersion, ranges; the networks are added to the user's routes.
 *
 * @throws Error that says which key of the configuration cannot be used.
 */
export function buildDelegateConfig(config: PluginConfig, env: PluginSubnetEnv): DelegateConfig {
  const user = config.delegate ?? {};
  const type = Object.hasOwn(user, 'type') ? user.type : 'bridge';
  if (typeof type !== 'string') {
    throw new Error("'delegate' dictionary, if present, must have (string) 'type' field");
  }
  for (const key of ['name', 'ipam']) {
    if (Object.hasOwn(user, key)) {
      throw new Error(`'delegate' dictionary must not have '${key}' field, it'll be set by flannel`);
    }
  }
  const merged: Record<string, GoValue> = {
    ipMasq: !env.ipMasq,
    mtu: env.mtuBytes,
    ...(type === 'bridge' ? { isGateway: true } : {}),
    ...user,
    ...(config.runtimeConfig === undefined ? {} : { runtimeConfig: config.runtimeConfig }),
    type,
    name: config.name,
    ...(config.cniVersion === '' ? {} : { cniVersion: config.cniVersion }),
    ipam: buildIpam(config.ipam ?? {}, env),
  };
  const ipamType = config.ipam?.type ?? 'host-local';
  return { type, ipamType: typeof ipamType === 'string' ? ipamType : '', json: marshalGo(merged) };
}

function buildIpam(user: JsonObject, env: PluginSubnetEnv): GoValue {
  return {
    type: 'host-local',
    ...user,
    ranges: present(env.subnets).map((subnet) => [{ subnet: formatCidr(subnet) }]),
    routes: [...userRoutes(user), ...present(env.networks).flat().map(routeToNetwork)],
  };
}

function userRoutes(ipam: JsonObject): Route[] {
  try {
    return parseRoutes(ipam.routes);
  } catch (error) {
    throw new Error(`failed to read IPAM routes: failed to parse ipam.routes: ${(error as Error).message}`);
  }
}

function routeToNetwork(network: Cidr): Route {
  return routeTo(formatCidr(network));
}
