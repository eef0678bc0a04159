import { API_SOCKET_NAME } from './agent-sockets.ts';
import {
  boolFlag,
  choiceFlag,
  type FlagDefinition,
  type FlagValues,
  flagUsage,
  intFlag,
  listFlag,
  stringFlag,
} from './go-flags.ts';

/** klog's `--vmodule`: files whose name matches get a verbosity of their own. */
export interface ModuleVerbosity {
  readonly pattern: string;
  readonly level: number;
}

const vmoduleFlag: FlagDefinition<readonly ModuleVerbosity[]> = {
  usage: 'comma-separated list of `pattern=N` log verbosity settings for individual files',
  typeName: 'value',
  isBoolean: false,
  initial: [],
  defaultText: undefined,
  set: (text) => {
    const modules: ModuleVerbosity[] = [];
    for (const item of text.split(',').filter((part) => part !== '')) {
      const match = /^([^=]+)=(\d{1,9})$/.exec(item);
      const [, pattern, level] = match ?? [];
      if (pattern === undefined || level === undefined) {
        return { ok: false, reason: 'syntax error: expect comma-separated list of filename=N' };
      }
      modules.push({ pattern, level: Number(level) });
    }
    return { ok: true, value: modules };
  },
};

const backtraceFlag: FlagDefinition<string> = {
  ...stringFlag('', 'add a stack trace to the log line written at `file:N`'),
  typeName: 'value',
  set: (text) =>
    text === '' || /^[^:]+:[1-9]\d*$/.test(text)
      ? { ok: true, value: text }
      : { ok: false, reason: 'syntax error: expect file.go:234' },
};

