import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Peers, Self, Traffic } from '../../src/api/schema.ts';
import type { LabContainer, LabHost } from '../../src/lab/topology.ts';
import { addressOf, Overlay } from '../netns/overlay.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';
import { DATAGRAM_SENDER } from './bed.ts';

/** Of all scenarios together; `make lost-packets PACKETS=1000000` for the table of docs/DIAGNOSIS.md. */
const PACKETS = Number(process.env.WEFT_LOST_PACKETS ?? 84_000);
const PORT = 7_777;
/** After a hundred packets: with 200 bytes each, less than what a queue takes meanwhile. */
const PAUSE_MS = 3;
/** What one host has sent, and the other has neither taken nor dropped. */
const WIRE = 'h1 to h2 wire';
/** Longer than an agent answers with what it has found when it was asked before. */
const FRESH_MS = 600;
/** As long as a container's packets may be: a few thousand fill a socket's buffer. */
const FULL_BYTES = 1_472;

/** Of the busy machine below the test, which may fill a queue at any time. */
const QUEUES: readonly string[] = ['h1 queue device', 'h2 queue socket'];

interface Scenario {
  readonly name: string;
  readonly inject: (rig: Rig) => Promise<unknown>;
  readonly heal: (rig: Rig) => Promise<unknown>;
  /** The container of the other host unless given. */
  readonly to?: string;
  readonly bytes?: number;
  /** Of all packets, beside 1 of the others. */
  readonly share?: number;
  /** As fast as the sender can, so that queues overflow. */
  readonly flood?: true;
  /** Where what is lost must be found: host, hop, reason. One of them; what else was lost, in {@link QUEUES}, and with none all of it. */
  readonly because: readonly string[];
  /** How many of a hundred arrive at most. */
  readonly arrives: number;
}

/** Of the second host, behind its agent: the kernel forwards nothing to a container that passes the socket. */
const INSIDE: ReadonlySet<string> = new Set(['kernel filtered-out', 'queue device']);

/** Packets that the one counter of these rules has seen. */
const counted = (rules: string): number => Number(/packets (\d+)/.exec(rules)?.[1]);

interface Account {
  sent: number;
  arrived: number;
  /** By host, hop and reason. */
  readonly lost: Map<string, number>;
}

/** Two hosts. Their agents send nothing of their own and carry all packets themselves, so that each packet is one of the test. */
class Rig {
  readonly overlay: Overlay;
  readonly hosts: readonly [LabHost, LabHost];
  /** By the counter `wire` of the last rule that {@link unfilter} took away. */
  lostOnWire = 0;

  constructor(overlay: Overlay) {
    this.overlay = overlay;
    const [first, second] = overlay.topology.hosts;
    this.hosts = [first!, second!];
  }

  container(index: 0 | 1): LabContainer {
    return this.hosts[index].containers[0]!;
  }

  async sh(place: LabHost | LabContainer, command: string): Promise<string> {
    return (await this.overlay.topology.exec(place, ['sh', '-ec', command])).stdout;
  }

  /** A rule in a table of its own; of `netdev`, the hook has the device. */
  async filter(index: 0 | 1, family: 'inet' | 'netdev', hook: string, rule: string): Promise<void> {
    const chain = `type filter hook ${hook} priority -5; policy accept;`;
    const stdin = `table ${family} lost {\ncounter wire {\n}\nchain c {\n${chain}\n${rule}\n}\n}\n`;
    await this.overlay.topology.exec(this.hosts[index], ['nft', '-f', '-'], { stdin });
  }

  async unfilter(index: 0 | 1, family: 'inet' | 'netdev'): Promise<void> {
    const host = this.hosts[index];
    const text = await this.sh(host, `nft flush chain ${family} lost c; nft list table ${family} lost`);
    await this.sh(host, `nft delete table ${family} lost`);
    this.lostOnWire = counted(text);
  }

