import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatAddr } from '../ip/address.ts';
import { type Ipv4Addr, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
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
  readonly #arrivals: Arrival[] = [];
  behaves: (request: ProbeRequest) => Answer = () => 'answer';

  send(request: ProbeRequest): Sent {
    const behaviour = this.behaves(request);
    if (typeof behaviour === 'object' && 'errno' in behaviour) return behaviour;
    this.sent.push({ atMs: this.nowMs, request });
    const about =
      request.kind === 'udp'
        ? ({ kind: 'udp', port: request.port } as const)
        : ({ kind: 'echo', sequence: request.sequence } as const);
    const error = (reason: 'too-big' | 'port' | 'prohibited', mtuBytes = 0) =>
      ({ kind: 'error', reason, mtuBytes, about }) as const;
    const atMs = this.nowMs + 0.5;
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

  receive(): readonly Arrival[] {
    return this.#arrivals.splice(0);
  }

  [Symbol.dispose](): void {}
}

const describeErrno = (errno: number) =>
  (errno === -101 ? 'no-route' : errno === -1 ? 'not-permitted' : 'too-long') as
    | 'no-route'
    | 'not-permitted'
    | 'too-long';

function proberOn(network: FakeNetwork, cadence = ON_DEMAND, perTurn = 8): Prober {
  return new Prober({ io: network, cadence, perTurn, watched: 64, describeErrno });
}

function run(prober: Prober, network: FakeNetwork, forMs: number, stepMs = 50): void {
  for (const end = network.nowMs + forMs; network.nowMs < end; network.nowMs += stepMs) prober.turn(network.nowMs);
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
    ['wrong checksums', 'checksum-offload', (r) => (r.kind === 'udp' && r.checksum ? 'lost' : 'answer'), {}],
    ['closed ports that a firewall drops', undefined, (r) => (r.kind === 'udp' ? 'lost' : 'answer'), {}],
    [
      'hosts that answer no echo beside the overlay',
      undefined,
      (r) => (isEcho(r) && !isOverlay(r) ? 'lost' : 'answer'),
      {},
    ],
  ];
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

  it('cost the same in a cluster of any size: never more than eight a second', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3_000 }), fc.boolean(), (peers, answers) => {
        const network = new FakeNetwork();
        network.behaves = () => (answers ? 'answer' : 'lost');
        const prober = proberOn(network, IN_BACKGROUND, 2);
        for (let i = 1; i <= peers; i++) prober.set(`p${i}`, { ...targetOf(i), id: `p${i}` });
        run(prober, network, 20_000, 250);
        const perSecond = Map.groupBy(network.sent, ({ atMs }) => Math.floor(atMs / 1_000));
        for (const probes of perSecond.values()) assert.ok(probes.length <= 8);
        assert.equal(network.sent.length > 0, peers > 0);
        assert.ok(prober.results(network.nowMs).length <= 64);
      }),
      { numRuns: 20 },
    );
  });

  it('reach every peer of a small cluster within seconds', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network, IN_BACKGROUND, 2);
    for (let i = 1; i <= 10; i++) prober.set(`p${i}`, { ...targetOf(i), id: `p${i}` });
    run(prober, network, 8_000, 250);
    assert.equal(prober.results(network.nowMs).filter(({ rttMs }) => rttMs !== undefined).length, 10);
  });

  it('leave a new peer alone until it has heard of this host', () => {
    const network = new FakeNetwork();
    const prober = proberOn(network, IN_BACKGROUND, 2);
    const target = targetOf(1);
    prober.set(target.id, target);
    run(prober, network, 3_000, 250);
    assert.equal(network.sent.length, 0);
    run(prober, network, 500, 250);
    assert.ok(network.sent.length > 0);
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
});
