import { assertNever } from '../assert-never.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { describeError } from '../errors.ts';
import type { RecordEvent } from '../events/event.ts';
import type { IpFamily, IpPrefix } from '../ip/address.ts';
import { FAMILIES, present } from '../ip/family.ts';
import type { Lease } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import type { SubnetEnvNetworks } from '../node-files/subnet-env.ts';
import { checkBridgeNetfilter } from '../trafficmngr/bridge-netfilter.ts';
import { recycleMessage } from '../trafficmngr/recycle.ts';
import { type ResyncEvent, TrafficResync } from '../trafficmngr/resync.ts';
import { type TrafficRules, type TunnelSocket, trafficRules } from '../trafficmngr/rules.ts';
import { describeRepair, type TrafficManager } from '../trafficmngr/traffic-manager.ts';
import type { AgentHost } from './ports.ts';

/** The families the network uses. */
export function familiesOf(config: NetworkConfig): IpFamily[] {
  return [...(config.ipv4 === undefined ? [] : [4 as const]), ...(config.ipv6 === undefined ? [] : [6 as const])];
}

/**
 * In iptables mode the module br_netfilter must be there, unless the user says otherwise.
 * @throws WeftError WEFT_BRIDGE_NETFILTER
 */
export async function checkBridge(
  options: FlanneldOptions,
  config: NetworkConfig,
  readText: AgentHost['readText'],
  log: Log,
  signal: AbortSignal,
): Promise<void> {
  if (config.enableNfTables || options.skipBrNetfilterCheck) return;
  for (const warning of await checkBridgeNetfilter(familiesOf(config), (path) => readText(path, signal), signal))
    log.warn(warning.message);
}

export interface NodeTrafficParts {
  readonly options: FlanneldOptions;
  readonly config: NetworkConfig;
  readonly managerOf: AgentHost['trafficManager'];
  readonly record: RecordEvent;
  readonly log: Log;
}

/** The masquerade and forward rules of this node: set once it has its subnet, kept by a loop until disposed. */
export class NodeTraffic implements AsyncDisposable {
  readonly #options: FlanneldOptions;
  readonly #config: NetworkConfig;
  readonly #log: Log;
  readonly #manager: TrafficManager;
  readonly #managerOf: AgentHost['trafficManager'];
  readonly #record: RecordEvent;
  readonly #stop = new AbortController();
  #resync: TrafficResync | undefined;
  #running: Promise<void> | undefined;

  constructor({ options, config, managerOf, record, log }: NodeTrafficParts) {
    this.#record = record;
    this.#managerOf = managerOf;
    this.#options = options;
    this.#config = config;
    this.#log = log;
    this.#manager = managerOf(config.enableNfTables ? 'nftables' : 'iptables');
  }

  /** Looks whether rules could be set, where any are wanted; changes nothing. @throws WeftError */
  async probe(signal: AbortSignal): Promise<void> {
    const { ipMasq, iptablesForwardRules, notrackTunnel } = this.#options;
    if (!ipMasq && !iptablesForwardRules && !notrackTunnel) return;
    await this.#manager.probe(familiesOf(this.#config), signal);
  }

  /** Why the rules are not as they should be. */
  get failure(): string | undefined {
    const failure = this.#resync?.failure;
    return failure === undefined ? undefined : `the traffic rules: ${failure}`;
  }

  get kind(): TrafficManager['kind'] {
    return this.#manager.kind;
  }

  /** What the kernel has of the rules now, as their tool prints it; changes nothing. @throws WeftError */
  async read(signal: AbortSignal): Promise<readonly string[]> {
    // One of its own: the other may be in use.
    return await this.#managerOf(this.#manager.kind).read(signal);
  }

  /** For metrics; undefined before the first rules were set. */
  get counters(): TrafficResync['counters'] | undefined {
    return this.#resync?.counters;
  }