  async signal(index: 0 | 1, signal: 'SIGSTOP' | 'SIGCONT'): Promise<void> {
    this.overlay.agents[index]!.child.kill(signal);
  }

  /** Longest packet that a container of the first host and its bridge pass on. */
  async setContainerMtu(bytes: number): Promise<void> {
    const ports = `for d in /sys/class/net/cni0/brif/*; do ip link set $(basename $d) mtu ${bytes}; done`;
    await this.sh(this.hosts[0], `${ports}; ip link set cni0 mtu ${bytes}`);
    await this.sh(this.container(0), `ip link set eth0 mtu ${bytes}`);
  }

  async #get<T>(host: LabHost, endpoint: string): Promise<T> {
    const argv = ['socat', '-t', '30', 'STDIO', `UNIX-CONNECT:${host.stateDirectory}/weft.sock`];
    const stdin = `GET /api/v1${endpoint} HTTP/1.0\r\nHost: localhost\r\n\r\n`;
    const { stdout } = await this.overlay.topology.exec(host, argv, { stdin });
    return JSON.parse(stdout.slice(stdout.indexOf('\r\n\r\n'))) as T;
  }

  /** What the agents say of packets that went no further, by host, hop and reason. */
  async accounts(): Promise<ReadonlyMap<string, number>> {
    const all = new Map<string, number>();
    const add = (key: string, count: number): void => void all.set(key, (all.get(key) ?? 0) + count);
    let onWire = 0;
    for (const [index, host] of this.hosts.entries()) {
      const { dataPath } = await this.#get<Self>(host, '/self');
      const { peers } = await this.#get<Peers>(host, '/peers');
      const drops: [string, Readonly<Record<string, number>> | undefined][] = [
        ['queue', dataPath.queueDrops],
        ['kernel', dataPath.hostDrops],
        ...[dataPath.nobody, ...peers].flatMap((traffic): [string, Traffic['drops'] | undefined][] => [
          ['forwarder-tx', traffic?.tx?.drops],
          ['forwarder-rx', traffic?.rx?.drops],
        ]),
      ];
      for (const [hop, byReason] of drops) {
        for (const [reason, count] of Object.entries(byReason ?? {})) {
          add(`${host.name} ${hop} ${reason}`, count);
          // Before the agent of the second host has taken the datagram.
          if (index === 1 && !INSIDE.has(`${hop} ${reason}`)) onWire -= count;
        }
      }
      for (const { tx, rx } of peers) onWire += index === 0 ? (tx?.packets ?? 0) : -(rx?.packets ?? 0);
    }
    add(WIRE, onWire);
    return all;
  }

  /** The same, with what has arrived, once all that was sent has come to its end: hosts are asked one after the other. */
  async atRest(): Promise<{ readonly accounts: ReadonlyMap<string, number>; readonly received: number }> {
    let before = '';
    return await eventually('nothing is under way', async () => {
      const [accounts, received] = [await this.accounts(), await this.received()];
      const now = JSON.stringify([received, ...accounts]);
      if (now === before) return { accounts, received };
      before = now;
      await sleep(FRESH_MS);
      return undefined;
    });
  }

  /** Packets of the test that came to the container of the second host. */
  async received(): Promise<number> {
    return counted(await this.sh(this.container(1), 'nft list table inet counted'));
  }

  async send(to: string, count: number, bytes: number, pauseMs: number): Promise<void> {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', DATAGRAM_SENDER];
    argv.push(to, ...[PORT, count, bytes, pauseMs].map(String));
    await this.overlay.topology.exec(this.container(0), argv, { timeoutMs: 300_000 });
  }
}

