/**
 * `make soak`: two hosts whose containers send each other what is known byte by byte, as fast as it goes, while agents are
 * stopped, killed and started with and without the fast path, and links, routes and packets are spoiled. Every byte that arrives must
 * be right, no connection may end, and nothing may grow. Options: --minutes N (30), --json. Exit code 1 when it did not hold.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { untilStopped } from '../src/cmd/stop-signal.ts';
import type { FastPathMode } from '../src/dataplane/fast-path/mode.ts';
import { describeError } from '../src/errors.ts';
import { formatIpv4 } from '../src/ip/ipv4.ts';
import { type Agent, startAgent } from '../src/lab/agent.ts';
import { openLocalStore } from '../src/lab/local-store.ts';
import { HOST_DEVICE, type Underlay } from '../src/lab/namespaces.ts';
import { checkPrerequisites } from '../src/lab/prerequisites.ts';
import type { SubnetStore } from '../src/lab/subnet-store.ts';
import { type LabContainer, Topology } from '../src/lab/topology.ts';
import { type Child, lines, run } from '../src/linux/run.ts';
import { folderOnBpffs } from '../test/netns/bpffs.ts';
import { describeMachine } from './machine.ts';
import type { Received } from './soak-stream.ts';
import { summarise } from './stats.ts';

const STREAM = fileURLToPath(new URL('./soak-stream.ts', import.meta.url));
const PORT = 7_000;
/** What is between two disturbances, and how long one lasts that is an interval. */
const CALM_MS = 5_000;
const SPOILT_MS = 3_000;
/** TCP sends again after ever longer pauses; after a disturbance of seconds they are seconds long. */
const MOVES_WITHIN_MS = 60_000;
/** Warming up: caches, rings and heaps that are filled once. */
const WARM_SHARE = 0.2;
/** What may be more at the end than at the beginning: garbage that is not collected yet. */
const ANONYMOUS_MAY_GROW_MIB = 12;
const DESCRIPTORS_MAY_GROW = 2;

/** Of the agent that is never restarted, and of what both hosts have. */
interface Sample {
  readonly rssMiB: number;
  readonly anonymousMiB: number;
  readonly descriptors: number;
  readonly threads: number;
  /** Processes in the namespaces of both hosts. */
  readonly processes: number;
  /** Files below the bpffs: programs, maps and links that are kept. */
  readonly pinned: number;
}

interface Result {
  readonly machine: string;
  readonly minutes: number;
  readonly disturbances: Readonly<Record<string, number>>;
  /** By direction. */
  readonly received: readonly Received[];
  readonly longestPauseMs: number;
  readonly spoilt: number;
  readonly early: Sample;
  readonly late: Sample;
  readonly failures: readonly string[];
}

/** One direction of the traffic. */
class Stream implements AsyncDisposable {
  readonly #receiver: Child;
  readonly #sender: Child;
  #last: Received = { bytes: 0, wrongBlocks: 0, datagrams: 0, wrongDatagrams: 0 };
  #grewAt = performance.now();
  #longestPauseMs = 0;
  #ended: string | undefined;

  private constructor(receiver: Child, sender: Child) {
    this.#receiver = receiver;
    this.#sender = sender;
    void this.#read();
    for (const child of [receiver, sender]) {
      void child.exited.then(() => {
        this.#ended ??= child.tail().trim() || 'a stream has ended';
      });
    }
  }

  static async open(topology: Topology, from: LabContainer, to: LabContainer): Promise<Stream> {
    const node = [process.execPath, '--disable-warning=ExperimentalWarning', STREAM];
    await using stack = new AsyncDisposableStack();
    const receiver = stack.use(await topology.start(to, [...node, 'receive', `${PORT}`]));
    for await (const _ of lines(receiver.stdout!)) break;
    const address = formatIpv4(to.address!);
    const sender = await topology.start(from, [...node, 'send', address, `${PORT}`], { stdout: 'ignore' });
    stack.move();
    return new Stream(receiver, sender);
  }

  get received(): Received {
    return this.#last;
  }

