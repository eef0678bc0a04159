import { dirname, resolve } from 'node:path';
import { WeftError } from '../errors.ts';
import { showInvisible } from '../invisible.ts';
import { type IpAddr, parseAddr } from '../ip/address.ts';
import { type Ipv4Addr, parseIpv4 } from '../ip/ipv4.ts';
import { type Ipv6Addr, parseIpv6 } from '../ip/ipv6.ts';
import { FLANNELD_FLAGS, type FlanneldFlags, flanneldUsage, type ModuleVerbosity } from './flanneld-flags.ts';
import { applyEnvironment, parseFlags } from './go-flags.ts';
import { compileRe2 } from './re2.ts';

export type SubnetManagerKind = 'local' | 'etcd' | 'kube';

/** Where the API listens beside its socket. */
export interface ApiListen {
  /** A literal; '' is every address of both families. */
  readonly address: string;
  /** 1 … 65535 */
  readonly port: number;
  readonly tokenFile: string;
}

/** The agent's command line and environment, checked and frozen. */
export interface FlanneldOptions {
  /** At least one. */
  readonly etcdEndpoints: readonly string[];
  readonly etcdPrefix: string;
  /** The file names are empty when not given, and so are user name and password. */
  readonly etcdKeyFile: string;
  readonly etcdCertFile: string;
  readonly etcdCaFile: string;
  readonly etcdUsername: string;
  readonly etcdPassword: string;
  /** Names or addresses, in the order to try. */
  readonly iface: readonly string[];
  readonly ifaceRegex: readonly RegExp[];
  /** An empty -iface or -iface-regex was given: where nothing that was named fits, the default route's interface will do. */
  readonly ifaceElseDefault: boolean;
  readonly ifaceAllowLoopback: boolean;
  readonly ifaceCanReach: IpAddr | undefined;
  readonly ifaceFromNodeIp: boolean;
  readonly explainIface: boolean;
  readonly subnetFile: string;
  readonly publicIp: Ipv4Addr | undefined;
  readonly publicIpv6: Ipv6Addr | undefined;
  /** 1 … 1439 */
  readonly subnetLeaseRenewMarginMinutes: number;
  readonly ipMasq: boolean;
  readonly ipMasqFullyRandomDisable: boolean;
  readonly subnetManager: SubnetManagerKind;
  readonly localStore: string;
  readonly kubeApiUrl: string;
  readonly kubeAnnotationPrefix: string;
  readonly kubeconfigFile: string;
  readonly netConfigPath: string;
  readonly setNodeNetworkUnavailable: boolean;
  readonly healthzIp: string;
  /** 0 … 65535, 0 is off. */
  readonly healthzPort: number;
  /** 1 or more. */
  readonly iptablesResyncSeconds: number;
  readonly iptablesForwardRules: boolean;
  readonly ipBlackholeRoute: boolean;
  readonly skipBrNetfilterCheck: boolean;
  /** What the address inside a packet from a known peer must be (dataplane/source-check.ts). */
  readonly sourceCheck: 'loose' | 'strict' | 'off';
  /** What the address inside it is sent to must be (dataplane/destination-check.ts). */
  readonly destinationCheck: 'loose' | 'strict' | 'off';
  /** Whether packets may take the fast path (dataplane/fast-path/mode.ts). */
  readonly fastPath: 'auto' | 'off';
  /** Whether XDP takes what peers send (dataplane/fast-path/mode.ts). */
  readonly fastPathIn: 'auto' | 'xdp' | 'off';
  /** Where the fast path is kept while there is no agent (linux/bpf-directory.ts). */
  readonly fastPathDir: string;
  /** Whether the ways to other hosts are measured (agent/peer-probes.ts). */
  readonly probe: 'on' | 'off';
  /** Whether connection tracking leaves the tunnel's datagrams alone (trafficmngr/rules.ts). */
  readonly notrackTunnel: boolean;
  /** Whether another backend of the network configuration is applied while the agent runs (agent/config-watch.ts). */
  readonly liveReconfigure: boolean;
  /** Whether the public address of a peer must be one of its Node's (lease/gate-rules.ts). */
  readonly requireNodeAddress: boolean;
  /** '' when the agent keeps no CNI configuration. */
  readonly cniConfDir: string;
  readonly cniConfTemplate: string;
  readonly cniConfPlugin: 'delegate' | 'flannel';
  /** Absolute; '' for none. */
  readonly apiSocket: string;
  readonly apiListen: ApiListen | undefined;
  readonly logFormat: 'text' | 'json';
  readonly verbosity: number;
  readonly vmodule: readonly ModuleVerbosity[];
  readonly logBacktraceAt: string;
  /** From variables that are no flags, for -kube-subnet-mgr; empty when not set. */
  readonly nodeName: string;
  readonly podName: string;
  readonly podNamespace: string;
  /** WIREGUARD_KEY_FILE. */
  readonly wireguardKeyFile: string;
  /** EVENT_QUEUE_DEPTH, 1 or more. */
  readonly eventQueueDepth: number;
  /** CONT_WHEN_CACHE_NOT_READY is `true`. */
  readonly contWhenCacheNotReady: boolean;
}