const nothing = async (): Promise<void> => {};
/** A rule of that host's firewall, until all packets have come to it or to their end: some may have waited for an agent. */
const filtered = (...[index, family, hook, rule]: Parameters<Rig['filter']>): Pick<Scenario, 'inject' | 'heal'> => ({
  inject: (rig) => rig.filter(index, family, hook, rule),
  heal: async (rig) => {
    await rig.atRest();
    await rig.unfilter(index, family);
  },
});

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'more packets than the hosts can carry',
    // They may be able to carry all.
    ...{ inject: nothing, heal: nothing, flood: true, because: [], arrives: 100 },
  },
  {
    name: 'an agent that hangs: the queue of its device overflows',
    inject: (rig) => rig.signal(0, 'SIGSTOP'),
    heal: (rig) => rig.signal(0, 'SIGCONT'),
    ...{ because: ['h1 queue device'], arrives: 50 },
  },
  {
    name: 'an agent of the peer that hangs: the buffer of its socket overflows',
    inject: (rig) => rig.signal(1, 'SIGSTOP'),
    heal: (rig) => rig.signal(1, 'SIGCONT'),
    ...{ because: ['h2 queue socket'], bytes: FULL_BYTES, share: 2, arrives: 99 },
  },
  {
    name: 'a destination that is no peer’s',
    ...{ inject: nothing, heal: nothing, to: '10.244.255.9' },
    ...{ because: ['h1 forwarder-tx no-route'], arrives: 0 },
  },
  {
    name: 'a TTL that ends in the agent',
    ...filtered(0, 'inet', 'forward', `udp dport ${PORT} ip ttl set 1`),
    ...{ because: ['h1 forwarder-tx ttl-exceeded'], arrives: 0 },
  },
  {
    name: 'packets that are too long and must not be fragmented',
    inject: (rig) => rig.setContainerMtu(1_500),
    heal: (rig) => rig.setContainerMtu(FULL_BYTES),
    ...{ bytes: FULL_BYTES + 1, because: ['h1 kernel too-big'], arrives: 0 },
  },
  {
    name: 'a host that forwards nothing',
    inject: (rig) => rig.sh(rig.hosts[0], 'echo 0 >/proc/sys/net/ipv4/ip_forward'),
    heal: (rig) => rig.sh(rig.hosts[0], 'echo 1 >/proc/sys/net/ipv4/ip_forward'),
    ...{ because: ['h1 kernel address'], arrives: 0 },
  },
  {
    name: 'a wire that loses three of ten',
    ...filtered(1, 'netdev', 'ingress device eth0', 'udp dport 8285 numgen random mod 100 < 30 counter name wire drop'),
    ...{ because: [WIRE], arrives: 90 },
  },
  {
    name: 'a wire that changes three of ten',
    ...filtered(1, 'netdev', 'ingress device eth0', 'udp dport 8285 numgen random mod 100 < 30 @th,48,16 set 0xdead'),
    ...{ because: ['h2 kernel checksum'], arrives: 90 },
  },
  {
    name: 'a sender that is no peer',
    ...filtered(1, 'netdev', 'ingress device eth0', 'udp dport 8285 ip saddr set 192.168.77.50 udp checksum set 0'),
    ...{ because: ['h2 forwarder-rx unknown-source'], arrives: 0 },
  },
  {
    name: 'a peer that sends in the name of another subnet',
    // Behind the rules that give packets of strangers the address of the host.
    ...filtered(0, 'netdev', 'egress device flannel0', `udp dport ${PORT} ip saddr set 10.244.255.9`),
    ...{ because: ['h2 forwarder-rx spoofed-source'], arrives: 0 },
  },
  {
    name: 'a firewall of the peer that takes no datagrams',
    ...filtered(1, 'inet', 'input', 'udp dport 8285 drop'),
    ...{ because: ['h2 kernel filtered-in'], arrives: 0 },
  },
  {
    name: 'a firewall that forwards nothing to the peer’s containers',
    ...filtered(1, 'inet', 'forward', `udp dport ${PORT} drop`),
    // By a figure of Linux 6.7 and later.
    ...{ because: ['h2 kernel filtered-out'], arrives: 0 },
  },
];

const SHARES = SCENARIOS.reduce((sum, { share = 1 }) => sum + share, 0);
/** A busy machine may lose all packets of a scenario in a queue, before they come to what is in their way. */
const MOST_ROUNDS = 10;

