/** Agents that are not there: answers of the API for any number of hosts, with counters that rise and faults on demand. */
import { EventEmitter, on } from 'node:events';
import type { PeerPath } from '../../src/api/peer-path.ts';
import type { Answer, Doctor, Peer, Peers, ReadinessAnswer, Rules, Self, State } from '../../src/api/schema.ts';
import { WeftError } from '../../src/errors.ts';
import type { AgentEvent, EventKind } from '../../src/events/event.ts';
import type { AgentSource } from '../../src/ui/agent-source.ts';

export interface SimulatedFleetOptions {
  readonly hosts: number;
  /** Hosts whose agents are asked; default: all. */
  readonly asked?: number;
  /** Peers that a host has traffic with and probes; those next to it in the list. Default: all. */
  readonly talkative?: number;
  /** Packets a second of the busiest link. */
  readonly packetsPerSecond?: number;
  /** How every host reaches a peer; default: through the forwarder. */
  readonly pathTo?: (peer: number) => PeerPath;
  readonly now?: () => number;
}

const NO_DROPS = { drops: {} };
const SUBNET_MTU = 1472;
const WELL = { name: 'tun-device', looksAt: '/dev/net/tun can be opened', status: 'ok', found: 'yes' } as const;

/** Packets a second, by reason. */
export interface SimulatedDrops {
  readonly agent?: Readonly<Record<string, number>>;
  readonly kernel?: Readonly<Record<string, number>>;
}

export class SimulatedFleet {
  readonly #options: Required<SimulatedFleetOptions>;
  readonly #startedAtMs: number;
  readonly #away = new Set<number>();
  readonly #broken = new Map<string, string>();
  readonly #narrow = new Set<string>();
  readonly #brokenInIpv6 = new Map<string, string>();
  readonly #checks = new Map<number, Doctor['checks']>();
  readonly #drops = new Map<number, SimulatedDrops & { readonly sinceMs: number }>();
  /** By host. */
  readonly #happens = new EventEmitter().setMaxListeners(0);
  /** What has happened since the agent's start, by host. */
  readonly #happened = new Map<number, string[]>();
  /** Questions to agents so far, by path. */
  readonly asked = new Map<string, number>();

