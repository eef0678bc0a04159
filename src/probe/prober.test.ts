import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatAddr, type IpAddr } from '../ip/address.ts';
import { type Ipv4Addr, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import type { PathFault } from './diagnose.ts';
import type { Arrival, ProbeIo, ProbeRequest, ProbeTarget, Sent } from './ports.ts';
import { IN_BACKGROUND, ON_DEMAND } from './probe-kind.ts';
import { Prober } from './prober.ts';

const OVERLAY = parseIpv4('10.244.0.0')!;
const UNDERLAY = parseIpv4('192.168.0.0')!;
const ROUTER = parseIpv4('192.168.255.254')!;
const MTU = 1_472;

function targetOf(peer: number): ProbeTarget {
  const overlay = ipv4Of(OVERLAY + peer * 256);
  return {
    id: `${formatAddr(overlay)}/24`,
    overlay,
    underlay: ipv4Of(UNDERLAY + peer),
    mtuBytes: MTU,
    underlayMtuBytes: 1_500,
  };
}

type Answer = 'answer' | 'lost' | 'refused' | 'port' | { readonly tooBig: number } | { readonly errno: number };

/** A network that does with each probe what it is told. */
class FakeNetwork implements ProbeIo {
  nowMs = 0;
  readonly sent: { readonly atMs: number; readonly request: ProbeRequest }[] = [];
  #arrivals: Arrival[] = [];
  /** After which an answer comes. */
  delayMs = 0.5;
  behaves: (request: ProbeRequest) => Answer = () => 'answer';

  send(request: ProbeRequest): Sent {
    const behaviour = this.behaves(request);
    if (typeof behaviour === 'object' && 'errno' in behaviour) return behaviour;
    this.sent.push({ atMs: this.nowMs, request });
    const about =
      request.kind === 'udp'
        ? ({ kind: 'udp', to: request.to, port: request.port } as const)
        : ({ kind: 'echo', to: request.to, sequence: request.sequence } as const);
    const error = (reason: 'too-big' | 'port' | 'prohibited', mtuBytes = 0) =>
      ({ kind: 'error', reason, mtuBytes, about }) as const;
    const atMs = this.nowMs + this.delayMs;
    if (behaviour === 'lost') return { atMs: this.nowMs };
    if (behaviour === 'refused') this.#arrivals.push({ from: request.to, atMs, message: error('prohibited') });
    else if (typeof behaviour === 'object')
      this.#arrivals.push({ from: ROUTER, atMs, message: error('too-big', behaviour.tooBig) });
    else if (request.kind === 'udp') this.#arrivals.push({ from: request.to, atMs, message: error('port') });
    else this.#arrivals.push({ from: request.to, atMs, message: { kind: 'reply', sequence: request.sequence } });
    return { atMs: this.nowMs };
  }

  /** A probe of that peer reaches this host. */
  hear(from: Ipv4Addr): void {
    this.#arrivals.push({ from, atMs: this.nowMs, message: { kind: 'request' } });
  }

  /** What somebody else has sent reaches this host. */
  forge(from: IpAddr, message: Arrival['message']): void {
    this.#arrivals.push({ from, atMs: this.nowMs, message });
  }

  receive(): readonly Arrival[] {
    const { true: come = [], false: later = [] } = Object.groupBy(
      this.#arrivals,
      ({ atMs }) => `${atMs <= this.nowMs}`,
    );
    this.#arrivals = later;
    return come;
  }

  [Symbol.dispose](): void {}
}

const describeErrno = (errno: number) =>
  (errno === -101 ? 'no-route' : errno === -1 ? 'not-permitted' : 'too-long') as
    | 'no-route'
    | 'not-permitted'
    | 'too-long';

function proberOn(network: FakeNetwork): Prober {
  return new Prober({ io: network, cadence: ON_DEMAND, perTurn: 8, perSecond: 400, watched: 64, describeErrno });
}

/** As an agent has it. */
function backgroundOn(network: FakeNetwork, peers = 0): Prober {
  const limits = { perTurn: 8, perSecond: 8, confirmingPerSecond: 8, watched: 64 };
  const prober = new Prober({ io: network, cadence: IN_BACKGROUND, ...limits, describeErrno });
  for (let i = 1; i <= peers; i++) prober.set(targetOf(i).id, targetOf(i));
  return prober;
}

/** Turns when they are wanted, as of a process that is woken in time, or every other time late. @returns how many there were. */
function live(prober: Prober, network: FakeNetwork, forMs: number, look?: () => void, lateMs = 0): number {
  const end = network.nowMs + forMs;
  for (let turns = 0; ; turns++) {
    network.nowMs += turns % 2 === 1 ? lateMs : 0;
    const wantedMs = prober.turn(network.nowMs);
    look?.();
    if (wantedMs >= end) {
      network.nowMs = end;
      return turns;
    }
    network.nowMs = wantedMs;
  }
}

/** Until that is so, with {@link live} turns; in milliseconds. */
function liveUntil(prober: Prober, network: FakeNetwork, isSo: () => boolean): number {
  const from = network.nowMs;
  for (;;) {
    assert.ok(network.nowMs - from < 60_000, 'it is not so within a minute');
    const wantedMs = prober.turn(network.nowMs);
    if (isSo()) return network.nowMs - from;
    network.nowMs = wantedMs;
  }
}

function run(prober: Prober, network: FakeNetwork, forMs: number, stepMs = 50): void {
  for (const end = network.nowMs + forMs; network.nowMs < end; network.nowMs += stepMs) prober.turn(network.nowMs);
}

/** In any second, not only in those that a clock counts. */
function mostInASecond({ sent }: FakeNetwork): number {
  let most = 0;
  for (let first = 0, last = 0; last < sent.length; last++) {
    while (sent[last]!.atMs - sent[first]!.atMs >= 1_000) first++;
    most = Math.max(most, last - first + 1);
  }
  return most;
}

const isOverlay = ({ to }: ProbeRequest): boolean => typeof to === 'number' && to >>> 24 === 10;
const isEcho = (request: ProbeRequest): boolean => request.kind === 'echo';
const sizeOf = (request: ProbeRequest): number => (request.kind === 'echo' ? request.totalBytes : 80);

describe('probes of peers', () => {
  it('give round-trip time, loss and the path’s MTU of a peer that answers, and no fault', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network);
    const target = targetOf(1);
    prober.set(target.id, target);
    run(prober, network, 6_000);
    const result = prober.result(target.id, network.nowMs)!;
    assert.equal(result.diagnosis, undefined);
    assert.deepEqual(result.rttMs, { median: 0.5, p99: 0.5 });
    assert.equal(result.lossRatio, 0);
    assert.equal(result.pathMtuBytes, MTU);
    assert.equal(new Set(Object.values(result.passes)).size, 1, JSON.stringify(result.passes));
  });

  const faults: readonly [
    string,
    PathFault | undefined,
    FakeNetwork['behaves'],
    { readonly hears?: true; readonly mtu?: number },
  ][] = [
    ['a host that is off', 'peer-unreachable', () => 'lost', {}],
    ['a host without a route to the peer', 'no-route', (r) => (isOverlay(r) ? { errno: -101 } : 'answer'), {}],
    ['a firewall of this host', 'local-firewall', (r) => (isOverlay(r) ? { errno: -1 } : 'answer'), {}],
    ['a firewall that says so', 'rejected', (r) => (isOverlay(r) ? 'refused' : 'answer'), {}],
    ['a tunnel that is blocked', 'tunnel-blocked', (r) => (isOverlay(r) ? 'lost' : 'answer'), {}],
    [
      'a tunnel that is blocked in one direction',
      'one-way',
      (r) => (isOverlay(r) ? 'lost' : 'answer'),
      { hears: true },
    ],
    [
      'a link with a lower MTU that says so',
      'mtu-lowered',
      (r) => (isOverlay(r) && sizeOf(r) > 1_372 ? { tooBig: 1_372 } : 'answer'),
      { mtu: 1_372 },
    ],
    [
      'a silent middlebox',
      'mtu-blackhole',
      (r) => (isOverlay(r) && sizeOf(r) > 1_372 ? 'lost' : 'answer'),
      { mtu: 1_372 },
    ],
    [
      'a firewall that drops fragments',
      'fragments-dropped',
      (r) => (isOverlay(r) && r.kind === 'echo' && r.mayFragment === true ? 'lost' : 'answer'),
      {},
    ],
    ['wrong checksums', 'checksum-offload', (r) => (r.kind === 'udp' && r.checksum ? 'lost' : 'answer'), {}],
    ['closed ports that a firewall drops', undefined, (r) => (r.kind === 'udp' ? 'lost' : 'answer'), {}],
    [
      'hosts that answer no echo beside the overlay',
      undefined,
      (r) => (isEcho(r) && !isOverlay(r) ? 'lost' : 'answer'),
      {},
    ],
  ];
  it('take answers that the peer’s kernel limits for no fault of checksums, whoever else asks for them', () => {
    const everyMs = fc.integer({ min: 150, max: 3_000 });
    fc.assert(
      fc.property(everyMs, fc.double({ min: 0, max: 1, noNaN: true }), fc.boolean(), (otherMs, phase, isFull) => {
        const network = new FakeNetwork();
        const prober = proberOn(network);
        prober.set(targetOf(1).id, targetOf(1));
        // inet_peer_xrlim_allow() of net/ipv4/route.c and icmp.c.
        let [tokensMs, lastMs, otherAtMs] = [isFull ? 6_000 : 0, 0, phase * otherMs];
        const isAllowed = (atMs: number): boolean => {
          tokensMs = Math.min(tokensMs + atMs - lastMs, 6_000);
          lastMs = atMs;
          if (tokensMs < 1_000) return false;
          tokensMs -= 1_000;
          return true;
        };
        network.behaves = ({ kind }) => {
          for (; otherAtMs <= network.nowMs; otherAtMs += otherMs) isAllowed(otherAtMs);
          return kind === 'udp' && !isAllowed(network.nowMs) ? 'lost' : 'answer';
        };
        for (; network.nowMs < 8_000; network.nowMs += 20) {
          prober.turn(network.nowMs);
          const { diagnosis } = prober.result(targetOf(1).id, network.nowMs)!;
          assert.equal(diagnosis?.fault, undefined, `after ${network.nowMs} ms`);
        }
      }),
      { numRuns: 500 },
    );
  });

  for (const [what, fault, behaves, { hears, mtu }] of faults) {
    it(`tell ${what}${fault === undefined ? ' from a fault' : ''}`, () => {
      const network = new FakeNetwork();
      const prober = proberOn(network);
      const target = targetOf(1);
      prober.set(target.id, target);
      network.behaves = behaves;
      for (let i = 0; i < 10; i++) {
        if (hears) network.hear(target.overlay as Ipv4Addr);
        run(prober, network, 1_000);
      }
      const result = prober.result(target.id, network.nowMs)!;
      assert.equal(result.diagnosis?.fault, fault, JSON.stringify(result));
      if (mtu !== undefined)
        assert.ok(result.pathMtuBytes! > mtu - 2 && result.pathMtuBytes! <= mtu, `${result.pathMtuBytes}`);
      // The way mends itself.
      network.behaves = () => 'answer';
      run(prober, network, 10_000);
      const after = prober.result(target.id, network.nowMs)!;
      assert.equal(after.diagnosis, undefined, JSON.stringify(after));
      assert.equal(after.pathMtuBytes, MTU);
    });
  }

  it('tell loss, and are not alarmed by one probe that was lost', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network);
    const target = targetOf(1);
    prober.set(target.id, target);
    run(prober, network, 3_000);
    let count = 0;
    network.behaves = (r) => (isOverlay(r) && ++count === 1 ? 'lost' : 'answer');
    run(prober, network, 3_000);
    assert.equal(prober.result(target.id, network.nowMs)!.diagnosis, undefined);
    network.behaves = (r) => (isOverlay(r) && ++count % 3 === 0 ? 'lost' : 'answer');
    run(prober, network, 6_000);
    assert.equal(prober.result(target.id, network.nowMs)!.diagnosis?.fault, 'lossy');
  });

  it('do not take a link that loses several in a row for one that is silent', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network);
    const target = targetOf(1);
    prober.set(target.id, target);
    // Four before the first answer, and five after it, again and again.
    let count = 0;
    const lost = (r: ProbeRequest): boolean =>
      isOverlay(r) && sizeOf(r) === 84 && [0, 1, 2, 3, 5, 6, 7, 8, 9].includes(count++ % 11);
    network.behaves = (r) => (lost(r) ? 'lost' : 'answer');
    for (let turn = 0; turn < 500; turn++) {
      run(prober, network, 20, 20);
      assert.notEqual(prober.result(target.id, network.nowMs)!.passes.small, 'no');
    }
    assert.equal(prober.result(target.id, network.nowMs)!.diagnosis?.fault, 'lossy');
    network.behaves = (r) => (isOverlay(r) ? 'lost' : 'answer');
    run(prober, network, 2_000);
    assert.equal(prober.result(target.id, network.nowMs)!.diagnosis?.fault, 'tunnel-blocked');
  });

  it('cost the same in a cluster of any size: never more than eight a second', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3_000 }), fc.boolean(), (peers, answers) => {
        const network = new FakeNetwork();
        network.behaves = () => (answers ? 'answer' : 'lost');
        const prober = backgroundOn(network);
        for (let i = 1; i <= peers; i++) prober.set(`p${i}`, { ...targetOf(i), id: `p${i}` });
        live(prober, network, 20_000);
        assert.ok(mostInASecond(network) <= 8);
        if (answers) {
          network.behaves = () => 'lost';
          live(prober, network, 20_000);
          assert.ok(mostInASecond(network) <= 16, 'with those that confirm that a peer is silent');
        }
        assert.equal(network.sent.length > 0, peers > 0);
        assert.ok(prober.results(network.nowMs).length <= 64);
      }),
      { numRuns: 20 },
    );
  });

  it('reach every peer of a small cluster within seconds', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 10);
    live(prober, network, 8_000);
    assert.equal(prober.results(network.nowMs).filter(({ rttMs }) => rttMs !== undefined).length, 10);
  });

  it('leave a new peer alone until it has heard of this host', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 1);
    live(prober, network, 3_000);
    assert.equal(network.sent.length, 0);
    live(prober, network, 1_000);
    assert.ok(network.sent.length > 0);
  });

  it('wake an idle host twice a second, and are as many as ever', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 3);
    live(prober, network, 10_000);
    network.sent.length = 0;
    const turns = live(prober, network, 60_000);
    assert.ok(turns <= 130, `${turns} turns`);
    const byPeer = Map.groupBy(network.sent, ({ request }) => Number(request.to) & 0xffff);
    for (const i of [1, 2, 3]) {
      const sizes = (byPeer.get(i * 256) ?? []).map(({ request }) => sizeOf(request));
      const count = (bytes: number) => sizes.filter((size) => size === bytes).length;
      assert.ok(count(84) >= 58 && count(84) <= 61, `${count(84)} small ones`);
      assert.ok(count(MTU) >= 11 && count(MTU) <= 13, `${count(MTU)} full ones`);
      assert.ok(count(80) >= 7 && count(80) <= 9, `${count(80)} datagrams`);
      assert.ok(byPeer.get(i)!.length >= 14, 'echoes beside the overlay');
    }
    const datagrams = network.sent.filter(({ request }) => request.kind === 'udp');
    const together = Map.groupBy(datagrams, ({ atMs, request }) => `${atMs} ${request.to}`);
    for (const one of together.values()) assert.equal(one.length, 1, 'what is compared must not travel as one');
    for (const [i, { atMs, request }] of network.sent.entries()) {
      const before = network.sent[i - 1];
      if (request.kind !== 'udp' || before?.atMs !== atMs) continue;
      assert.equal(before.request.kind, 'udp', 'datagrams are the first of their turn');
    }
  });

  it('ask the peers of three hosts once more in each second, which is no more than there is room for, and no loss', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 2);
    live(prober, network, 40_000);
    network.sent.length = 0;
    const turns = live(prober, network, 60_000);
    assert.ok(turns <= 250, `${turns} turns`);
    assert.ok(mostInASecond(network) <= 8);
    const small = network.sent.filter(({ request }) => isOverlay(request) && sizeOf(request) === 84);
    for (const i of [1, 2]) {
      const times = small.filter(({ request }) => request.to === targetOf(i).overlay).map(({ atMs }) => atMs);
      assert.ok(times.length >= 118 && times.length <= 122, `${times.length}`);
      for (const [at, atMs] of times.entries()) assert.ok(atMs - (times[at - 1] ?? atMs) <= 520);
    }
    // Each second one between two turns is lost. Full ones are sent in turns alone.
    const turnMs = network.sent.find(({ request }) => sizeOf(request) === MTU)!.atMs;
    let count = 0;
    network.behaves = (r) => {
      const sinceTurnMs = (network.nowMs - turnMs) % 1_000;
      if (!isOverlay(r) || sinceTurnMs < 400 || sinceTurnMs > 600) return 'answer';
      count++;
      return 'lost';
    };
    live(prober, network, 40_000);
    assert.ok(count > 40);
    for (const { lossRatio, diagnosis } of prober.results(network.nowMs))
      assert.deepEqual([lossRatio, diagnosis], [0, undefined]);
  });

  it('know that a peer of three hosts is silent 0.7 to 1.2 seconds later', () => {
    for (let phase = 0; phase < 1_000; phase += 70) {
      const network = new FakeNetwork();
      const prober = backgroundOn(network, 2);
      live(prober, network, 20_000 + phase);
      const silent = targetOf(2);
      network.behaves = (r) => (r.to === silent.overlay ? 'lost' : 'answer');
      const isSilent = () => prober.result(silent.id, network.nowMs)!.passes.small === 'no';
      const tookMs = liveUntil(prober, network, isSilent);
      assert.ok(tookMs >= 650 && tookMs <= 1_250, `${tookMs} ms, from ${phase}`);
    }
  });

  it('are as many when turns are a little late now and then, in clusters of any size', () => {
    for (const [peers, perSecond] of [
      [3, 4.8],
      [60, 8],
    ] as const) {
      for (const lateMs of [1, 8, 40]) {
        const network = new FakeNetwork();
        const prober = backgroundOn(network, peers);
        live(prober, network, 10_000, undefined, lateMs);
        network.sent.length = 0;
        live(prober, network, 60_000, undefined, lateMs);
        const ratio = network.sent.length / (60 * perSecond);
        assert.ok(ratio > 0.95 && ratio < 1.02, `${ratio} of ${peers} peers, late by ${lateMs} ms`);
      }
    }
  });

  it('know a peer that falls silent within two seconds, whenever that is, and why soon after', () => {
    for (let phase = 0; phase < 1_000; phase += 90) {
      for (const [away, fault] of [
        [isOverlay, 'tunnel-blocked'],
        [() => true, 'peer-unreachable'],
      ] as const) {
        const network = new FakeNetwork();
        const prober = backgroundOn(network, 3);
        live(prober, network, 20_000 + phase);
        const [silent] = [targetOf(2)];
        const isIts = ({ to }: ProbeRequest) => to === silent.overlay || to === silent.underlay;
        // Until then it was heard.
        network.hear(silent.overlay as Ipv4Addr);
        network.behaves = (r) => (isIts(r) && away(r) ? 'lost' : 'answer');
        const found: (PathFault | undefined)[] = [];
        const knows = () => {
          const { passes, diagnosis } = prober.result(silent.id, network.nowMs)!;
          if (diagnosis !== undefined) found.push(diagnosis.fault);
          return passes.small === 'no';
        };
        const tookMs = liveUntil(prober, network, knows);
        assert.ok(tookMs <= 1_750, `${tookMs} ms, from ${phase}`);
        const causeMs = liveUntil(prober, network, () => knows() && found.at(-1) === fault);
        assert.ok(causeMs <= 1_000, `${causeMs} ms more to the cause`);
        assert.ok(!found.includes('one-way'), 'it was heard before it fell silent, not after');
        live(prober, network, 5_000, knows);
        assert.equal(found.at(-1), fault);
        for (const i of [1, 3])
          assert.equal(prober.result(targetOf(i).id, network.nowMs)!.diagnosis, undefined, 'the others pass');
        network.behaves = () => 'answer';
        assert.ok(liveUntil(prober, network, () => !knows()) <= 1_300);
      }
    }
  });

  it('know within two seconds that all peers of a small cluster are silent', () => {
    for (let phase = 0; phase < 15_000; phase += 333) {
      const network = new FakeNetwork();
      const prober = backgroundOn(network, 3);
      live(prober, network, 20_000 + phase);
      network.behaves = () => 'lost';
      const areSilent = () => prober.results(network.nowMs).every(({ passes }) => passes.small === 'no');
      const tookMs = liveUntil(prober, network, areSilent);
      assert.ok(tookMs <= 1_900, `${tookMs} ms, from ${phase}`);
    }
  });

  it('take no lost packet for silence, nor a lossy link: what confirms is answered, and is no loss of the link', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 1);
    const { id } = targetOf(1);
    live(prober, network, 40_000);
    let count = 0;
    const look = () => assert.equal(prober.result(id, network.nowMs)!.passes.small, 'yes');
    network.behaves = (r) => (isOverlay(r) && isEcho(r) && sizeOf(r) === 84 && ++count % 20 === 0 ? 'lost' : 'answer');
    live(prober, network, 60_000, () => {
      look();
      assert.equal(prober.result(id, network.nowMs)!.diagnosis, undefined);
    });
    // The first of every other second.
    let lostAt = 0;
    network.behaves = (r) => {
      const second = Math.floor(network.nowMs / 1_000);
      if (!isOverlay(r) || sizeOf(r) !== 84 || second % 2 === 0 || second === lostAt) return 'answer';
      lostAt = second;
      return 'lost';
    };
    live(prober, network, 60_000, look);
    assert.equal(prober.result(id, network.nowMs)!.diagnosis?.fault, 'lossy');
    assert.ok(Math.abs(prober.result(id, network.nowMs)!.lossRatio! - 0.5) < 0.1);
    network.behaves = () => 'answer';
    live(prober, network, 60_000, look);
    // Half a second of silence is one probe lost, however many asked meanwhile; none when it was one between two turns.
    for (let phase = 0; phase < 2; phase++) {
      liveUntil(prober, network, () => network.sent.at(-1)!.atMs === network.nowMs);
      network.behaves = () => 'lost';
      live(prober, network, 900, look);
      network.behaves = () => 'answer';
      live(prober, network, 9_400, look);
    }
    assert.equal(prober.result(id, network.nowMs)!.lossRatio, 1 / 32);
  });

  it('wait for an answer that is late, as long as answers usually take, and take it when it comes', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 1);
    const { id } = targetOf(1);
    network.delayMs = 120;
    live(prober, network, 40_000);
    network.sent.length = 0;
    network.delayMs = 400;
    live(prober, network, 10_000);
    const small = network.sent.filter(({ request }) => isOverlay(request) && sizeOf(request) === 84);
    assert.ok(small.length <= 21, `${small.length}: nothing was confirmed`);
    network.delayMs = 1_500;
    live(prober, network, 10_000);
    assert.equal(prober.result(id, network.nowMs)!.lossRatio, 0);
  });

  it('blame no path for a host that is late itself', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 3);
    live(prober, network, 20_000);
    network.sent.length = 0;
    const from = network.nowMs;
    for (let busy = 0; busy < 10; busy++) {
      live(prober, network, 10_000);
      // What keeps this process from its turn keeps its packets as well: they come after the turn that should have had them.
      network.delayMs = 900;
      const had = network.sent.length;
      liveUntil(prober, network, () => network.sent.length > had);
      network.nowMs += 250 + 600;
      network.delayMs = 0.5;
    }
    const small = network.sent.filter(({ request }) => sizeOf(request) === 84 && isOverlay(request));
    const seconds = Math.ceil((network.nowMs - from) / 1_000);
    assert.ok(small.length <= 3 * seconds, `${small.length} in ${seconds} s: nothing was confirmed`);
    assert.ok(prober.results(network.nowMs).every(({ lossRatio }) => lossRatio === 0));
  });

  it('do not try again at once what the kernel refused, which may be a route that is made anew', () => {
    const network = new FakeNetwork();
    const prober = backgroundOn(network, 1);
    const { id } = targetOf(1);
    live(prober, network, 20_000);
    network.behaves = (r) => (isOverlay(r) ? { errno: -101 } : 'answer');
    const from = network.nowMs;
    liveUntil(prober, network, () => prober.result(id, network.nowMs)!.passes.small === 'no');
    assert.ok(network.nowMs - from >= 400);
    assert.equal(prober.result(id, network.nowMs)!.diagnosis?.fault, 'no-route');
  });

  it('forget a peer that is gone, and start anew for one that has moved', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network);
    const target = targetOf(1);
    prober.set(target.id, target);
    run(prober, network, 2_000);
    prober.set(target.id, { ...target, underlay: ipv4Of(UNDERLAY + 9) });
    prober.turn(network.nowMs);
    assert.equal(prober.result(target.id, network.nowMs)!.lossRatio, undefined);
    prober.set(target.id, undefined);
    prober.turn(network.nowMs);
    assert.deepEqual(prober.results(network.nowMs), []);
  });

  it('count their packets as the data path sees them', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network);
    const target = targetOf(1);
    prober.set(target.id, target);
    run(prober, network, 2_000);
    network.hear(target.overlay as Ipv4Addr);
    prober.turn(network.nowMs);
    const through = network.sent.filter(({ request }) => isOverlay(request)).length;
    const { tx, rx } = prober.packets(target.id);
    assert.equal(tx, through + 1, 'a request is answered by the kernel');
    assert.ok(rx > through - 8 && rx <= through + 1);
  });

  describe('that another peer answers', () => {
    /** The first peer knows what the probes to the second are, and tells of them what it likes. */
    function lied(tells: (network: FakeNetwork, request: ProbeRequest, liar: ProbeTarget) => void, isDead: boolean) {
      const network = new FakeNetwork();
      const prober = proberOn(network);
      const [liar, victim] = [targetOf(1), targetOf(2)];
      for (const target of [liar, victim]) prober.set(target.id, target);
      network.behaves = (request) => {
        if (request.to !== victim.overlay && request.to !== victim.underlay) return 'answer';
        tells(network, request, liar);
        return isDead ? 'lost' : 'answer';
      };
      run(prober, network, 10_000);
      return prober.result(victim.id, network.nowMs)!;
    }

    it('do not hide that a host is gone', () => {
      const { diagnosis, lossRatio } = lied((network, request, liar) => {
        if (request.kind === 'echo') network.forge(liar.overlay, { kind: 'reply', sequence: request.sequence });
        else {
          const about = { kind: 'udp', to: liar.overlay, port: request.port } as const;
          network.forge(liar.overlay, { kind: 'error', reason: 'port', mtuBytes: 0, about });
        }
      }, true);
      assert.equal(lossRatio, 1);
      assert.equal(diagnosis?.fault, 'peer-unreachable');
    });

    it('do not refuse for a host what was sent to it', () => {
      const { diagnosis, refusal, lossRatio } = lied((network, request, liar) => {
        if (request.kind !== 'echo') return;
        const about = { kind: 'echo', to: liar.overlay, sequence: request.sequence } as const;
        for (const reason of ['prohibited', 'too-big'] as const)
          network.forge(liar.overlay, { kind: 'error', reason, mtuBytes: 600, about });
      }, false);
      assert.deepEqual([diagnosis, refusal, lossRatio], [undefined, undefined, 0]);
    });

    it('cannot be foretold from what a peer sees of its own', () => {
      const network = new FakeNetwork();
      const prober = proberOn(network);
      prober.set(targetOf(1).id, targetOf(1));
      run(prober, network, 60_000);
      const sequences = network.sent.flatMap(({ request }) => (request.kind === 'echo' ? request.sequence : []));
      const steps = new Set(sequences.slice(1).map((sequence, at) => (sequence - sequences[at]!) & 0xffff));
      assert.ok(sequences.length > 50 && steps.size > sequences.length / 2, `${steps.size} of ${sequences.length}`);
    });
  });

  it('are answered by another address of the host where the one asked is an anycast address', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network);
    const overlay = parseIpv6('fd00:244:0:2::')!;
    const target = { ...targetOf(2), id: 'fd00:244:0:2::/64', overlay, underlay: parseIpv6('fd00:77::2')! };
    prober.set(target.id, target);
    network.behaves = (request) => {
      const from = parseIpv6(request.to === overlay ? 'fd00:244:0:2::1' : 'fd00:77::2')!;
      if (request.kind === 'echo') network.forge(from, { kind: 'reply', sequence: request.sequence });
      return 'lost';
    };
    run(prober, network, 10_000);
    const { lossRatio, diagnosis } = prober.result(target.id, network.nowMs)!;
    assert.deepEqual([lossRatio, diagnosis], [0, undefined]);
  });
});
