import { formatAddr } from '../ip/address.ts';
import type { FlanneldOptions } from './flanneld-options.ts';

/** The names under which flannel prints its flags, in its order; operators search for them. Then weft's own. */
const LOG_NAMES: readonly (readonly [string, keyof FlanneldOptions | ((options: FlanneldOptions) => string)])[] = [
  ['etcdEndpoints', 'etcdEndpoints'],
  ['etcdPrefix', 'etcdPrefix'],
  ['etcdKeyfile', 'etcdKeyFile'],
  ['etcdCertfile', 'etcdCertFile'],
  ['etcdCAFile', 'etcdCaFile'],
  ['etcdUsername', 'etcdUsername'],
  ['etcdPassword', 'etcdPassword'],
  // With --version nothing is logged.
  ['version', () => 'false'],
  ['kubeSubnetMgr', ({ subnetManager }) => String(subnetManager === 'kube')],
  ['kubeApiUrl', 'kubeApiUrl'],
  ['kubeAnnotationPrefix', 'kubeAnnotationPrefix'],
  ['kubeConfigFile', 'kubeconfigFile'],
  ['iface', 'iface'],
  ['ifaceRegex', 'ifaceRegex'],
  ['ipMasq', 'ipMasq'],
  ['ipMasqRandomFullyDisable', 'ipMasqFullyRandomDisable'],
  ['ifaceCanReach', 'ifaceCanReach'],
  ['subnetFile', 'subnetFile'],
  ['publicIP', 'publicIp'],
  ['publicIPv6', 'publicIpv6'],
  ['subnetLeaseRenewMargin', 'subnetLeaseRenewMarginMinutes'],
  ['healthzIP', 'healthzIp'],
  ['healthzPort', 'healthzPort'],
  ['iptablesResyncSeconds', 'iptablesResyncSeconds'],
  ['iptablesForwardRules', 'iptablesForwardRules'],
  ['blackholeRoute', 'ipBlackholeRoute'],
  ['netConfPath', 'netConfigPath'],
  ['setNodeNetworkUnavailable', 'setNodeNetworkUnavailable'],
  ['subnetMgr', 'subnetManager'],
  ['localStore', 'localStore'],
  ['sourceCheck', 'sourceCheck'],
  ['destinationCheck', 'destinationCheck'],
  ['fastPath', 'fastPath'],
  ['fastPathIn', 'fastPathIn'],
  ['fastPathDir', 'fastPathDir'],
  ['notrackTunnel', 'notrackTunnel'],
  ['probe', 'probe'],
  ['liveReconfigure', 'liveReconfigure'],
  ['requireNodeAddress', 'requireNodeAddress'],
  ['apiSocket', 'apiSocket'],
  ['apiListen', 'apiListen'],
  ['logFormat', 'logFormat'],
  ['cniConfDir', 'cniConfDir'],
  ['cniConfTemplate', 'cniConfTemplate'],
  ['cniConfPlugin', 'cniConfPlugin'],
  ['ifaceFromNodeIp', 'ifaceFromNodeIp'],
  ['ifaceAllowLoopback', 'ifaceAllowLoopback'],
  ['explainIface', 'explainIface'],
  ['skipBrNetfilterCheck', 'skipBrNetfilterCheck'],
];

/** All options by those names, without secrets. */
export function shownFlanneldOptions(options: FlanneldOptions): Record<string, string> {
  const shown = ([name, field]: (typeof LOG_NAMES)[number]): [string, string] => [
    name,
    typeof field === 'string' ? render(field, options) : field(options),
  ];
  return Object.fromEntries(LOG_NAMES.map(shown));
}

/** All options on one line, in the form of flannel's `CLI flags config:` but without its secrets. */
export function describeFlanneldOptions(options: FlanneldOptions): string {
  const fields = Object.entries(shownFlanneldOptions(options)).map(([name, value]) => `${name}:${value}`);
  return `{${fields.join(' ')}}`;
}

function render(key: keyof FlanneldOptions, options: FlanneldOptions): string {
  switch (key) {
    case 'etcdPassword':
      return options.etcdPassword === '' ? '' : '<redacted>';
    case 'etcdEndpoints':
      return options.etcdEndpoints.map(withoutUserInfo).join(',');
    case 'kubeApiUrl':
      return withoutUserInfo(options.kubeApiUrl);
    case 'apiListen': {
      const { apiListen } = options;
      if (apiListen === undefined) return '';
      const { address, port } = apiListen;
      return `${address.includes(':') ? `[${address}]` : address}:${port}`;
    }
    case 'ifaceRegex':
      return `[${options.ifaceRegex.map(({ source }) => source).join(' ')}]`;
    case 'iface':
      return `[${options.iface.join(' ')}]`;
    case 'publicIp':
    case 'publicIpv6':
    case 'ifaceCanReach': {
      const addr = options[key];
      return addr === undefined ? '' : formatAddr(addr);
    }
    default:
      return String(options[key]);
  }
}

/** A URL may carry a password as well. */
function withoutUserInfo(url: string): string {
  return url.replace(/^([a-z][a-z0-9+.-]*:\/\/)?[^/@]*@/i, '$1<redacted>@');
}
