import { WeftError } from '../errors.ts';
import { jsonValueOf, parseGoJson } from '../lease/go-json.ts';
import type { JsonObject } from './plugin-config.ts';

/** A CNI network configuration list, as libcni reads a `.conflist` file. */
export interface ConfList {
  readonly name: string;
  /** '' when it is not given. */
  readonly cniVersion: string;
  /** In the order in which they run. At least one; each has a `type`. */
  readonly plugins: readonly ConfListPlugin[];
  /** Further members of the list, such as disableCheck. */
  readonly rest: JsonObject;
}

export type ConfListPlugin = JsonObject & { readonly type: string };

/** The file under which flannel's users know the configuration of a node. */
export const CONF_FILE_NAME = '10-flannel.conflist';

/** Where flannel's manifest mounts the ConfigMap. */
export const DEFAULT_CONF_TEMPLATE = '/etc/kube-flannel/cni-conf.json';

/** What flannel's manifest has in its ConfigMap as cni-conf.json, for hosts that have no such file. */
export const FLANNEL_CONF_LIST: ConfList = {
  name: 'cbr0',
  cniVersion: '1.0.0',
  plugins: [
    { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
  rest: {},
};

/**
 * Reads a configuration list; a single plugin's configuration, as early flannel manifests had it, counts as a list of one.
 *
 * @throws WeftError WEFT_CNI_CONF_INVALID that names `source` and what is wrong in it.
 */
export function parseConfList(text: string, source: string): ConfList {
  const parsed = parseGoJson(text);
  if (!parsed.ok) throw invalid(source, `${parsed.message} (line ${parsed.line}, column ${parsed.column})`);
  const value = jsonValueOf(parsed.node);
  if (!isObject(value)) throw invalid(source, 'it is no JSON object');
  const { name, cniVersion = '', plugins, ...rest } = value;
  if (typeof name !== 'string' || name === '') throw invalid(source, 'name: want the name of the network');
  if (typeof cniVersion !== 'string') throw invalid(source, 'cniVersion: want a string such as "1.0.0"');
  if (plugins === undefined && 'type' in rest) {
    return { name, cniVersion, plugins: [pluginOf(rest, source, 'type')], rest: {} };
  }
  if (!Array.isArray(plugins) || plugins.length === 0) throw invalid(source, 'plugins: want a list with at least one');
  return {
    name,
    cniVersion,
    plugins: plugins.map((plugin, index) => pluginOf(plugin, source, `plugins[${index}]`)),
    rest,
  };
}

function pluginOf(value: unknown, source: string, path: string): ConfListPlugin {
  if (!isObject(value)) throw invalid(source, `${path}: want an object with a type`);
  const { type } = value;
  if (typeof type !== 'string' || type === '') throw invalid(source, `${path}.type: want the name of a CNI plugin`);
  return { ...value, type };
}

/**
 * The names of the programs that a container runtime starts for the list, each once, in that order. The `flannel` plugin
 * starts its delegate; without it (`wrapper` false) the delegate is there in its place.
 */
export function programsOf({ plugins }: ConfList, wrapper: boolean): string[] {
  const names = plugins.flatMap((plugin) => {
    const ipam = isObject(plugin.ipam) ? plugin.ipam.type : undefined;
    if (plugin.type !== 'flannel') return [plugin.type, ...(typeof ipam === 'string' ? [ipam] : [])];
    const delegate = isObject(plugin.delegate) ? plugin.delegate.type : undefined;
    return [
      ...(wrapper ? ['flannel'] : []),
      typeof delegate === 'string' ? delegate : 'bridge',
      typeof ipam === 'string' ? ipam : 'host-local',
    ];
  });
  return [...new Set(names)];
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(source: string, what: string): WeftError {
  return new WeftError('WEFT_CNI_CONF_INVALID', `cannot use the CNI configuration ${source}: ${what}`, {
    hint: 'Correct cni-conf.json in the ConfigMap kube-flannel-cfg, or the file itself where there is no ConfigMap.',
  });
}
