/** One run of the lab: hosts, agents, containers, then everything that shows whether the overlay works. */
import { release } from 'node:os';
import { backendKind, backendKinds } from '../backend/registry.ts';
import { FIRST_TUN_NAME } from '../backend/tun-name.ts';
import { describeError, WeftError } from '../errors.ts';
import { formatIpv4 } from '../ip/ipv4.ts';
import { formatPrefix4 } from '../ip/prefix.ts';
import { type Agent, agentMemoryMiB, startAgent } from './agent.ts';
import { describeLeases, measureThroughput, pingEveryPair, pingFullSize, readRoutes, sendFile } from './checks.ts';
import { fileBytes } from './file-size.ts';
import { startLabPage, writeLabResult } from './lab-page.ts';
import type {
  FileResult,
  HostRoutes,
  LabResult,
  LeaseResult,
  MtuPingResult,
  PingResult,
  RouteResult,
  StageName,
  StageResult,
  ThroughputResult,
} from './lab-result.ts';
import { mapLimit } from './map-limit.ts';
import { openSubnetStore } from './open-subnet-store.ts';
import { type OverlayWay, readWay } from './overlay.ts';
import { checkPrerequisites } from './prerequisites.ts';
import type { SubnetStore, SubnetStoreKind } from './subnet-store.ts';
import { type LabHost, Topology } from './topology.ts';
import type { Walk, WalkResult } from './walk.ts';
import { walkContainers, walkHosts } from './walk-probe.ts';

export interface LabOptions {
  /** 2 … 32 */
  readonly hosts: number;
  readonly subnetStore: SubnetStoreKind;
  /** One of {@link LAB_BACKENDS}. */
  readonly backend: string;
  /** Leave it running, also when something failed, unless aborted; `weft lab down` removes it. */
  readonly keep: boolean;
  /** Of a lab that is kept: opens its page in a browser. */
  readonly open?: boolean;
  readonly purpose: string;
  readonly registryDirectory?: string | undefined;
}

/** Told what goes on; never asked anything. */
export interface LabObserver {
  began(lab: { readonly id: string; readonly hosts: number; readonly backend: string; readonly stages: number }): void;
  stageBegan(name: StageName, title: string): void;
  /** Share of the stage that is done, 0 … 1. */
  stageProgress(share: number): void;
  stageEnded(stage: StageResult): void;
  notice(text: string): void;
}

export const MIN_HOSTS = 2;
export const MAX_LAB_HOSTS = 32;
/** Those that carry packets by themselves, on several hosts of one machine. */
export const LAB_BACKENDS: readonly string[] = backendKinds()
  .filter(({ isCarriedByOthers, hasDaemon }) => isCarriedByOthers !== true && hasDaemon !== true)
  .map(({ type }) => type);
const LAB_NETWORK = '10.244.0.0/16';
const THROUGHPUT_SECONDS = 3;
/** Less is a connection that hangs in retransmissions, also on a machine that emulates its processor and is busy. */
const STALLED_GBPS = 0.001;
/** Agents that start at a time: they are busy while they load. */
const STARTING_AGENTS = 4;

/** Titles as shown; the order is that of the run. */
const STAGES: Readonly<Record<StageName, string>> = {
  topology: 'hosts and underlay',
  store: 'subnet store',
  agents: 'agents',
  containers: 'containers',
  pings: 'ping, every to every',
  mtuPing: 'full-size ping, DF set',
  throughput: 'TCP throughput',
  file: 'file',
  leases: 'leases and routes',
  walk: 'walk of one packet',
};

interface Findings {
  pings: PingResult | null;
  mtuPing: MtuPingResult | null;
  throughput: ThroughputResult | null;
  file: FileResult | null;
  leases: LeaseResult[] | null;
  routes: HostRoutes[] | null;
  overlay: OverlayWay | null;
  walk: Walk | null;
  nativeWalk: Walk | null;
}

/**
 * Builds a lab, looks at it from all sides and removes it (unless `keep`). What does not work is in the result, not
 * thrown.
 *
 * @throws WeftError WEFT_USAGE and what {@link checkPrerequisites} throws, before anything is made; WEFT_LAB_FAILED when
 *   the lab could not be removed. The reason of `signal`, after everything has been removed.
 */