describe('packets that do not arrive', () => {
  const each = Math.ceil(PACKETS / SHARES);
  let rig: Rig;
  let [sent, received] = [0, 0];
  before(async () => {
    assert.ok(each >= 6_000, 'fewer packets fill no buffer');
    const agentFlags = ['--probe=off', '--fast-path=off'];
    const options = { hosts: 2, containersPerHost: 1, underlay: 'wire', agentFlags } as const;
    rig = new Rig(await Overlay.create(options, new AbortController().signal));
    // Packets that are joined on the way in count as one in the kernel's figures.
    for (const host of rig.hosts) await rig.sh(host, 'ethtool -K eth0 gro off');
    const chain = `type filter hook input priority 0; policy accept;\nudp dport ${PORT} counter drop`;
    const stdin = `table inet counted {\nchain c {\n${chain}\n}\n}\n`;
    await rig.overlay.topology.exec(rig.container(1), ['nft', '-f', '-'], { stdin });
  });
  after(() => rig?.overlay[Symbol.asyncDispose]());

  /** Sends the scenario's packets once, and compares what did not arrive with the figures, which follow within moments. */
  const round = async ({ inject, heal, to, bytes = 100, share = 1, flood }: Scenario): Promise<Account> => {
    const count = each * share;
    const { accounts: before, received: arrivedBefore } = await rig.atRest();
    await inject(rig);
    rig.lostOnWire = 0;
    try {
      await rig.send(to ?? addressOf(rig.container(1)), count, bytes, flood === true ? 0 : PAUSE_MS);
    } finally {
      await heal(rig);
    }
    return await eventuallyHolds(async () => {
      const now = await rig.accounts();
      const arrived = (await rig.received()) - arrivedBefore;
      const lost = new Map(
        [...now]
          .map(([key, total]) => [key, total - (before.get(key) ?? 0)] as const)
          .filter(([, total]) => total !== 0),
      );
      const explained = [...lost.values()].reduce((sum, total) => sum + total, 0);
      const said = `sent ${count}, arrived ${arrived}, lost ${JSON.stringify([...lost])}`;
      assert.equal(count - arrived - explained, 0, said);
      assert.equal(lost.get(WIRE) ?? 0, rig.lostOnWire, `the wire itself lost ${rig.lostOnWire}; ${said}`);
      return { sent: count, arrived, lost };
    });
  };

  for (const scenario of SCENARIOS) {
    const { name, because, arrives } = scenario;
    it(`are all in the figures of the agents: ${name}`, async (t) => {
      const all: Account = { sent: 0, arrived: 0, lost: new Map() };
      const isNamed = (): boolean => because.length === 0 || because.some((key) => all.lost.has(key));
      for (let left = MOST_ROUNDS; left === MOST_ROUNDS || (left > 0 && !isNamed()); left--) {
        const { lost, ...counts } = await round(scenario);
        all.sent += counts.sent;
        all.arrived += counts.arrived;
        for (const [key, count] of lost) all.lost.set(key, (all.lost.get(key) ?? 0) + count);
      }
      const reasons = [...all.lost].map(([key, count]) => `${key} ${count}`).join(', ');
      t.diagnostic(`| ${name} | ${all.sent} | ${all.arrived} | ${all.sent - all.arrived} | ${reasons} |`);
      assert.ok(isNamed(), `it is not named: ${reasons}`);
      const others = [...all.lost.keys()].filter((key) => !because.includes(key) && !QUEUES.includes(key));
      assert.deepEqual(others, [], 'nothing else is named');
      assert.ok(all.arrived <= (all.sent * arrives) / 100, `${all.arrived} of ${all.sent} arrived`);
      sent += all.sent;
      received += all.arrived;
    });
  }

  it('are all explained', (t) => {
    t.diagnostic(`| all | ${sent} | ${received} | ${sent - received} | all |`);
    assert.ok(sent >= PACKETS, 'in every scenario');
  });
});