export type FlanneldOptionsResult =
  | { readonly kind: 'run'; readonly options: FlanneldOptions; readonly warnings: readonly string[] }
  /** `text` goes to stderr, as flannel's does; exit 0. */
  | { readonly kind: 'help'; readonly text: string }
  | { readonly kind: 'version' }
  /**
   * WEFT_USAGE. Exit 2 when a flag or variable cannot be read (flannel exits 0, or takes 0 for a variable), with `usage`
   * for stderr; exit 1 when the values do not make sense (as flannel).
   */
  | { readonly kind: 'error'; readonly error: WeftError; readonly usage: string | undefined; readonly exitCode: 1 | 2 };

export const FLANNELD_VARIABLE_PREFIX = 'FLANNELD';
/** Where flannel keeps its private key unless the variable of that name says another place. */
export const WIREGUARD_KEY_FILE = '/run/flannel/wgkey';

/**
 * Reads the words after the program's name and the environment. A flag on the command line wins over its `FLANNELD_`
 * variable; `-version` counts on the command line only, as in flannel.
 */
export function parseFlanneldOptions(
  args: readonly string[],
  env: { readonly [variable: string]: string | undefined },
): FlanneldOptionsResult {
  const parsed = parseFlags(FLANNELD_FLAGS, args);
  if (parsed.kind === 'help') return { kind: 'help', text: flanneldUsage() };
  if (parsed.kind === 'error') {
    const hint = 'Run flanneld -help for the list of flags.';
    return usageError(`cannot read the command line: ${parsed.message}`, hint, flanneldUsage());
  }
  const [stray] = parsed.rest;
  if (stray !== undefined) {
    const message = `cannot read the command line: ${showInvisible(JSON.stringify(stray))} is not a flag, and nothing after it would be read`;
    const hint = 'A flag that can be true or false takes its value after "=": -ip-masq=true.';
    return usageError(message, hint, flanneldUsage());
  }
  if (parsed.values.version) return { kind: 'version' };
  const settings = applyEnvironment(FLANNELD_FLAGS, FLANNELD_VARIABLE_PREFIX, env, parsed);
  if (settings.problems.length > 0) {
    const list = settings.problems.map(({ variable, message }) => `${variable}: ${message}`).join('; ');
    return usageError(`cannot read the environment: ${list}`, 'Correct or unset the variable.', undefined);
  }
  return new Reading(settings.values, env).run();
}

function usageError(message: string, hint: string, usage: string | undefined): FlanneldOptionsResult {
  return { kind: 'error', error: new WeftError('WEFT_USAGE', message, { hint }), usage, exitCode: 2 };
}

function isGiven(text: string): boolean {
  return text !== '';
}

/** Turns flag values into options and collects all that is wrong with them. */
class Reading {
  readonly #flags: FlanneldFlags;
  readonly #env: { readonly [variable: string]: string | undefined };
  readonly #problems: string[] = [];
  readonly #warnings: string[] = [];

  constructor(flags: FlanneldFlags, env: { readonly [variable: string]: string | undefined }) {
    this.#flags = flags;
    this.#env = env;
  }