export async function runLab(options: LabOptions, observer: LabObserver, signal: AbortSignal): Promise<LabResult> {
  const { hosts: hostCount } = options;
  if (!Number.isInteger(hostCount) || hostCount < MIN_HOSTS || hostCount > MAX_LAB_HOSTS) {
    throw new WeftError(
      'WEFT_USAGE',
      `--hosts ${hostCount}: want a whole number from ${MIN_HOSTS} to ${MAX_LAB_HOSTS}`,
    );
  }
  const kind = backendKind(options.backend);
  if (kind === undefined)
    throw new WeftError('WEFT_USAGE', `--backend ${options.backend}: want one of ${LAB_BACKENDS.join(', ')}`);
  const tun = kind.owns(kind.parse({}), [FIRST_TUN_NAME]).some((link) => link.kind === 'tun');
  await checkPrerequisites({ store: options.subnetStore, tun }, (text) => observer.notice(text), signal);
  const run = new LabRun(options, observer, signal);
  try {
    await run.all();
  } finally {
    await run.close();
  }
  signal.throwIfAborted();
  return run.result();
}

/** Thrown inside a stage whose failures are on record already. */
class StageFailed extends Error {}

class LabRun {
  readonly #options: LabOptions;
  readonly #observer: LabObserver;
  readonly #signal: AbortSignal;
  readonly #startedAt = performance.now();
  readonly #stages: StageResult[] = [];
  readonly #failures: string[] = [];
  readonly #findings: Findings = {
    pings: null,
    mtuPing: null,
    throughput: null,
    file: null,
    leases: null,
    routes: null,
    overlay: null,
    walk: null,
    nativeWalk: null,
  };
  #topology: Topology | undefined;
  #store: SubnetStore | undefined;
  #agents: Agent[] = [];
  #memoryMiB: (number | undefined)[] = [];
  #kept = false;
  #page: string | null = null;

  constructor(options: LabOptions, observer: LabObserver, signal: AbortSignal) {
    this.#options = options;
    this.#observer = observer;
    this.#signal = signal;
  }

  async all(): Promise<void> {
    const built =
      (await this.#stage('topology', () => this.#buildTopology())) &&
      (await this.#stage('store', () => this.#openStore())) &&
      (await this.#stage('agents', () => this.#startAgents())) &&
      (await this.#stage('containers', () => this.#attachContainers()));
    if (!built) return;
    await this.#stage('pings', () => this.#pings());
    await this.#stage('mtuPing', () => this.#mtuPing());
    await this.#stage('throughput', () => this.#throughput());
    await this.#stage('file', () => this.#file());
    await this.#stage('leases', () => this.#leasesAndRoutes());
    await this.#stage('walk', () => this.#walks());
    await this.#checkAgents();
    if (this.#options.keep) await this.#servePage();
  }

  /** Without its page a lab is still of use. */
  async #servePage(): Promise<void> {
    const topology = this.#lab();
    try {
      writeLabResult(this.result(), topology.stateDirectory);
      this.#page = await startLabPage(topology, this.#options.open ?? false, this.#signal);
    } catch (error) {
      this.#signal.throwIfAborted();
      this.#observer.notice(`The lab has no page: ${describeError(error)}`);
    }
  }

  async close(): Promise<void> {
    if (this.#options.keep && !this.#signal.aborted && this.#topology !== undefined) {
      this.#kept = true;
      this.#topology.keep();
      return;
    }
    // Agents first, so that they do not report a store that went away.
    await Promise.all(this.#agents.map((agent) => agent.child[Symbol.asyncDispose]()));
    await this.#store?.[Symbol.asyncDispose]();
    await this.#topology?.[Symbol.asyncDispose]();
  }

  result(): LabResult {
    const findings = this.#findings;
    const ok = this.#failures.length === 0;
    return {
      ok,
      id: this.#topology?.id ?? '',
      subnetManager: this.#options.subnetStore,
      store: this.#store?.result ?? null,
      backend: this.#options.backend,
      overlay: findings.overlay,
      network: LAB_NETWORK,
      kernel: release(),
      node: process.version,
      hosts: (this.#topology?.hosts ?? []).map((host, i) => this.#describeHost(host, i)),
      stages: this.#stages,
      pings: findings.pings,
      mtuPing: findings.mtuPing,
      throughputGbps: findings.throughput?.gbps ?? null,
      throughput: findings.throughput,
      fileHashOk: findings.file === null ? null : fileArrived(findings.file),
      file: findings.file,
      leases: findings.leases,
      routes: findings.routes,
      walk: findings.walk,
      nativeWalk: findings.nativeWalk,
      failures: this.#failures,
      durationMs: Math.round(performance.now() - this.#startedAt),
      kept: this.#kept,
      page: this.#page,
    };
  }

  #lab(): Topology {
    if (this.#topology === undefined) throw new Error('unreachable: no topology');
    return this.#topology;
  }

  /** Whether it passed. A failure is on record; only an abort is thrown. */
  async #stage(name: StageName, work: () => Promise<string>): Promise<boolean> {
    const title = STAGES[name];
    this.#signal.throwIfAborted();
    this.#observer.stageBegan(name, title);
    const startedAt = performance.now();
    const failuresBefore = this.#failures.length;
    let summary: string;
    try {
      summary = await work();
    } catch (error) {
      this.#signal.throwIfAborted();
      summary = error instanceof Error ? error.message : String(error);
      if (!(error instanceof StageFailed)) this.#failures.push(`${title}: ${explain(error)}`);
    }
    const ok = this.#failures.length === failuresBefore;
    const stage = { name, title, ok, durationMs: Math.round(performance.now() - startedAt), summary };
    this.#stages.push(stage);
    this.#observer.stageEnded(stage);
    return ok;
  }

  async #buildTopology(): Promise<string> {
    const { hosts, purpose, registryDirectory, subnetStore, backend } = this.#options;
    const store = subnetStore !== 'local';
    this.#topology = await Topology.create(
      { hosts, purpose, registryDirectory, store, staysAfterCrash: true },
      this.#signal,
    );
    this.#observer.began({ id: this.#topology.id, hosts, backend, stages: Object.keys(STAGES).length });
    const first = formatIpv4(this.#topology.hosts[0]!.address);
    const last = formatIpv4(this.#topology.hosts.at(-1)!.address);
    return `${hosts} network namespaces on one bridge, ${first} … ${last}, MTU ${this.#topology.plan.underlayMtuBytes}`;
  }

  async #openStore(): Promise<string> {
    const netConf = JSON.stringify({ Network: LAB_NETWORK, Backend: { Type: this.#options.backend } });
    this.#store = await openSubnetStore(this.#options.subnetStore, this.#lab(), netConf, this.#signal);
    return `${this.#store.kind}: ${this.#store.description}`;
  }

  async #startAgents(): Promise<string> {
    const topology = this.#lab();
    const store = this.#store!;
    await mapLimit(topology.hosts, STARTING_AGENTS, async (host) => {
      const agent = await startAgent(topology, host, store, {}, this.#signal);
      this.#agents.push(agent);
      this.#observer.stageProgress(this.#agents.length / topology.hosts.length);
    });
    this.#agents.sort((a, b) => a.host.index - b.host.index);
    const slowest = Math.max(...this.#agents.map((agent) => agent.readyMs));
    return `${this.#agents.length} ready, the slowest after ${(slowest / 1000).toFixed(2)} s`;
  }

  async #attachContainers(): Promise<string> {
    const topology = this.#lab();
    await mapLimit(this.#agents, 4, (agent) => topology.attachContainers(agent.host, agent.network, this.#signal));
    const mtus = [...new Set(this.#agents.map((agent) => agent.network.mtuBytes))];
    return `${topology.containers.length} behind cni0, MTU ${mtus.join(', ')}`;
  }

  async #pings(): Promise<string> {
    const topology = this.#lab();
    // A larger lab has enough pairs for its percentiles with fewer requests each.
    const count = Math.max(1, Math.min(10, Math.floor(2000 / topology.containers.length ** 2)));
    const pings = await pingEveryPair(
      topology,
      count,
      (done, total) => this.#observer.stageProgress(done / total),
      this.#signal,
    );
    this.#findings.pings = pings;
    const lossy = pings.pairs.filter((pair) => pair.sent !== count || pair.received !== count);
    if (lossy.length > 0) {
      const examples = lossy.slice(0, 3).map((pair) => `${pair.from} → ${pair.to} ${pair.received}/${count}`);
      this.#fail('pings', `${lossy.length} of ${pings.pairs.length} pairs lost packets: ${examples.join(', ')}`);
    }
    const rtt = pings.rttMs;
    const times = rtt === null ? '' : `, p50 ${rtt.p50.toFixed(3)} ms, p99 ${rtt.p99.toFixed(3)} ms`;
    return `${pings.received} of ${pings.sent} replies, ${pings.pairs.length} pairs${times}`;
  }

  async #mtuPing(): Promise<string> {
    const mtuPing = await pingFullSize(this.#lab(), this.#signal);
    this.#findings.mtuPing = mtuPing;
    const lost = mtuPing.pairs.filter((pair) => pair.received === 0 || pair.received !== pair.sent);
    if (lost.length > 0) {
      const first = lost[0]!;
      this.#fail(
        'mtuPing',
        `${mtuPing.packetBytes} bytes did not get through for ${lost.length} pairs, such as ${first.from} → ${first.to}`,
      );
    }
    if (!mtuPing.largerRefused) this.#fail('mtuPing', `${mtuPing.packetBytes + 1} bytes were not refused`);
    return `${mtuPing.packetBytes} bytes pass on ${mtuPing.pairs.length - lost.length} of ${mtuPing.pairs.length} pairs, ${mtuPing.packetBytes + 1} ${mtuPing.largerRefused ? 'are refused' : 'are NOT refused'}`;
  }

  async #throughput(): Promise<string> {
    const [from, to] = [this.#lab().hosts[0]!.containers[0]!, this.#lab().hosts[1]!.containers[0]!];
    const throughput = await measureThroughput(this.#lab(), from, to, THROUGHPUT_SECONDS, this.#signal);
    this.#findings.throughput = throughput;
    if (!(throughput.gbps >= STALLED_GBPS)) {
      this.#fail(
        'throughput',
        `the stream from ${from.name} to ${to.name} stalled: ${throughput.gbps.toFixed(4)} Gbit/s`,
      );
    }
    return `${throughput.gbps.toFixed(2)} Gbit/s, one stream ${from.name} → ${to.name}, ${throughput.retransmits} retransmits`;
  }

  async #file(): Promise<string> {
    const { hosts } = this.#lab();
    const [from, to] = [hosts.at(-1)!.containers[1]!, hosts[0]!.containers[1]!];
    const bytes = fileBytes(this.#findings.throughput?.gbps);
    const file = await sendFile(this.#lab(), from, to, bytes, this.#signal);
    this.#findings.file = file;
    if (!fileArrived(file)) {
      this.#fail(
        'file',
        `sent ${file.bytes} bytes ${file.sha256}, received ${file.receivedBytes} bytes ${file.receivedSha256}`,
      );
    }
    const gbps = (file.receivedBytes * 8) / file.seconds / 1e9;
    return `${bytes / 1024 / 1024} MiB, SHA-256 ${file.sha256.slice(0, 12)}… ${fileArrived(file) ? 'equal at both ends' : 'DIFFERENT'}, ${from.name} → ${to.name} in ${file.seconds.toFixed(2)} s (${gbps.toFixed(2)} Gbit/s)`;
  }

  async #leasesAndRoutes(): Promise<string> {
    const topology = this.#lab();
    const leases = describeLeases(await this.#store!.leases(this.#signal), topology.hosts);
    this.#findings.leases = leases;
    const routes = await readRoutes(topology, this.#signal);
    this.#findings.routes = routes;
    const [first, second] = [topology.hosts[0]!, topology.hosts[1]!];
    const way = await readWay(topology, first, second.network!.gateway, this.#signal);
    this.#findings.overlay = way;
    for (const host of topology.hosts) {
      const subnet = formatPrefix4(host.network!.subnet);
      const own = leases.filter((lease) => lease.host === host.name);
      if (own.length !== 1 || own[0]?.subnet !== subnet) {
        const found = own.map((lease) => lease.subnet).join(', ') || 'none';
        this.#fail('leases', `${host.name} uses ${subnet}, but the store has ${found} for it`);
      }
      for (const other of topology.hosts) {
        const peer = formatPrefix4(other.network!.subnet);
        const leads = ({ destination, device }: RouteResult): boolean =>
          device === way.device && (destination === LAB_NETWORK || destination === peer);
        if (other === host || routes[host.index]!.routes.some(leads)) continue;
        this.#fail('leases', `${host.name} has no route to ${peer} dev ${way.device}`);
      }
    }
    const distinct = new Set(leases.map((lease) => lease.subnet)).size;
    if (distinct !== leases.length) this.#fail('leases', 'two leases have the same subnet');
    return `${leases.length} leases, every host leads to the others dev ${way.device}`;
  }

  async #walks(): Promise<string> {
    const topology = this.#lab();
    const [a, b] = [topology.hosts[0]!, topology.hosts[1]!];
    const overlay = await walkContainers(
      topology,
      { from: a.containers[0]!, to: b.containers[0]! },
      await readWay(topology, a, b.containers[0]!.address!, this.#signal),
      this.#signal,
    );
    this.#findings.walk = this.#judgeWalk(overlay);
    this.#observer.stageProgress(0.5);
    const native = await walkHosts(topology, { from: a, to: b }, this.#signal);
    this.#findings.nativeWalk = this.#judgeWalk(native);
    const { walk, nativeWalk } = this.#findings;
    if (walk === null || nativeWalk === null) throw new StageFailed('not every hop was captured');
    const capturedHops = walk.hops.filter((hop) => hop.captured).length;
    const inAgents = walk.forwarderUs > 0 ? `, ${walk.forwarderUs.toFixed(0)} of them in the agents` : '';
    return `${capturedHops} captures in ${walk.durationUs.toFixed(0)} µs${inAgents}; a native socket ${nativeWalk.durationUs.toFixed(0)} µs`;
  }

  #judgeWalk(result: WalkResult): Walk | null {
    if (result.ok) return result.walk;
    for (const problem of result.problems) this.#fail('walk', problem);
    return null;
  }

  async #checkAgents(): Promise<void> {
    this.#memoryMiB = await Promise.all(this.#agents.map(agentMemoryMiB));
    this.#agents.forEach((agent, i) => {
      if (this.#memoryMiB[i] === undefined)
        this.#failures.push(`the agent of ${agent.host.name} ended during the run: ${agent.logPath}`);
    });
  }

  #fail(stage: StageName, text: string): void {
    this.#failures.push(`${STAGES[stage]}: ${text}`);
  }

  #describeHost(host: LabHost, i: number): LabResult['hosts'][number] {
    const agent = this.#agents.find((one) => one.host === host);
    return {
      name: host.name,
      namespace: host.namespace,
      address: formatIpv4(host.address),
      subnet: host.network === undefined ? null : formatPrefix4(host.network.subnet),
      mtuBytes: host.network?.mtuBytes ?? null,
      agent:
        agent === undefined
          ? null
          : {
              pid: agent.child.pid,
              readyMs: Math.round(agent.readyMs),
              memoryMiB: this.#memoryMiB[i] ?? null,
              logPath: agent.logPath,
            },
      containers: host.containers.map((container) => ({
        name: container.name,
        namespace: container.namespace,
        address: container.address === undefined ? null : formatIpv4(container.address),
      })),
    };
  }
}

/** A message of several lines (with the end of a log) keeps its code and hint on a line of their own. */
function explain(error: unknown): string {
  if (!(error instanceof WeftError) || !error.message.includes('\n')) return describeError(error);
  return `${error.message}\n[${error.code}]${error.hint === undefined ? '' : ` ${error.hint}`}`;
}

function fileArrived(file: FileResult): boolean {
  return file.receivedBytes === file.bytes && file.receivedSha256 === file.sha256;
}