  get longestPauseMs(): number {
    return Math.max(this.#longestPauseMs, performance.now() - this.#grewAt);
  }

  /** What is wrong with it so far. */
  get failure(): string | undefined {
    const { wrongBlocks, wrongDatagrams } = this.#last;
    if (wrongBlocks + wrongDatagrams > 0)
      return `${wrongBlocks} blocks and ${wrongDatagrams} datagrams are not what was sent`;
    if (this.#ended !== undefined) return this.#ended;
    const pauseMs = performance.now() - this.#grewAt;
    return pauseMs > MOVES_WITHIN_MS ? `nothing has arrived for ${(pauseMs / 1_000).toFixed(0)} s` : undefined;
  }

  async #read(): Promise<void> {
    for await (const line of lines(this.#receiver.stdout!)) {
      const now = JSON.parse(line) as Received;
      if (now.bytes > this.#last.bytes) {
        this.#longestPauseMs = this.longestPauseMs;
        this.#grewAt = performance.now();
      }
      this.#last = now;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sender[Symbol.asyncDispose]();
    await this.#receiver[Symbol.asyncDispose]();
  }
}

class Soak implements AsyncDisposable {
  readonly #topology: Topology;
  readonly #store: SubnetStore;
  readonly #bpf: string;
  readonly #agents: Agent[] = [];
  readonly #streams: Stream[] = [];

  private constructor(topology: Topology, store: SubnetStore, bpf: string) {
    this.#topology = topology;
    this.#store = store;
    this.#bpf = bpf;
  }

  static async begin(signal: AbortSignal): Promise<Soak> {
    await using stack = new AsyncDisposableStack();
    // Datagrams are cut to MTU size and complete between the hosts, as on a wire, so that what is spoilt there can be noticed.
    const underlay: Underlay = 'wire';
    const options = { hosts: 2, containersPerHost: 1, underlay, purpose: 'make soak' };
    const topology = stack.use(await Topology.create(options, signal));
    const netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
    const store = stack.use(await openLocalStore(topology, netConf, signal));
    const soak = new Soak(topology, store, await folderOnBpffs(stack));
    for (const { index } of topology.hosts) {
      const agent = await soak.#start(index, 'auto', signal);
      await topology.attachContainers(topology.hosts[index]!, agent.network, signal);
    }
    const [a, b] = topology.hosts.map(({ containers }) => containers[0]!) as [LabContainer, LabContainer];
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const)
      soak.#streams.push(stack.use(await Stream.open(topology, from, to)));
    soak.#stack = stack.move();
    return soak;
  }

  #stack = new AsyncDisposableStack();
  /** Datagrams that were corrupted or taken away between the hosts. */
  spoilt = 0;

  async #start(index: number, fastPath: FastPathMode, signal: AbortSignal): Promise<Agent> {
    const extraFlags = ['--fast-path', fastPath, '--fast-path-dir', this.#bpf];
    const host = this.#topology.hosts[index]!;
    const agent = await startAgent(this.#topology, host, this.#store, { extraFlags, readyTimeoutMs: 120_000 }, signal);
    this.#agents[index] = agent;
    return agent;
  }

  /** Only the first host's agent is restarted; that of the second shows what grows. */
  readonly disturbances: Readonly<Record<string, (signal: AbortSignal) => Promise<unknown>>> = {
    'SIGKILL, started without the fast path': (signal) => this.#restart('SIGKILL', 'off', signal),
    'route deleted': () => this.#ip(['route', 'delete', '10.244.0.0/16', 'dev', 'flannel0']),
    'SIGKILL, started with the fast path': (signal) => this.#restart('SIGKILL', 'auto', signal),
    'MTU of the device changed': () => this.#ip(['link', 'set', 'flannel0', 'mtu', '1300']),
    'SIGTERM, started without the fast path': (signal) => this.#restart('SIGTERM', 'off', signal),
    'packets corrupted on the way': (signal) => this.#during(signal, '@th,512,16 set 0xdead'),
    'SIGTERM, started with the fast path': (signal) => this.#restart('SIGTERM', 'auto', signal),
    'packets lost on the way': (signal) => this.#during(signal, 'drop'),
    'device deleted': () => this.#ip(['link', 'delete', 'flannel0']),
    'underlay down': async (signal) => {
      await this.#ip(['link', 'set', HOST_DEVICE, 'down']);
      await delay(SPOILT_MS, undefined, { signal });
      await this.#ip(['link', 'set', HOST_DEVICE, 'up']);
    },
  };

  #ip(args: readonly string[]): Promise<unknown> {
    return this.#topology.exec(this.#topology.hosts[0]!, ['ip', ...args]);
  }

  /** What happens to one datagram in a hundred between the hosts, where their checksums are complete. */
  async #during(signal: AbortSignal, statement: string): Promise<void> {
    const { plan } = this.#topology;
    const ports = plan.hosts.map(({ switchPort }) => `"${switchPort}"`).join(', ');
    const rule = `udp dport 8285 numgen random mod 100 == 0 counter ${statement}`;
    const hook = `type filter hook ingress devices = { ${ports} } priority 0;`;
    const netns = plan.switchNamespace;
    await run(['nft', '-f', '-'], { netns, stdin: `table netdev spoil {\n chain way {\n ${hook}\n ${rule}\n }\n}\n` });
    await delay(SPOILT_MS, undefined, { signal });
    const { stdout } = await run(['nft', 'list', 'table', 'netdev', 'spoil'], { netns });
    this.spoilt += Number(/counter packets (\d+)/.exec(stdout)?.[1]);
    await run(['nft', 'delete', 'table', 'netdev', 'spoil'], { netns });
  }

  async #restart(how: 'SIGTERM' | 'SIGKILL', fastPath: FastPathMode, signal: AbortSignal): Promise<void> {
    const { child } = this.#agents[0]!;
    child.kill(how);
    await child.exited;
    await this.#start(0, fastPath, signal);
  }