  run(): FlanneldOptionsResult {
    const options = this.#options();
    if (this.#problems.length === 0) return { kind: 'run', options, warnings: this.#warnings };
    const error = new WeftError('WEFT_USAGE', `cannot start with these options: ${this.#problems.join('; ')}`, {
      hint: 'Correct the flags, or the FLANNELD_ variables of the same names.',
    });
    return { kind: 'error', error, usage: undefined, exitCode: 1 };
  }

  #options(): FlanneldOptions {
    const flags = this.#flags;
    const subnetManager = this.#subnetManager();
    if ((flags['etcd-keyfile'] === '') !== (flags['etcd-certfile'] === '')) {
      const [present, absent] =
        flags['etcd-keyfile'] === '' ? ['etcd-certfile', 'etcd-keyfile'] : ['etcd-keyfile', 'etcd-certfile'];
      this.#warnings.push(`-${present} has no effect without -${absent}: etcd is not shown a client certificate`);
    }
    return Object.freeze({
      etcdEndpoints: this.#endpoints(),
      etcdPrefix: flags['etcd-prefix'],
      etcdKeyFile: flags['etcd-keyfile'],
      etcdCertFile: flags['etcd-certfile'],
      etcdCaFile: flags['etcd-cafile'],
      etcdUsername: flags['etcd-username'],
      etcdPassword: flags['etcd-password'],
      iface: Object.freeze(flags.iface.filter(isGiven)),
      ifaceRegex: this.#regexps(),
      ifaceElseDefault: !flags.iface.every(isGiven) || !flags['iface-regex'].every(isGiven),
      ifaceAllowLoopback: flags['iface-allow-loopback'],
      ifaceCanReach: this.#address('iface-can-reach', 'invalid IP address', parseAddr),
      ifaceFromNodeIp: flags['iface-from-node-ip'],
      explainIface: flags['explain-iface'],
      subnetFile: this.#orDefault('subnet-file'),
      publicIp: this.#address('public-ip', 'invalid public IP address', parseIpv4),
      publicIpv6: this.#address('public-ipv6', 'invalid public IPv6 address', parseIpv6),
      subnetLeaseRenewMarginMinutes: this.#margin(),
      ipMasq: flags['ip-masq'],
      ipMasqFullyRandomDisable: flags['ip-masq-fully-random-disable'],
      subnetManager,
      localStore: this.#orDefault('local-store'),
      kubeApiUrl: flags['kube-api-url'],
      kubeAnnotationPrefix: this.#orDefault('kube-annotation-prefix'),
      kubeconfigFile: flags['kubeconfig-file'],
      netConfigPath: this.#orDefault('net-config-path'),
      setNodeNetworkUnavailable: flags['set-node-network-unavailable'],
      healthzIp: flags['healthz-ip'],
      healthzPort: this.#integer('healthz-port', 0, 65_535, ''),
      iptablesResyncSeconds: this.#integer('iptables-resync', 1, 2_147_483, ' seconds'),
      iptablesForwardRules: flags['iptables-forward-rules'],
      ipBlackholeRoute: flags['ip-blackhole-route'],
      skipBrNetfilterCheck: flags['skip-br-netfilter-check'],
      sourceCheck: flags['source-check'],
      destinationCheck: flags['destination-check'],
      fastPath: flags['fast-path'],
      fastPathIn: flags['fast-path-in'],
      fastPathDir: this.#orDefault('fast-path-dir'),
      probe: flags.probe,
      notrackTunnel: flags['notrack-tunnel'],
      liveReconfigure: flags['live-reconfigure'],
      requireNodeAddress: this.#requireNodeAddress(subnetManager),
      cniConfDir: flags['cni-conf-dir'],
      cniConfTemplate: this.#orDefault('cni-conf-template'),
      cniConfPlugin: flags['cni-conf-plugin'],
      apiSocket: this.#apiSocket(),
      apiListen: this.#apiListen(),
      logFormat: flags['log-format'],
      verbosity: flags.v,
      vmodule: Object.freeze(flags.vmodule),
      logBacktraceAt: flags.log_backtrace_at,
      nodeName: this.#env.NODE_NAME ?? '',
      podName: this.#env.POD_NAME ?? '',
      podNamespace: this.#env.POD_NAMESPACE ?? '',
      wireguardKeyFile: this.#env.WIREGUARD_KEY_FILE ?? WIREGUARD_KEY_FILE,
      eventQueueDepth: this.#eventQueueDepth(subnetManager),
      contWhenCacheNotReady: this.#env.CONT_WHEN_CACHE_NOT_READY === 'true',
    });
  }

