import { WeftError } from '../errors.ts';
import { formatAddr, isIpv4, nextAddr } from '../ip/address.ts';
import { type ConfList, type ConfListPlugin, parseConfList } from './conf-list.ts';
import { buildDelegateConfig } from './delegate-config.ts';
import { parseCidr } from './ip-text.ts';
import { type JsonObject, parsePluginConfig } from './plugin-config.ts';
import type { PluginSubnetEnv } from './plugin-subnet-env.ts';

/**
 * The list with each `flannel` replaced by the delegate that it would start, with the configuration that it would give it:
 * a pod then starts bridge at once. Capabilities stay, since the runtime hands them to whom the entry names.
 *
 * @throws WeftError WEFT_CNI_CONF_INVALID for what the plugin would refuse at each pod.
 */
export function withoutWrapper(list: ConfList, env: PluginSubnetEnv, source: string): ConfList {
  return {
    ...list,
    plugins: list.plugins.map((plugin) => (plugin.type === 'flannel' ? delegateOf(plugin, list, env, source) : plugin)),
  };
}

function delegateOf(
  plugin: ConfListPlugin,
  { name, cniVersion }: ConfList,
  env: PluginSubnetEnv,
  source: string,
): ConfListPlugin {
  try {
    const config = parsePluginConfig(JSON.stringify({ ...plugin, name, cniVersion }));
    const { type, json } = buildDelegateConfig(config, env);
    // Both are the list's, and the runtime adds them.
    const { name: _name, cniVersion: _version, type: _type, ...own } = JSON.parse(json) as JsonObject;
    const ipam = withGateways(own.ipam as JsonObject, env);
    return { type, ...own, ipam, ...(plugin.capabilities === undefined ? {} : { capabilities: plugin.capabilities }) };
  } catch (error) {
    throw new WeftError(
      'WEFT_CNI_CONF_INVALID',
      `cannot use the CNI configuration ${source}: ${(error as Error).message}`,
      { hint: 'Correct cni-conf.json in the ConfigMap kube-flannel-cfg.', cause: error },
    );
  }
}

/**
 * The same routes with the gateway that they get anyway, the first address of the subnet, written down. A route without one
 * is in the result of ADD without one, and CHECK of the reference plugins before 1.2 then looks for a route without gateway
 * and fails healthy pods (`Expected Route … GW:<nil> not found`). The plugin flannel, which gets flannel's bytes, is not
 * concerned: its CHECK never asks the delegate.
 */
function withGateways(ipam: JsonObject, env: PluginSubnetEnv): JsonObject {
  if (ipam.type !== 'host-local' || !Array.isArray(ipam.routes)) return ipam;
  const gatewayOf = (dst: unknown): string | undefined => {
    const network = typeof dst === 'string' ? parseCidr(dst) : undefined;
    if (network === undefined) return undefined;
    const subnet = isIpv4(network.ip) ? env.subnets.ipv4 : env.subnets.ipv6;
    return subnet && formatAddr(nextAddr(subnet.ip));
  };
  const routes = (ipam.routes as readonly JsonObject[]).map((route) => {
    // A scope may rule a gateway out.
    const gw = route.gw === undefined && route.scope === undefined ? gatewayOf(route.dst) : undefined;
    return gw === undefined ? route : { ...route, gw };
  });
  return { ...ipam, routes };
}

/** A member of the list that libcni does not know and hands on to nobody. */
const MARK = 'weft';

interface Mark {
  readonly note: string;
  /** The types that the agent wrote, to tell them from what others have added. */
  readonly plugins: readonly string[];
}

/**
 * The text of the file that the agent keeps. Plugins that others have added to `existing`, as Istio and Linkerd do, stay at
 * its end; everything else in it is replaced.
 */
export function renderConf(list: ConfList, existing: string | undefined): string {
  const types = list.plugins.map(({ type }) => type);
  const plugins = [...list.plugins, ...addedByOthers(existing).filter(({ type }) => !types.includes(type))];
  const mark: Mark = { note: 'flanneld of weft keeps this file: edit cni-conf.json instead', plugins: types };
  const { name, cniVersion, rest } = list;
  return `${JSON.stringify({ name, ...(cniVersion === '' ? {} : { cniVersion }), ...rest, [MARK]: mark, plugins }, undefined, 2)}\n`;
}

function addedByOthers(existing: string | undefined): readonly ConfListPlugin[] {
  const read = readMarked(existing);
  return read === undefined ? [] : read.list.plugins.filter(({ type }) => !read.mark.plugins.includes(type));
}

/** Whether weft wrote a configuration file with this text, and so may remove it. */
export function isWrittenByWeft(text: string): boolean {
  return readMarked(text) !== undefined;
}

function readMarked(text: string | undefined): { readonly list: ConfList; readonly mark: Mark } | undefined {
  if (text === undefined) return undefined;
  try {
    const list = parseConfList(text, '');
    const mark = list.rest[MARK] as Partial<Mark> | null | undefined;
    return Array.isArray(mark?.plugins) ? { list, mark: mark as Mark } : undefined;
  } catch {
    return undefined;
  }
}
