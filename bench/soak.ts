/**
 * `make soak`: two hosts whose containers send each other what is known byte by byte, as fast as it goes, while agents are
 * stopped, killed and started with and without the fast path, the fast path is switched off and on as they run, and links, routes and
 * packets are spoiled; first where super-packets arrive in one piece, then where hosts cut them, then where a switch does and XDP takes what
 * comes. Every byte that arrives must be right, no connection may end, packets must take the fast path wherever there is one, and nothing may
 * grow. Options: --minutes N (30), --underlay NAME (that one alone; several times), --json. Exit code 1 when it did not hold.
 */
import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import type { FastPathMode } from '../src/dataplane/fast-path/mode.ts';
import { describeError } from '../src/errors.ts';
import { openLocalStore } from '../src/lab/local-store.ts';
import { HOST_DEVICE } from '../src/lab/namespaces.ts';
import { checkPrerequisites } from '../src/lab/prerequisites.ts';
import { type LabContainer, type LabHost, Topology } from '../src/lab/topology.ts';
import { run } from '../src/linux/run.ts';
import { folderOnBpffs } from '../test/netns/bpffs.ts';
import { isKept, type KeptFigures, keptDirectory, keptFigures } from '../test/netns/kept-maps.ts';
import { NET_CONF, Overlay } from '../test/netns/overlay.ts';
import { eventually } from '../test/netns/waiting.ts';
import { describeMachine } from './machine.ts';
import { memoryOf } from './process-figures.ts';
import {
  type AgentSample,
  agentGrowth,
  type Counters,
  countersOf,
  goneBack,
  type HostsSample,
  hostsGrowth,
  notByFastPath,
  type Packets,
  thirds,
  tooManyKeys,
} from './soak-checks.ts';
import type { Received } from './soak-stream.ts';
import { MOVES_WITHIN_MS, Stream } from './soak-traffic.ts';

/** What is between two disturbances, and how long one lasts that is an interval. */
const CALM_MS = 5_000;
const SPOILT_MS = 3_000;

/**
 * The same time each, with the share of packets that the fast path must take: where hosts cut super-packets, the bulk of what they
 * receive passes their forwarders.
 */
const UNDERLAYS = {
  native: { fastShare: 0.5, flags: [] },
  wire: { fastShare: 0, flags: [] },
  switch: { fastShare: 0.5, flags: ['--fast-path-in', 'xdp'] },
} as const;
type Underlay = keyof typeof UNDERLAYS;

/** Everything at one moment. */
interface Sample {
  readonly agents: readonly AgentSample[];
  readonly hosts: HostsSample;
}

/** On one underlay. */
interface Part {
  readonly underlay: Underlay;
  readonly disturbances: Readonly<Record<string, number>>;
  /** By direction. */
  readonly received: readonly Received[];
  readonly longestPauseMs: number;
  /** Datagrams that were corrupted or taken away between the hosts. */
  readonly spoilt: number;
  /** By the fast path, sent by both hosts in the moments when that was looked at. */
  readonly byFastPath: number;
  readonly samples: readonly Sample[];
  readonly failures: readonly string[];
}

interface Result {
  readonly machine: string;
  readonly minutes: number;
  readonly parts: readonly Part[];
}

/** What an agent has counted, which starts anew with the next one. */
interface Counted {
  readonly pid: number;
  readonly counters: Counters;
}

class Soak implements AsyncDisposable {
  readonly #underlay: Underlay;
  readonly #overlay: Overlay;
  readonly #bpf: string;
  readonly #stack: AsyncDisposableStack;
  readonly #streams: readonly Stream[];
  /** By host; that of a host without programs is not there. */
  readonly #directories: readonly string[];
  readonly #startedAt: number[];
  readonly #counted: Counted[] = [];
  /** Of the first host's agent. */
  #mode: FastPathMode = 'auto';
  readonly #failures: string[] = [];
  spoilt = 0;
  byFastPath = 0;

