/**
 * Hosts and containers as network namespaces of this machine: what `weft lab`, the bench and the tests in test/netns run
 * on. Made with a few `ip -batch` calls; removed by disposal, or after a crash (removal.ts).
 */
import { randomBytes } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { assertNever } from '../assert-never.ts';
import { describeError, WeftError } from '../errors.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';
import { type Child, type RunOptions, type RunResult, run, type StartOptions, start } from '../linux/run.ts';
import { mapLimit } from './map-limit.ts';
import {
  bridgeScript,
  type ContainerNetwork,
  type ContainerPlan,
  containerAddress,
  containerScript,
  createScript,
  HOST_DEVICE,
  type HostPlan,
  namespacesOf,
  planTopology,
  plugIn,
  recreateScript,
  type StationPlan,
  stationScript,
  stationsOf,
  switchScript,
  type TopologyPlan,
  type Underlay,
  wireLikeCommand,
} from './namespaces.ts';
import { identifyProcess } from './process-identity.ts';
import {
  type LabProcess,
  type LabRecord,
  newRecord,
  REGISTRY_DIRECTORY,
  stateDirectoryOf,
  writeRecord,
} from './registry.ts';
import { removeAbandonedLabs, removeLab, requireRoot } from './removal.ts';

export interface LabHost extends HostPlan {
  /** 0 … */
  readonly index: number;
  readonly containers: readonly LabContainer[];
  /** For subnet.env, logs and the like; removed with the lab. */
  readonly stateDirectory: string;
  /** Set by {@link Topology.attachContainers}. */
  readonly network: ContainerNetwork | undefined;
}

/** Where the servers of a subnet store run. */
export interface LabStore extends StationPlan {
  /** For their files; removed with the lab. */
  readonly stateDirectory: string;
}

export interface LabContainer extends ContainerPlan {
  /** 0 … within its host. */
  readonly index: number;
  readonly host: LabHost;
  /** On {@link CONTAINER_DEVICE}; set by {@link Topology.attachContainers}. */
  readonly address: Ipv4Addr | undefined;
}

export interface TopologyOptions {
  readonly hosts: number;
  /** Default 2. */
  readonly containersPerHost?: number | undefined;
  /** Default `native`. */
  readonly underlay?: Underlay | undefined;
  /** Default 1500. */
  readonly underlayMtuBytes?: number | undefined;
  readonly backToBack?: boolean | undefined;
  /** A namespace for a store's servers; default false. */
  readonly store?: boolean | undefined;
  /** Default: random. */
  readonly id?: string | undefined;
  /** Shown by `weft lab down`, e.g. `weft lab --hosts 3`. */
  readonly purpose: string;
  readonly registryDirectory?: string | undefined;
  /** Where this process is killed, only `weft lab down` removes it; by default whoever makes the next lab does. */
  readonly staysAfterCrash?: boolean | undefined;
}

/** `ip` processes at a time: they are short and the kernel serialises them on one lock. */
const PARALLEL = 4;

/** A member of the topology, or the name of a namespace. */
export type Place = string | { readonly namespace: string };

/** Hosts, their containers and the network between them, made of namespaces; they go with it, unless they are kept. */
export class Topology implements AsyncDisposable {
  readonly plan: TopologyPlan;
  readonly hosts: readonly LabHost[];
  readonly store: LabStore | undefined;
  /** Shared state of the lab, such as the lease store; removed with it. */
  readonly stateDirectory: string;
  readonly #hosts: MutableHost[];
  readonly #record: LabRecord;
  /** Where the records of all labs are. */
  readonly registryDirectory: string;
  readonly #children = new Set<Child>();
  #kept = false;
  #removed = false;

  private constructor(plan: TopologyPlan, purpose: string, registry: string, staysAfterCrash: boolean) {
    this.plan = plan;
    this.stateDirectory = stateDirectoryOf(plan.id, registry);
    this.registryDirectory = registry;
    this.#hosts = plan.hosts.map((host, index) => mutableHost(host, index, join(this.stateDirectory, host.name)));
    this.hosts = this.#hosts;
    this.store = plan.store && { ...plan.store, stateDirectory: join(this.stateDirectory, plan.store.name) };
    this.#record = newRecord({ id: plan.id, purpose, namespaces: namespacesOf(plan), staysAfterCrash });
  }