  /**
   * The rules for a lease. The first call cleans up after the manager that is not selected.
   * @param earlier what subnet.env said before this start.
   * @param tunnel the socket that the backend's packets go through; `undefined` when it has none.
   */
  async apply(
    own: Lease,
    earlier: SubnetEnvNetworks | undefined,
    tunnel: TunnelSocket | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const wanted = this.#rules(own, tunnel, []);
    if (this.#resync !== undefined) {
      this.#logRecycling(own, earlier);
      this.#resync.setWanted(wanted);
      return;
    }
    const formerNetworks = earlier === undefined ? [] : present(earlier.networks);
    const first = this.#rules(own, tunnel, formerNetworks);
    await this.#cleanOther(first.networks, signal);
    this.#log.info(`Starting flannel in ${this.#manager.kind} mode...`);
    this.#logRecycling(own, earlier);
    if (this.#options.ipMasq) this.#log.info('Setting up masking rules');
    if (this.#options.iptablesForwardRules) this.#log.info('Changing default FORWARD chain policy to ACCEPT');
    if (this.#options.notrackTunnel) this.#logUntracked(tunnel);
    for (const repair of await this.#manager.ensure(first, signal)) this.#log.verbose(1, describeRepair(repair));
    if (this.#manager.kind === 'iptables') this.#log.info('bootstrap done');
    this.#resync = new TrafficResync({
      manager: this.#manager,
      wanted,
      intervalMs: this.#options.iptablesResyncSeconds * 1_000,
      onEvent: (event) => this.#logEvent(event),
    });
    this.#running = this.#resync.run(this.#stop.signal);
  }

  #logUntracked(tunnel: TunnelSocket | undefined): void {
    if (tunnel === undefined) {
      const { type } = this.#config.backend;
      this.#log.warn(`--notrack-tunnel has no effect: the backend ${type} uses no socket of the agent`);
      return;
    }
    this.#log.info(`Keeping datagrams of UDP port ${tunnel.listenPort} out of connection tracking`);
  }

  /** @param formerNetworks looked for once: another agent of this host may have them by now. */
  #rules(own: Lease, tunnel: TunnelSocket | undefined, formerNetworks: readonly IpPrefix[]): TrafficRules {
    const { ipv4, ipv6 } = this.#config;
    return trafficRules({
      ipv4: ipv4 && own.subnets.ipv4 && { network: ipv4.network, subnet: own.subnets.ipv4 },
      ipv6: ipv6 && own.subnets.ipv6 && { network: ipv6.network, subnet: own.subnets.ipv6 },
      ipMasq: this.#options.ipMasq,
      randomFully: !this.#options.ipMasqFullyRandomDisable,
      forwardRules: this.#options.iptablesForwardRules,
      untracked: this.#options.notrackTunnel ? tunnel : undefined,
      formerNetworks,
    });
  }

  #logRecycling(own: Lease, earlier: SubnetEnvNetworks | undefined): void {
    if (this.#config.enableNfTables) return;
    for (const { key, version } of FAMILIES) {
      const network = this.#config[key]?.network;
      if (network === undefined) continue;
      const before = { network: earlier?.networks[key], subnet: earlier?.subnets[key] };
      const message = recycleMessage(version, { network, subnet: own.subnets[key] }, before);
      if (message !== undefined) this.#log.info(message);
    }
  }

  async #cleanOther(networks: readonly IpPrefix[], signal: AbortSignal): Promise<void> {
    this.#log.info('Cleaning-up unused traffic manager rules');
    const other = this.#managerOf(this.#config.enableNfTables ? 'iptables' : 'nftables');
    try {
      const { removed, unavailable } = await other.withdraw(networks, signal);
      for (const program of unavailable) this.#log.verbose(1, `${program} is not installed: nothing to clean up there`);
      for (const line of removed) this.#log.info(`Removed ${other.kind} rule of an earlier run: ${line}`);
    } catch (error) {
      signal.throwIfAborted();
      // Its rules, if there are any, do no harm beside ours: masquerading twice is masquerading once.
      this.#log.warn(`Could not clean up ${other.kind} rules: ${describeError(error)}`);
    }
  }

  #logEvent(event: ResyncEvent): void {
    switch (event.type) {
      case 'repaired':
        this.#log.warn('Some iptables rules are missing; deleting and recreating rules', { streak: event.streak });
        for (const repair of event.repairs) {
          this.#log.warn(describeRepair(repair));
          this.#record({
            ...{ kind: 'rules-repaired', severity: 'warning', subject: repair.where },
            text: `repaired: ${describeRepair(repair)}`,
            cause: `another program has changed it on this host (${event.streak} checks in a row found something)`,
            operations: [describeRepair(repair)],
          });
        }
        break;
      case 'failed': {
        const text = `Failed to ensure traffic rules: ${describeError(event.error)}`;
        this.#log.error(text);
        this.#record({ kind: 'rules-failed', severity: 'error', subject: this.#manager.kind, text });
        break;
      }
      case 'recovered': {
        const text = 'Traffic rules can be checked again';
        this.#log.info(text);
        this.#record({ kind: 'rules-recovered', severity: 'info', subject: this.#manager.kind, text });
        break;
      }
      default:
        assertNever(event, 'resync event');
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }
}