  private constructor(
    underlay: Underlay,
    overlay: Overlay,
    bpf: string,
    directories: readonly string[],
    streams: readonly Stream[],
    stack: AsyncDisposableStack,
  ) {
    this.#underlay = underlay;
    this.#overlay = overlay;
    this.#bpf = bpf;
    this.#directories = directories;
    this.#streams = streams;
    this.#stack = stack;
    this.#startedAt = directories.map(() => performance.now());
  }

  static async begin(underlay: Underlay, signal: AbortSignal): Promise<Soak> {
    await using stack = new AsyncDisposableStack();
    const options = { hosts: 2, containersPerHost: 1, underlay, purpose: 'make soak' };
    const topology = stack.use(await Topology.create(options, signal));
    const store = stack.use(await openLocalStore(topology, NET_CONF, signal));
    const bpf = await folderOnBpffs(stack);
    const flags = ['--fast-path', 'auto', '--fast-path-dir', bpf, ...UNDERLAYS[underlay].flags];
    const overlay = Overlay.on(topology, store, flags);
    await overlay.startAll(signal);
    const [a, b] = topology.containers as [LabContainer, LabContainer];
    const streams = [stack.use(await Stream.open(topology, a, b)), stack.use(await Stream.open(topology, b, a))];
    const directories = await Promise.all(topology.hosts.map((host) => keptDirectory(topology, bpf, host)));
    return new Soak(underlay, overlay, bpf, directories, streams, stack.move());
  }

  /** Only the first host's agent is restarted; that of the second shows what grows in a long life. */
  get disturbances(): Readonly<Record<string, (signal: AbortSignal) => Promise<unknown>>> {
    return {
      'fast path closed by an IPsec policy, and opened again': (signal) => this.#closeFastPath(signal),
      'SIGKILL, started without the fast path': (signal) => this.#restart('SIGKILL', 'off', signal),
      'route deleted': () => this.#ip(['route', 'delete', '10.244.0.0/16', 'dev', 'flannel0']),
      'SIGKILL, started with the fast path': (signal) => this.#restart('SIGKILL', 'auto', signal),
      'MTU of the device changed': () => this.#ip(['link', 'set', 'flannel0', 'mtu', '1300']),
      'SIGTERM, started without the fast path': (signal) => this.#restart('SIGTERM', 'off', signal),
      // Between hosts that leave their checksums to a card nobody could notice it.
      ...(this.#underlay === 'wire'
        ? { 'packets corrupted on the way': (signal) => this.#during(signal, '@th,512,16 set 0xdead') }
        : {}),
      'underlay down': async (signal) => {
        await this.#ip(['link', 'set', HOST_DEVICE, 'down']);
        await delay(SPOILT_MS, undefined, { signal });
        await this.#ip(['link', 'set', HOST_DEVICE, 'up']);
      },
      'SIGTERM, started with the fast path': (signal) => this.#restart('SIGTERM', 'auto', signal),
      'packets lost on the way': (signal) => this.#during(signal, 'drop'),
      'device deleted': () => this.#ip(['link', 'delete', 'flannel0']),
    };
  }

  get #first(): LabHost {
    return this.#overlay.topology.hosts[0]!;
  }