  #subnetManager(): SubnetManagerKind {
    const kind = this.#flags['subnet-mgr'];
    if (!this.#flags['kube-subnet-mgr']) return kind ?? 'etcd';
    if (kind !== undefined && kind !== 'kube') {
      this.#problems.push(`-kube-subnet-mgr and -subnet-mgr=${kind} contradict each other`);
    }
    return 'kube';
  }

  #apiSocket(): string {
    const path = this.#flags['api-socket'];
    return path === '' ? '' : resolve(dirname(this.#orDefault('subnet-file')), path);
  }

  #apiListen(): ApiListen | undefined {
    const { 'api-listen': text, 'api-token-file': tokenFile } = this.#flags;
    if (text === '') {
      if (tokenFile !== '') this.#warnings.push('-api-token-file has no effect without -api-listen');
      return undefined;
    }
    const [, bracketed, plain, digits] = /^(?:\[([^\]]*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
    const address = bracketed ?? plain ?? '';
    const port = Number(digits ?? 0);
    if (port < 1 || port > 65_535 || (address !== '' && parseAddr(address) === undefined)) {
      this.#problems.push(`-api-listen is ${JSON.stringify(text)}, must be ADDRESS:PORT, such as 127.0.0.1:8287`);
    }
    if (tokenFile === '')
      this.#problems.push('-api-listen needs -api-token-file: the API answers only clients that have the token');
    return { address, port, tokenFile };
  }

  #requireNodeAddress(subnetManager: SubnetManagerKind): boolean {
    const isWanted = this.#flags['require-node-address'];
    if (isWanted && subnetManager !== 'kube') {
      this.#problems.push(`-require-node-address needs Kubernetes: the subnet manager ${subnetManager} knows no nodes`);
    }
    return isWanted;
  }

  #endpoints(): readonly string[] {
    const read = (text: string): string[] =>
      text
        .split(',')
        .map((endpoint) => endpoint.trim())
        .filter(isGiven);
    const endpoints = read(this.#flags['etcd-endpoints']);
    return Object.freeze(endpoints.length > 0 ? endpoints : read(FLANNELD_FLAGS['etcd-endpoints'].initial));
  }

  #regexps(): readonly RegExp[] {
    const compiled: RegExp[] = [];
    for (const text of this.#flags['iface-regex'].filter(isGiven)) {
      const regexp = compileRe2(text);
      if (regexp !== undefined) compiled.push(regexp);
      else this.#problems.push(`-iface-regex ${JSON.stringify(text)} is not a regular expression`);
    }
    return Object.freeze(compiled);
  }

  #address<A>(
    name: 'public-ip' | 'public-ipv6' | 'iface-can-reach',
    complaint: string,
    parse: (text: string) => A | undefined,
  ): A | undefined {
    const text = this.#flags[name];
    if (text === '') return undefined;
    const addr = parse(text);
    if (addr === undefined) this.#problems.push(`${complaint}: ${showInvisible(text)} (-${name})`);
    return addr;
  }

  /** Empty counts as not given: templates write `--subnet-file=` where there is nothing to say. */
  #orDefault(
    name:
      | 'subnet-file'
      | 'local-store'
      | 'fast-path-dir'
      | 'net-config-path'
      | 'cni-conf-template'
      | 'kube-annotation-prefix',
  ): string {
    const text = this.#flags[name];
    return isGiven(text) ? text : FLANNELD_FLAGS[name].initial;
  }

  #margin(): number {
    const minutes = this.#flags['subnet-lease-renew-margin'];
    if (minutes < 1 || minutes > 1439) {
      const complaint = 'Invalid subnet-lease-renew-margin option, out of acceptable range';
      this.#problems.push(`${complaint} (is ${minutes}, must be 1 to 1439 minutes)`);
    }
    return minutes;
  }

  #integer(name: 'healthz-port' | 'iptables-resync', min: number, max: number, unit: string): number {
    const value = this.#flags[name];
    if (value < min || value > max) this.#problems.push(`-${name} is ${value}, must be ${min} to ${max}${unit}`);
    return value;
  }

  #eventQueueDepth(subnetManager: SubnetManagerKind): number {
    const text = this.#env.EVENT_QUEUE_DEPTH ?? '';
    const depth = Number(text);
    if (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(depth)) return depth > 0 ? depth : 5000;
    if (text !== '' && subnetManager === 'kube') {
      this.#problems.push(`env EVENT_QUEUE_DEPTH=${text} format error: must be a whole number`);
    }
    return 5000;
  }
}