/** flannel's flags with flannel's names and defaults, then weft's own. */
export const FLANNELD_FLAGS = {
  'etcd-endpoints': stringFlag(
    'http://127.0.0.1:4001,http://127.0.0.1:2379',
    'comma-separated list of etcd endpoints; the first that answers is used',
  ),
  'etcd-prefix': stringFlag('/coreos.com/network', 'etcd key under which the network is stored'),
  'etcd-keyfile': stringFlag('', 'private key `file` for TLS to etcd'),
  'etcd-certfile': stringFlag('', 'certificate `file` for TLS to etcd'),
  'etcd-cafile': stringFlag('', 'CA certificate `file` for TLS to etcd'),
  'etcd-username': stringFlag('', 'user `name` for etcd'),
  'etcd-password': stringFlag('', 'password for etcd'),
  iface: listFlag('interface to the other hosts, by name or address; may be repeated, the first match is used'),
  'iface-regex': listFlag(
    'regular expression for the name or address of the interface to the other hosts; may be repeated, tried after -iface',
  ),
  'iface-can-reach': stringFlag('', 'use the interface of the route to this `address`; tried last'),
  'subnet-file': stringFlag('/run/flannel/subnet.env', "`file` to write this host's subnet and MTU to"),
  'public-ip': stringFlag('', 'IPv4 `address` at which other hosts reach this one'),
  'public-ipv6': stringFlag('', 'IPv6 `address` at which other hosts reach this one'),
  'subnet-lease-renew-margin': intFlag(60, 'renew the lease this many `minutes` before it expires, 1 to 1439'),
  'ip-masq': boolFlag(false, 'masquerade traffic that leaves the overlay network'),
  'ip-masq-fully-random-disable': boolFlag(false, 'do not use fully random source ports when masquerading'),
  'kube-subnet-mgr': boolFlag(false, 'get subnets from Kubernetes instead of etcd'),
  'kube-api-url': stringFlag('', 'Kubernetes API server `URL`; not needed inside a pod'),
  'kube-annotation-prefix': stringFlag('flannel.alpha.coreos.com', 'prefix of the node annotations'),
  'kubeconfig-file': stringFlag('', 'kubeconfig `file`; not needed inside a pod'),
  version: boolFlag(false, 'print the version and exit'),
  'healthz-ip': stringFlag('0.0.0.0', '`address` the health server listens on'),
  'healthz-port': intFlag(0, '`port` the health server listens on, 0 to disable'),
  'iptables-resync': intFlag(5, '`seconds` between checks of the traffic rules and the blackhole route'),
  'iptables-forward-rules': boolFlag(true, 'accept forwarded traffic of the overlay network'),
  'ip-blackhole-route': boolFlag(false, "add a blackhole route for this host's subnet"),
  'net-config-path': stringFlag(
    '/etc/kube-flannel/net-conf.json',
    'network configuration `file`, unless it is in etcd',
  ),
  'set-node-network-unavailable': boolFlag(
    true,
    'set the NetworkUnavailable condition of the Node to False when the network is ready',
  ),
  v: intFlag(0, 'log verbosity `level`'),
  vmodule: vmoduleFlag,
  log_backtrace_at: backtraceFlag,
  'subnet-mgr': choiceFlag(
    ['local', 'etcd', 'kube'],
    undefined,
    'lease store: a file on this machine, etcd, or Kubernetes (default etcd, or kube with -kube-subnet-mgr)',
  ),
  'local-store': stringFlag('/var/lib/weft/subnets.db', 'store `file` of -subnet-mgr=local'),
  'source-check': choiceFlag(
    ['loose', 'strict', 'off'],
    'loose',
    "check the source address inside a tunnelled packet: loose drops addresses in another host's subnet, strict also drops " +
      'addresses outside the network that do not belong to the sending host, off accepts every datagram; ipip (loose, strict) and ' +
      'vxlan (strict) drop packets of hosts without a lease',
  ),
  'destination-check': choiceFlag(
    ['loose', 'strict', 'off'],
    'loose',
    "check the destination address inside a tunnelled packet: loose accepts addresses in this host's subnet and this host's " +
      "own addresses, strict only addresses in this host's subnet, off leaves it to this host's routing",
  ),
  'fast-path': choiceFlag(
    ['auto', 'off'],
    'auto',
    'auto: the udp backend uses the fast path in the kernel (eBPF) where available; off: all packets pass through the agent',
  ),
  'fast-path-in': choiceFlag(
    ['auto', 'xdp', 'off'],
    'auto',
    'receive packets from peers with XDP, before the kernel coalesces them: auto with network drivers that are known to benefit, xdp with ' +
      'any driver that supports it',
  ),
  'fast-path-dir': stringFlag(
    '/sys/fs/bpf/weft',
    'bpffs directory where the fast path is pinned, so that it keeps working while the agent is down',
  ),
  probe: choiceFlag(
    ['on', 'off'],
    'on',
    'measure round-trip time, loss and path MTU to other hosts in the background, with at most 8 small packets a second',
  ),
  'notrack-tunnel': boolFlag(
    false,
    "exclude the udp backend's tunnel datagrams from connection tracking; do not use this if a firewall accepts them only as ESTABLISHED",
  ),
  'live-reconfigure': boolFlag(
    false,
    'apply another backend in the network configuration without a restart of this process; changes to the networks still need one',
  ),
  'require-node-address': boolFlag(
    false,
    "with Kubernetes, accept a node's public address only if its Node object lists it (status.addresses)",
  ),
  'api-socket': stringFlag(
    API_SOCKET_NAME,
    'Unix socket `file` of the read-only API, for root and the user of the agent; relative to the directory of -subnet-file, empty to disable',
  ),
  'api-listen': stringFlag(
    '',
    'also serve the read-only API on this `address:port`, to clients with the token; an empty address means all addresses',
  ),
  'api-token-file': stringFlag(
    '',
    '`file` with the token for -api-listen, at least 16 characters; read for each request',
  ),
  'log-format': choiceFlag(['text', 'json'], 'text', 'log format'),
  'cni-conf-dir': stringFlag(
    '',
    'write the CNI configuration 10-flannel.conflist to this `directory`, such as /etc/cni/net.d, once packets flow (default: it is installed by other means)',
  ),
  'cni-conf-template': stringFlag(
    '/etc/kube-flannel/cni-conf.json',
    "template `file` for the CNI configuration, with -cni-conf-dir; if it does not exist, flannel's default",
  ),
  'cni-conf-plugin': choiceFlag(
    ['delegate', 'flannel'],
    'delegate',
    'CNI plugin that sets up pods, with -cni-conf-dir: the delegate of the flannel plugin (bridge), configured by the agent, or the flannel plugin itself, as in the template',
  ),
  'iface-allow-loopback': boolFlag(
    false,
    'allow -iface and similar flags to select the loopback interface; other hosts cannot be reached through it',
  ),
  'iface-from-node-ip': boolFlag(false, "with Kubernetes, use the interface that has the Node's InternalIP"),
  'explain-iface': boolFlag(false, 'print every candidate interface and why it was or was not chosen, then exit'),
  'skip-br-netfilter-check': boolFlag(false, 'start without the br_netfilter kernel module'),
} as const;

export type FlanneldFlags = FlagValues<typeof FLANNELD_FLAGS>;

/** Usage text of the agent, in the form of Go's flag package. */
export function flanneldUsage(): string {
  return `Usage: flanneld [OPTION]...\n${flagUsage(FLANNELD_FLAGS)}`;
}