  async sample(): Promise<Sample> {
    const { pid } = this.#agents[1]!.child;
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const number = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(status)?.[1]);
    const counts = await Promise.all(
      this.#topology.hosts.map(async (host) => {
        const { stdout } = await this.#topology.exec(host, [
          'sh',
          '-c',
          'ip netns pids "$(ip netns identify $$)" | wc -l',
        ]);
        return Number(stdout);
      }),
    );
    return {
      rssMiB: number('VmRSS') / 1_024,
      anonymousMiB: number('RssAnon') / 1_024,
      threads: number('Threads'),
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
      processes: counts.reduce((sum, count) => sum + count, 0),
      // It is not there before something is kept.
      pinned: (await run(['find', this.#bpf], { okExitCodes: 'any' })).stdout.trim().split('\n').length,
    };
  }

  get received(): readonly Received[] {
    return this.#streams.map((stream) => stream.received);
  }

  get longestPauseMs(): number {
    return Math.max(...this.#streams.map((stream) => stream.longestPauseMs));
  }

  get failures(): readonly string[] {
    return this.#streams.flatMap(({ failure }) => failure ?? []);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack[Symbol.asyncDispose]();
  }
}

/** The middle of each figure. */
function typical(samples: readonly Sample[]): Sample {
  const median = (name: keyof Sample): number => summarise(samples.map((sample) => sample[name])).median;
  return {
    rssMiB: median('rssMiB'),
    anonymousMiB: median('anonymousMiB'),
    descriptors: median('descriptors'),
    threads: median('threads'),
    processes: median('processes'),
    pinned: median('pinned'),
  };
}

function grown(early: Sample, late: Sample): string[] {
  const limits: readonly (readonly [keyof Sample, number])[] = [
    ['anonymousMiB', ANONYMOUS_MAY_GROW_MIB],
    ['descriptors', DESCRIPTORS_MAY_GROW],
    ['threads', 0],
    ['processes', 1],
    ['pinned', 0],
  ];
  return limits.flatMap(([name, limit]) =>
    late[name] > early[name] + limit ? `${name} grew from ${early[name].toFixed(1)} to ${late[name].toFixed(1)}` : [],
  );
}

async function soak(minutes: number, say: (text: string) => void, signal: AbortSignal): Promise<Result> {
  await using running = await Soak.begin(signal);
  const endsAt = performance.now() + minutes * 60_000;
  const counted: Record<string, number> = {};
  const samples: Sample[] = [];
  const rounds = Object.entries(running.disturbances);
  let failures: readonly string[] = [];
  for (let turn = 0; performance.now() < endsAt && failures.length === 0; turn++) {
    const [name, disturb] = rounds[turn % rounds.length]!;
    await disturb(signal);
    counted[name] = (counted[name] ?? 0) + 1;
    await delay(CALM_MS, undefined, { signal });
    samples.push(await running.sample());
    failures = running.failures;
    const gigabytes = running.received.map(({ bytes }) => (bytes / 1e9).toFixed(1)).join(' and ');
    const { rssMiB, descriptors } = samples.at(-1)!;
    say(`${name}: ${gigabytes} GB, ${rssMiB.toFixed(0)} MiB, ${descriptors} descriptors`);
  }
  // What a disturbance at the end has stopped goes on yet.
  const before = running.received.map(({ bytes }) => bytes);
  for (let waitedMs = 0; failures.length === 0; waitedMs += 500) {
    if (running.received.every(({ bytes }, i) => bytes > before[i]!)) break;
    if (waitedMs > MOVES_WITHIN_MS) failures = ['a stream did not go on after the last disturbance'];
    await delay(500, undefined, { signal });
  }
  const warm = samples.slice(Math.floor(samples.length * WARM_SHARE));
  const third = Math.max(1, Math.floor(warm.length / 3));
  const [early, late] = [typical(warm.slice(0, third)), typical(warm.slice(-third))];
  return {
    machine: describeMachine(),
    ...{
      minutes,
      disturbances: counted,
      received: running.received,
      longestPauseMs: running.longestPauseMs,
      spoilt: running.spoilt,
      early,
      late,
    },
    failures: [...failures, ...running.failures, ...grown(early, late)],
  };
}

function report({
  spoilt,
  minutes,
  disturbances,
  received,
  longestPauseMs,
  early,
  late,
  failures,
  machine,
}: Result): string {
  const sum = (name: keyof Received): number => received.reduce((total, one) => total + one[name], 0);
  const pair = (name: keyof Sample): string => `${early[name].toFixed(0)} → ${late[name].toFixed(0)}`;
  const wrong = sum('wrongBlocks') + sum('wrongDatagrams');
  const times = Object.values(disturbances).reduce((total, count) => total + count, 0);
  return [
    '| soak | |',
    '|---|---|',
    `| time, disturbances | ${minutes} min, ${times} |`,
    `| TCP received, wrong | ${(sum('bytes') / 1e9).toFixed(1)} GB, ${sum('wrongBlocks')} blocks |`,
    `| UDP received, wrong | ${sum('datagrams')}, ${sum('wrongDatagrams')} |`,
    `| datagrams corrupted or taken away between the hosts | ${spoilt} |`,
    `| longest pause of a stream | ${(longestPauseMs / 1_000).toFixed(1)} s |`,
    `| agent: resident MiB, of it private | ${pair('rssMiB')}, ${pair('anonymousMiB')} |`,
    `| agent: descriptors, threads | ${pair('descriptors')}, ${pair('threads')} |`,
    `| hosts: processes, pinned BPF files | ${pair('processes')}, ${pair('pinned')} |`,
    '',
    failures.length === 0 && wrong === 0 ? `Held; ${machine}.` : `Did not hold: ${failures.join('; ')}; ${machine}.`,
  ].join('\n');
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { minutes: { type: 'string', default: '30' }, json: { type: 'boolean', default: false } },
  });
  const minutes = Number(values.minutes);
  if (!(minutes > 0)) throw new RangeError('--minutes must be above 0');
  using stopped = untilStopped();
  const result = await soak(minutes, (text) => process.stderr.write(`${text}\n`), stopped.signal);
  process.stdout.write(values.json ? `${JSON.stringify(result)}\n` : `${report(result)}\n`);
  if (result.failures.length > 0) process.exitCode = 1;
}

try {
  await checkPrerequisites({ store: 'local', tun: true }, (text) => process.stderr.write(`${text}\n`));
  await main();
} catch (error) {
  process.stderr.write(`soak: ${describeError(error)}\n`);
  process.exitCode = 1;
}
