import { statSync } from 'node:fs';
import { join } from 'node:path';

/** Those of the CNI project, which Debian has in one package. */
const REFERENCE_PLUGINS = new Set(
  'bandwidth bridge dhcp dummy firewall host-device host-local ipvlan loopback macvlan portmap ptp sbr static tap tuning vlan vrf'.split(
    ' ',
  ),
);

/** Where Debian's package puts the plugins; few runtimes look there. */
export const DEBIAN_PLUGIN_FOLDER = '/usr/lib/cni';

/** How to get a plugin that is in none of the folders where the runtime looks, as sentences. */
export function pluginRemedy(type: string, path: readonly string[]): string {
  if (type === 'flannel') return "weft's image contains it, and so does flannel's image flannel-cni-plugin.";
  if (!REFERENCE_PLUGINS.has(type)) {
    return `Install that CNI plugin ${path.length === 1 ? 'there' : 'into one of these folders'}, or take it out of the CNI configuration.`;
  }
  const folder = path.find((candidate) => candidate !== '') ?? '/opt/cni/bin';
  if (statOrUndefined(join(DEBIAN_PLUGIN_FOLDER, type))?.isFile()) {
    return `It is in ${DEBIAN_PLUGIN_FOLDER}: copy the plugins from there into ${folder}, or add that folder to the runtime's plugin directories.`;
  }
  return (
    `Install the reference CNI plugins into ${folder}: from a release of github.com/containernetworking/plugins, or Debian's ` +
    `package containernetworking-plugins (cp ${DEBIAN_PLUGIN_FOLDER}/* ${folder}/).`
  );
}

/** `undefined` also for what cannot be looked at: a folder of the path that may not be read has no plugin for us. */
export function statOrUndefined(path: string): ReturnType<typeof statSync> {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