  /**
   * Hosts with their underlay and empty containers; {@link attachContainers} connects those. When it fails, or `signal`
   * fires, what was made is removed again. Labs whose makers were killed are removed first.
   *
   * @throws WeftError WEFT_USAGE, WEFT_NOT_ROOT, WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED.
   */
  static async create(options: TopologyOptions, signal?: AbortSignal): Promise<Topology> {
    requireRoot();
    const plan = planTopology({ ...options, id: options.id ?? randomBytes(3).toString('hex') });
    const { purpose, registryDirectory = REGISTRY_DIRECTORY, staysAfterCrash = false } = options;
    await removeAbandonedLabs(registryDirectory);
    const topology = new Topology(plan, purpose, registryDirectory, staysAfterCrash);
    const existing = namespacesOf(plan).find((name) => existsSync(`/run/netns/${name}`));
    if (existing !== undefined) {
      throw new WeftError(
        'WEFT_LAB_FAILED',
        `could not make lab ${plan.id}: the namespace ${existing} exists already`,
        {
          hint: `Remove that lab first: weft lab down ${plan.id}`,
        },
      );
    }
    try {
      writeRecord(topology.#record, topology.registryDirectory);
      for (const { name } of stationsOf(plan)) mkdirSync(join(topology.stateDirectory, name), { recursive: true });
      await topology.#build(signal);
    } catch (error) {
      await topology.#removeAfter(error);
      throw error;
    }
    return topology;
  }

  get id(): string {
    return this.plan.id;
  }

  get containers(): readonly LabContainer[] {
    return this.hosts.flatMap((host) => host.containers);
  }

  /** Runs a program in a namespace to its end; options and errors are those of {@link run}. */
  exec(place: Place, argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run(argv, { ...options, netns: namespaceOf(place) });
  }

  /** `ip -n <namespace> -batch -`: all lines in one process; stops at the first that fails. */
  async ipBatch(place: Place, script: string, signal?: AbortSignal): Promise<void> {
    await run(['ip', '-n', namespaceOf(place), '-batch', '-'], { stdin: script, signal });
  }

  /**
   * Starts a program in a namespace. It is on record before it runs, and is ended when it is disposed of or the lab is
   * removed, whichever comes first; with `detached` it outlives this process in a lab that is kept.
   *
   * @param place `undefined` is this machine itself.
   */
  async start(place: Place | undefined, argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    const entry: LabProcess = { argv: [...argv] };
    this.#record.processes.push(entry);
    writeRecord(this.#record, this.registryDirectory);
    const child = await start(argv, { ...options, netns: place && namespaceOf(place) });
    this.#children.add(child);
    void child.exited.then(() => {
      this.#children.delete(child);
      this.#record.processes.splice(this.#record.processes.indexOf(entry), 1);
    });
    entry.pid = child.pid;
    const startTicks = identifyProcess(child.pid)?.startTicks;
    if (startTicks !== undefined) entry.startTicks = startTicks;
    writeRecord(this.#record, this.registryDirectory);
    return child;
  }

  /** {@link start}, detached, with both outputs appended to a log file. */
  async startLogged(
    place: Place | undefined,
    argv: readonly string[],
    logPath: string,
    options: StartOptions = {},
  ): Promise<Child> {
    const log = openSync(logPath, 'a', 0o644);
    try {
      return await this.start(place, argv, { ...options, stdout: log, stderr: log, detached: true });
    } finally {
      closeSync(log);
    }
  }

  /**
   * cni0 with the gateway's address, and the host's containers behind it, as the CNI bridge plugin makes them from
   * subnet.env. Called once a host, when it has its subnet.
   */
  async attachContainers(host: LabHost, network: ContainerNetwork, signal?: AbortSignal): Promise<void> {
    const own = this.#hosts[host.index]!;
    const addresses = own.containers.map((_, index) => containerAddress(network, index));
    await this.ipBatch(own, bridgeScript(own, network), signal);
    await mapLimit(own.containers, PARALLEL, async (container, index) => {
      const address = addresses[index]!;
      await this.ipBatch(container, containerScript(network, address), signal);
      container.address = address;
    });
    own.network = network;
  }

  /** A new machine in the place of a host, at its address: nothing of the old one is left in it, nothing runs in it yet. */
  async replaceHost(host: LabHost, signal?: AbortSignal): Promise<void> {
    const { switchNamespace } = this.plan;
    // A namespace that ends removes the cables in it some time later.
    await this.ipBatch(switchNamespace, `link delete ${host.switchPort}\n`, signal);
    await run(['ip', 'netns', 'delete', host.namespace], { signal });
    await run(['ip', '-batch', '-'], { stdin: recreateScript(this.plan, host), signal });
    await this.ipBatch(switchNamespace, `${plugIn(host)}\n`, signal);
    await this.ipBatch(host, stationScript(this.plan, host), signal);
    await this.#setUpHost(host, signal);
    this.#hosts[host.index]!.network = undefined;
  }

  /** Leaves everything running when this object is disposed of: `weft lab down` removes it. */
  keep(): void {
    this.#kept = true;
    this.#record.staysAfterCrash = true;
    writeRecord(this.#record, this.registryDirectory);
  }

  /** Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#kept || this.#removed) return;
    this.#removed = true;
    await Promise.all(Array.from(this.#children, (child) => child[Symbol.asyncDispose]()));
    await removeLab(this.#record, this.registryDirectory);
  }

  async #build(signal: AbortSignal | undefined): Promise<void> {
    const { plan } = this;
    await run(['ip', '-batch', '-'], { stdin: createScript(plan), signal });
    if (!plan.backToBack) await this.ipBatch(plan.switchNamespace, switchScript(plan), signal);
    await mapLimit(stationsOf(plan), PARALLEL, async (station) => {
      await this.ipBatch(station, stationScript(plan, station), signal);
    });
    await mapLimit(plan.hosts, PARALLEL, (host) => this.#setUpHost(host, signal));
  }

  async #setUpHost(host: HostPlan, signal: AbortSignal | undefined): Promise<void> {
    await this.exec(host, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward'], { signal });
    const { underlay, switchNamespace } = this.plan;
    switch (underlay) {
      case 'native':
        return;
      case 'wire':
        await this.exec(host, wireLikeCommand(HOST_DEVICE), { signal });
        return;
      case 'switch':
        await this.exec(switchNamespace, wireLikeCommand(host.switchPort), { signal });
        await this.exec(host, ['ethtool', '-K', HOST_DEVICE, 'gro', 'on'], { signal });
        return;
      default:
        assertNever(underlay);
    }
  }

  /** Removal that must not hide the error which led to it. */
  async #removeAfter(error: unknown): Promise<void> {
    try {
      await this[Symbol.asyncDispose]();
    } catch (second) {
      throw new WeftError(
        'WEFT_LAB_FAILED',
        `${describeError(error)}; and removing the lab failed: ${describeError(second)}`,
        {
          hint: `Try: weft lab down ${this.id}`,
          cause: error,
        },
      );
    }
  }
}

type MutableContainer = { -readonly [K in keyof LabContainer]: LabContainer[K] };
type MutableHost = Omit<LabHost, 'network' | 'containers'> & {
  network: ContainerNetwork | undefined;
  containers: MutableContainer[];
};

function mutableHost(plan: HostPlan, index: number, stateDirectory: string): MutableHost {
  const host: MutableHost = { ...plan, index, stateDirectory, network: undefined, containers: [] };
  host.containers = plan.containers.map((container, i) => ({ ...container, index: i, host, address: undefined }));
  return host;
}

function namespaceOf(place: Place): string {
  return typeof place === 'string' ? place : place.namespace;
}