  #ip(args: readonly string[]): Promise<unknown> {
    return this.#overlay.topology.exec(this.#first, ['ip', ...args]);
  }

  async #closeFastPath(signal: AbortSignal): Promise<void> {
    const policy = ['src', '192.0.2.1', 'dst', '192.0.2.2', 'dir', 'out'];
    const untilOpen = (want: boolean): Promise<unknown> =>
      eventually(
        `the fast path is ${want ? 'open' : 'closed'}`,
        async () => (await this.#isFast(this.#first)) === want,
      );
    await this.#ip(['xfrm', 'policy', 'add', ...policy]);
    await untilOpen(false);
    await delay(SPOILT_MS, undefined, { signal });
    await this.#ip(['xfrm', 'policy', 'delete', ...policy]);
    await untilOpen(true);
  }

  /** What happens to one datagram in a hundred between the hosts. */
  async #during(signal: AbortSignal, statement: string): Promise<void> {
    const { plan } = this.#overlay.topology;
    const ports = plan.hosts.map(({ switchPort }) => `"${switchPort}"`).join(', ');
    const rule = `udp dport 8285 numgen random mod 100 == 0 counter ${statement}`;
    const hook = `type filter hook ingress devices = { ${ports} } priority 0;`;
    const netns = plan.switchNamespace;
    await run(['nft', '-f', '-'], { netns, stdin: `table netdev spoil {\n chain way {\n ${hook}\n ${rule}\n }\n}\n` });
    await delay(SPOILT_MS, undefined, { signal });
    const { stdout } = await run(['nft', 'list', 'table', 'netdev', 'spoil'], { netns });
    const count = Number(/counter packets (\d+)/.exec(stdout)?.[1]);
    // Nothing would be known of how spoilt packets are taken.
    if (!(count > 0)) this.#failures.push(`no packet was spoilt (${statement})`);
    this.spoilt += count;
    await run(['nft', 'delete', 'table', 'netdev', 'spoil'], { netns });
  }

  async #restart(how: 'SIGTERM' | 'SIGKILL', mode: FastPathMode, signal: AbortSignal): Promise<void> {
    const { child } = this.#overlay.agents[0]!;
    child.kill(how);
    await child.exited;
    this.#mode = mode;
    await this.#overlay.startAgent(this.#first, signal, ['--fast-path', mode]);
    this.#startedAt[0] = performance.now();
  }

  async #metrics(host: LabHost): Promise<string> {
    const answer = await this.#overlay.ask(host, '/metrics');
    if (!answer.startsWith('HTTP/1.1 200')) throw new Error(`${host.name}: /metrics answers ${answer.slice(0, 200)}`);
    return answer;
  }

  async #isFast(host: LabHost): Promise<boolean> {
    return /^weft_fast_path 1$/m.test(await this.#metrics(host));
  }

  /** Of a host that has programs. */
  #kept(host: LabHost): KeptFigures | undefined {
    const directory = this.#directories[host.index]!;
    return isKept(directory) ? keptFigures(directory) : undefined;
  }

  async #packets(): Promise<readonly (Packets | undefined)[]> {
    return Promise.all(
      this.#overlay.topology.hosts.map(async (host) => {
        const counters = countersOf(await this.#metrics(host));
        const kept = this.#kept(host);
        if (kept === undefined) return undefined;
        const both = [...counters].filter(([key]) => key.startsWith('weft_packets_total{'));
        const all = both.reduce((sum, [, packets]) => sum + packets, 0);
        return { fastTx: kept.tx, fastRx: kept.rx, all };
      }),
    );
  }

  /**
   * Packets flow undisturbed for a while. Where both agents have a fast path, this lasts until they have taken it all the while: hosts agree on
   * it anew after some of the disturbances.
   */
  async calm(signal: AbortSignal): Promise<void> {
    if (this.#mode === 'off') return void (await delay(CALM_MS, undefined, { signal }));
    for (let passedMs = 0; ; passedMs += CALM_MS) {
      const before = await this.#packets();
      await delay(CALM_MS, undefined, { signal });
      const after = await this.#packets();
      const obstacles = after.flatMap((now, index) => {
        const then = before[index];
        const obstacle =
          now && then ? notByFastPath(then, now, UNDERLAYS[this.#underlay].fastShare) : 'there are no programs';
        return obstacle === undefined ? [] : [`host ${index + 1}: ${obstacle}`];
      });
      if (obstacles.length === 0) {
        this.byFastPath += after.reduce((sum, now, index) => sum + now!.fastTx - before[index]!.fastTx, 0);
        return;
      }
      if (passedMs >= MOVES_WITHIN_MS) return void this.#failures.push(...obstacles);
    }
  }

  async sample(): Promise<Sample> {
    const { topology, agents } = this.#overlay;
    const samples = await Promise.all(
      topology.hosts.map((host) => this.#sampleAgent(host, agents[host.index]!.child.pid)),
    );
    const processes = await Promise.all(
      topology.hosts.map(async (host) => {
        const script = 'ip netns pids "$(ip netns identify $$)" | wc -l';
        return Number((await topology.exec(host, ['sh', '-c', script])).stdout);
      }),
    );
    const kept = topology.hosts.flatMap((host) => this.#kept(host) ?? []);
    this.#failures.push(...kept.flatMap(({ keys }) => tooManyKeys(keys, topology.hosts.length - 1)));
    const hosts: HostsSample = {
      fast: samples.filter(({ isFast }) => isFast).length,
      processes: processes.reduce((sum, count) => sum + count, 0),
      // It is not there before something is kept.
      pinned: (await run(['find', this.#bpf], { okExitCodes: 'any' })).stdout.trim().split('\n').length,
      mapKeys: kept.flatMap(({ keys }) => Object.values(keys)).reduce((sum, count) => sum + count, 0),
    };
    return { agents: samples, hosts };
  }

  async #sampleAgent(host: LabHost, pid: number): Promise<AgentSample> {
    const metrics = await this.#metrics(host);
    const counters = countersOf(metrics);
    const before = this.#counted[host.index];
    if (before?.pid === pid)
      this.#failures.push(...goneBack(before.counters, counters).map((text) => `${host.name}: ${text}`));
    this.#counted[host.index] = { pid, counters };
    const { rssMiB, anonymousMiB } = memoryOf(pid);
    return {
      ...{ pid, rssMiB, anonymousMiB },
      ageMs: performance.now() - this.#startedAt[host.index]!,
      isFast: /^weft_fast_path 1$/m.test(metrics),
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
      threads: readdirSync(`/proc/${pid}/task`).length,
    };
  }

  get received(): readonly Received[] {
    return this.#streams.map((stream) => stream.received);
  }

  get longestPauseMs(): number {
    return Math.max(...this.#streams.map((stream) => stream.longestPauseMs));
  }

  get failures(): readonly string[] {
    return [...this.#failures, ...this.#streams.flatMap(({ failure }) => failure ?? [])];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack[Symbol.asyncDispose]();
  }
}

async function soakOn(
  underlay: Underlay,
  minutes: number,
  say: (text: string) => void,
  signal: AbortSignal,
): Promise<Part> {
  await using running = await Soak.begin(underlay, signal);
  const endsAt = performance.now() + minutes * 60_000;
  const counted: Record<string, number> = {};
  const samples: Sample[] = [];
  const rounds = Object.entries(running.disturbances);
  await running.calm(signal);
  for (let turn = 0; performance.now() < endsAt && running.failures.length === 0; turn++) {
    const [name, disturb] = rounds[turn % rounds.length]!;
    await disturb(signal);
    counted[name] = (counted[name] ?? 0) + 1;
    await running.calm(signal);
    const sample = await running.sample();
    samples.push(sample);
    const gigabytes = running.received.map(({ bytes }) => (bytes / 1e9).toFixed(1)).join(' and ');
    const of = (name: 'anonymousMiB' | 'descriptors'): string =>
      sample.agents.map((agent) => agent[name].toFixed(0)).join(' and ');
    say(
      `${underlay}: ${name}: ${gigabytes} GB; agents: ${of('anonymousMiB')} MiB private, ${of('descriptors')} descriptors; ` +
        `${sample.hosts.mapKeys} keys in maps`,
    );
  }
  const failures = [...running.failures];
  // What a disturbance at the end has stopped goes on yet.
  const before = running.received.map(({ bytes }) => bytes);
  for (let waitedMs = 0; failures.length === 0; waitedMs += 500) {
    if (running.received.every(({ bytes }, i) => bytes > before[i]!)) break;
    if (waitedMs > MOVES_WITHIN_MS) failures.push('a stream did not go on after the last disturbance');
    await delay(500, undefined, { signal });
  }
  const agents = Map.groupBy(
    samples.flatMap((sample) => sample.agents),
    ({ pid }) => pid,
  );
  failures.push(...[...agents.values()].flatMap(agentGrowth), ...hostsGrowth(samples.map(({ hosts }) => hosts)));
  const { received, longestPauseMs, spoilt, byFastPath } = running;
  return { underlay, disturbances: counted, received, longestPauseMs, spoilt, byFastPath, samples, failures };
}

function report({ machine, minutes, parts }: Result): string {
  const row = (title: string, cell: (part: Part) => string): string => `| ${title} | ${parts.map(cell).join(' | ')} |`;
  const sum = ({ received }: Part, name: keyof Received): number =>
    received.reduce((total, one) => total + one[name], 0);
  /** Of the agent that is not restarted. */
  const pair = ({ samples }: Part, name: keyof AgentSample): string => {
    const found = thirds(
      samples.map(({ agents }) => agents[1]!),
      [name],
    );
    return found === undefined ? '' : `${found.early[name].toFixed(0)} → ${found.late[name].toFixed(0)}`;
  };
  const most = ({ samples }: Part, name: keyof HostsSample): string =>
    `${Math.max(...samples.map(({ hosts }) => hosts[name]))}`;
  const failures = parts.flatMap((part) => part.failures.map((failure) => `${part.underlay}: ${failure}`));
  return [
    `| soak, ${minutes} min | ${parts.map(({ underlay }) => underlay).join(' | ')} |`,
    `|---|${parts.map(() => '---|').join('')}`,
    row(
      'disturbances',
      ({ disturbances }) => `${Object.values(disturbances).reduce((total, count) => total + count, 0)}`,
    ),
    row(
      'TCP received, wrong',
      (part) => `${(sum(part, 'bytes') / 1e9).toFixed(1)} GB, ${sum(part, 'wrongBlocks')} blocks`,
    ),
    row('UDP received, wrong', (part) => `${sum(part, 'datagrams')}, ${sum(part, 'wrongDatagrams')}`),
    row('packets by the fast path, when looked at', ({ byFastPath }) => `${byFastPath}`),
    row('datagrams corrupted or taken away between the hosts', ({ spoilt }) => `${spoilt}`),
    row('longest pause of a stream', ({ longestPauseMs }) => `${(longestPauseMs / 1_000).toFixed(1)} s`),
    row('agents', ({ samples }) => `${new Set(samples.flatMap(({ agents }) => agents.map(({ pid }) => pid))).size}`),
    row(
      'the one not restarted: resident MiB, of it private',
      (part) => `${pair(part, 'rssMiB')}, ${pair(part, 'anonymousMiB')}`,
    ),
    row('the same: descriptors, threads', (part) => `${pair(part, 'descriptors')}, ${pair(part, 'threads')}`),
    row('hosts, at most: processes, pinned BPF files, keys in maps', (part) =>
      [most(part, 'processes'), most(part, 'pinned'), most(part, 'mapKeys')].join(', '),
    ),
    '',
    failures.length === 0 ? `Held; ${machine}.` : `Did not hold: ${failures.join('; ')}; ${machine}.`,
  ].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      minutes: { type: 'string', default: '30' },
      underlay: { type: 'string', multiple: true, default: Object.keys(UNDERLAYS) },
      json: { type: 'boolean', default: false },
    },
  });
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new RangeError('--minutes must be above 0');
  using stopped = untilStopped();
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const underlays = values.underlay.map((name) => {
    if (!Object.hasOwn(UNDERLAYS, name))
      throw new RangeError(`--underlay ${name}: known are ${Object.keys(UNDERLAYS).join(', ')}`);
    return name as Underlay;
  });
  const parts: Part[] = [];
  for (const underlay of underlays) parts.push(await soakOn(underlay, minutes / underlays.length, say, stopped.signal));
  const result: Result = { machine: describeMachine(), minutes, parts };
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${report(result)}\n`);
  if (parts.some(({ failures }) => failures.length > 0)) process.exitCode = 1;
}

try {
  await checkPrerequisites({ store: 'local', tun: true }, (text) => process.stderr.write(`${text}\n`));
  await main();
} catch (error) {
  process.stderr.write(`soak: ${describeError(error)}\n`);
  process.exitCode = 1;
}