  constructor(options: SimulatedFleetOptions) {
    const now = options.now ?? Date.now;
    this.#options = {
      ...{
        packetsPerSecond: 400,
        asked: options.hosts,
        talkative: options.hosts - 1,
        pathTo: () => 'forwarder' as const,
      },
      ...options,
      now,
    };
    // Counters of a week.
    this.#startedAtMs = now() - 7 * 86_400_000;
  }

  get sources(): AgentSource[] {
    return Array.from({ length: this.#options.asked }, (_, host) => ({
      name: nameOf(host),
      news: (signal: AbortSignal) => this.#news(host, signal),
      ask: async (path: string, signal: AbortSignal) => {
        signal.throwIfAborted();
        if (this.#away.has(host)) {
          throw new WeftError('WEFT_UI_AGENT_AWAY', `could not reach the agent of ${nameOf(host)}: ECONNREFUSED`);
        }
        const url = new URL(path, 'http://agent');
        this.asked.set(url.pathname, (this.asked.get(url.pathname) ?? 0) + 1);
        const body = this.#answer(host, url.pathname, Number(url.searchParams.get('after') ?? 0));
        return {
          status: body === undefined ? 404 : 200,
          contentType: 'application/json',
          body: Buffer.from(JSON.stringify(body ?? { error: 'no such answer' })),
        };
      },
    }));
  }

  /** The agent of a host tells whoever follows its events. */
  tell(host: number, kind: EventKind): void {
    this.#happens.emit(`${host}`, kind);
  }

  async *#news(host: number, signal: AbortSignal): AsyncGenerator<AgentEvent> {
    for await (const [kind, id = 1, text = 'text'] of on(this.#happens, `${host}`, { signal }))
      yield { ...{ id, atMs: Date.now(), severity: 'error', subject: 'subject', text }, kind };
  }

  /** Something has happened on a host, of which its agent has an event. */
  happen(host: number, text: string): void {
    const before = this.#happened.get(host) ?? [];
    this.#happened.set(host, [...before, text]);
    this.#happens.emit(`${host}`, 'peer-changed', 3 + before.length, text);
  }

  /** The agent of a host no longer answers. */
  takeAway(host: number): void {
    this.#away.add(host);
  }

  bringBack(host: number): void {
    this.#away.delete(host);
  }

  /** Probes from one host to another get no answer any more. */
  breakLink(from: number, to: number, problem: string): void {
    this.#broken.set(`${from} ${to}`, problem);
  }

  /** From now on a host drops packets, so many a second by reason. */
  drop(host: number, drops: SimulatedDrops): void {
    this.#drops.set(host, { ...drops, sinceMs: this.#options.now() });
  }

  /** The same in IPv6 alone, between hosts that have both families. */
  breakIpv6(from: number, to: number, problem: string): void {
    this.#brokenInIpv6.set(`${from} ${to}`, problem);
  }

  /** What weft doctor finds on a host. */
  examined(host: number, checks: Doctor['checks']): void {
    this.#checks.set(host, checks);
  }

  /** The path no longer takes packets of full size. */
  narrowLink(from: number, to: number): void {
    this.#narrow.add(`${from} ${to}`);
  }

  #answer(host: number, path: string, after: number): unknown {
    const atMs = this.#options.now();
    switch (path) {
      case '/self':
        return this.#self(host, atMs);
      case '/peers':
        return this.#peers(host, atMs);
      case '/events':
        return eventsOf(host, this.#startedAtMs, after, this.#happened.get(host) ?? []);
      case '/readiness':
        return { atMs, ready: true, parts: [{ part: 'interface' }, { part: 'forwarder' }] } satisfies ReadinessAnswer;
      case '/state':
        return STATE(atMs);
      case '/doctor':
        return { atMs, checks: this.#checks.get(host) ?? [WELL] } satisfies Doctor;
      case '/rules':
        return { atMs, manager: 'nftables', lines: RULES, checks: 1, failures: 0, repairs: {} } satisfies Rules;
      default:
        return undefined;
    }
  }

  #self(host: number, atMs: number): Self {
    const seconds = (atMs - this.#startedAtMs) / 1000;
    const totals = { packets: Math.floor(seconds * 900), bytes: Math.floor(seconds * 640_000), ...NO_DROPS };
    const { agent = {}, kernel = {}, sinceMs = atMs } = this.#drops.get(host) ?? {};
    const dropped = (perSecond: Readonly<Record<string, number>>): Record<string, number> =>
      Object.fromEntries(
        Object.entries(perSecond).map(([reason, rate]) => [reason, Math.floor((rate * (atMs - sinceMs)) / 1000)]),
      );
    return {
      apiVersion: 'v1',
      atMs,
      host: nameOf(host),
      version: '0.1.0',
      pid: 1000 + host,
      startedAtMs: this.#startedAtMs,
      ready: true,
      backendType: 'udp',
      networks: ['10.0.0.0/8'],
      lease: { subnets: [subnetOf(host)], publicAddresses: [addressOf(host)], isHeld: true },
      external: { name: 'eth0', addresses: [addressOf(host)], mtuBytes: 1500 },
      store: {
        manager: 'etcd',
        name: 'etcd at 192.168.0.1',
        isReachable: true,
        errors: 0,
        unreadableEntries: 0,
        isConfigOutdated: false,
      },
      dataPath: {
        kind: 'forwarder',
        isRunning: true,
        mtuBytes: SUBNET_MTU,
        restarts: 0,
        queueDrops: {},
        hostDrops: { 'filtered-in': 0, ...dropped(kernel) },
      },
      totals: { tx: totals, rx: { ...totals, drops: dropped(agent) } },
      peers: { total: this.#options.hosts - 1, skipped: 0, refusedEntries: 0 },
      process: { cpuSeconds: seconds * 0.01, rssBytes: 98_000_000, heapBytes: 24_000_000 },
      newestEventId: 2 + (this.#happened.get(host)?.length ?? 0),
      droppedLogLines: 0,
    };
  }

  #peers(host: number, atMs: number): Peers {
    const { hosts, talkative } = this.#options;
    const peers = Array.from({ length: hosts - 1 }, (_, index) => {
      const distance = index + 1;
      const peer = (host + distance) % hosts;
      // As many before it as behind it.
      const isNear = distance <= Math.ceil(talkative / 2) || hosts - distance <= Math.floor(talkative / 2);
      return this.#peer(host, peer, isNear, atMs);
    });
    return { atMs, total: peers.length, peers, self: this.#self(host, atMs) };
  }

  #peer(host: number, peer: number, isNear: boolean, atMs: number): Peer {
    const base: Peer = {
      id: subnetOf(peer),
      subnets: [subnetOf(peer)],
      publicAddresses: [addressOf(peer)],
      holder: nameOf(peer),
      backendType: 'udp',
      path: this.#options.pathTo(peer),
    };
    if (!isNear) return base;
    const seconds = (atMs - this.#startedAtMs) / 1000;
    const traffic = (from: number, to: number) => {
      const rate = this.#options.packetsPerSecond * hashOf(from, to) ** 4;
      return { packets: Math.floor(seconds * rate), bytes: Math.floor(seconds * rate * 700), ...NO_DROPS };
    };
    const problem = this.#broken.get(`${host} ${peer}`);
    const inIpv6 = this.#brokenInIpv6.get(`${host} ${peer}`);
    const isNarrow = this.#narrow.has(`${host} ${peer}`);
    const rttMs = 0.15 + 3 * hashOf(Math.min(host, peer), Math.max(host, peer)) ** 3 + 0.05 * hashOf(host, peer);
    const well = { measuredAtMs: atMs, rttMs, lossRatio: 0, pathMtuBytes: SUBNET_MTU };
    if (inIpv6 !== undefined) {
      const probe = { measuredAtMs: atMs, lossRatio: 1, problem: inIpv6, family: 'IPv6' } as const;
      const subnets = [...base.subnets, `fd00:${peer + 1}::/64`];
      return { ...base, subnets, probe, probes: [{ ...well, family: 'IPv4' }, probe] };
    }
    return {
      ...base,
      tx: traffic(host, peer),
      rx: traffic(peer, host),
      lastSeenAtMs: atMs - 1000,
      probe:
        problem !== undefined
          ? { measuredAtMs: atMs, lossRatio: 1, problem }
          : isNarrow
            ? {
                measuredAtMs: atMs,
                rttMs,
                lossRatio: 0,
                pathMtuBytes: 1372,
                problem: 'packets longer than 1372 bytes get lost: a link on the way has a smaller MTU',
              }
            : well,
    };
  }
}

export function nameOf(host: number): string {
  return `node-${String(host + 1).padStart(3, '0')}`;
}

export function subnetOf(host: number): string {
  return `10.${64 + (host >> 8)}.${host & 255}.0/24`;
}

function addressOf(host: number): string {
  return `192.168.${host >> 8}.${(host & 255) + 1}`;
}

/** 0 … 1, the same for the same pair. */
function hashOf(a: number, b: number): number {
  let hash = Math.imul(a + 1, 0x9e3779b1) ^ Math.imul(b + 1, 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}

function eventsOf(host: number, startedAtMs: number, after: number, happened: readonly string[]): Answer<'/events'> {
  const events: Answer<'/events'>['events'] = [
    {
      id: 1,
      atMs: startedAtMs,
      kind: 'agent-started',
      severity: 'info',
      subject: nameOf(host),
      text: 'weft 0.1.0 started',
    },
    {
      id: 2,
      atMs: startedAtMs + 400 + host,
      kind: 'lease-acquired',
      severity: 'info',
      subject: subnetOf(host),
      text: `this host has ${subnetOf(host)}`,
    },
  ];
  for (const [index, text] of happened.entries())
    events.push({ id: 3 + index, atMs: Date.now(), kind: 'peer-changed', severity: 'info', subject: 'peer', text });
  return { startedAtMs, events: events.filter(({ id }) => id > after), oldestId: 1, newestId: events.length };
}

const RULES = ['oif flannel0 masquerade', 'iif flannel0 accept'];
const ENTRIES: State['entries'] = [
  { type: 'link', key: 'flannel0', wanted: 'flannel0 tun mtu 1472', actual: 'flannel0 tun mtu 1472', status: 'same' },
  {
    type: 'route',
    key: '10.0.0.0/8',
    wanted: '10.0.0.0/8 dev flannel0',
    actual: '10.0.0.0/8 dev flannel0',
    status: 'same',
  },
];

const STATE = (atMs: number): State => ({
  atMs,
  isConverged: true,
  entries: ENTRIES,
  omitted: 0,
  difference: [],
  problems: [],
  runs: 3,
  repairs: {},
});
