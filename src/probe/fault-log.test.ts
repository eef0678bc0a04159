import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Ipv4Addr, ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import type { Passing, PathEvidence } from './diagnose.ts';
import { type FaultChange, FaultLog } from './fault-log.ts';
import type { Arrival, ProbeIo, ProbeRequest, ProbeTarget, Sent } from './ports.ts';
import { IN_BACKGROUND, PROBE_KINDS, type ProbeKind } from './probe-kind.ts';
import { Prober } from './prober.ts';

const OVERLAY = parseIpv4('10.244.0.0')!;
const MTU = 1_472;

function targetOf(peer: number): ProbeTarget {
  return {
    ...{ id: `10.244.${peer}.0/24`, overlay: ipv4Of(OVERLAY + peer * 256), mtuBytes: MTU, underlayMtuBytes: 1_500 },
    underlay: ipv4Of(parseIpv4('192.168.0.0')! + peer),
  };
}

/** One peer whose probes are answered at once, or not at all. */
class Wire implements ProbeIo {
  nowMs = 0;
  passes: (request: ProbeRequest) => boolean = () => true;
  #arrivals: Arrival[] = [];

  send(request: ProbeRequest): Sent {
    const [from, atMs] = [request.to, this.nowMs];
    if (!this.passes(request)) return { atMs };
    if (request.kind === 'echo')
      this.#arrivals.push({ from, atMs, message: { kind: 'reply', sequence: request.sequence } });
    else {
      const about = { kind: 'udp', to: from, port: request.port } as const;
      this.#arrivals.push({ from, atMs, message: { kind: 'error', reason: 'port', mtuBytes: 0, about } });
    }
    return { atMs };
  }

  receive(): readonly Arrival[] {
    return this.#arrivals.splice(0);
  }

  [Symbol.dispose](): void {}
}

class Rig {
  readonly wire = new Wire();
  readonly target: ProbeTarget = targetOf(2);
  readonly #told: FaultChange[] = [];
  readonly #prober = new Prober({
    ...{ io: this.wire, cadence: IN_BACKGROUND, perTurn: 8, perSecond: 8, confirmingPerSecond: 8, watched: 64 },
    ...{ describeErrno: () => 'other', faults: new FaultLog((change) => void this.#told.push(change)) },
  });

  constructor() {
    this.#prober.set(this.target.id, this.target);
  }

  get result() {
    return this.#prober.result(this.target.id, this.wire.nowMs)!;
  }

  /** @returns what was told meanwhile: the faults, and `well`. */
  live(ms: number, look: () => void = () => {}): string[] {
    for (const endMs = this.wire.nowMs + ms; this.wire.nowMs < endMs; ) {
      const wantedMs = this.#prober.turn(this.wire.nowMs);
      look();
      this.wire.nowMs = Math.min(wantedMs, endMs);
    }
    return this.#told.splice(0).map(({ diagnosis }) => diagnosis?.fault ?? 'well');
  }

  /** Nothing passes through the overlay. */
  outage(ms: number): string[] {
    const before = this.wire.passes;
    this.wire.passes = (request) => !isOverlay(request.to) && before(request);
    const told = this.live(ms);
    this.wire.passes = before;
    return told;
  }
}

function isOverlay(to: ProbeRequest['to']): boolean {
  return (to as Ipv4Addr) >>> 24 === 10;
}

function isSmall(request: ProbeRequest): boolean {
  return request.kind === 'echo' && request.totalBytes < 100 && isOverlay(request.to);
}

function isLong(request: ProbeRequest): boolean {
  return request.kind === 'echo' && request.totalBytes > 1_400 && isOverlay(request.to);
}

describe('the log of faults', () => {
  it('has the begin and the end of an outage, however long, and nothing of it is left', () => {
    for (const outageMs of [2_500, 9_000, 60_000]) {
      const rig = new Rig();
      assert.deepEqual(rig.live(40_000), [], 'all is well');
      assert.deepEqual(rig.outage(outageMs), ['tunnel-blocked'], `${outageMs}`);
      assert.equal(rig.result.diagnosis?.fault, 'tunnel-blocked');
      let isOver = false;
      const told = rig.live(60_000, () => {
        isOver ||= rig.result.passes.small === 'yes';
        // Neither its losses nor those of other kinds meanwhile are faults of a way that is well again.
        if (isOver) assert.equal(rig.result.diagnosis, undefined, `${outageMs}`);
      });
      assert.deepEqual(told, ['well']);
      assert.equal(rig.result.lossRatio, 0);
      assert.equal(rig.result.pathMtuBytes, MTU);
    }
  });

  it('takes outages that follow each other for loss, until ten probes in a row are answered', () => {
    const rig = new Rig();
    rig.live(40_000);
    assert.deepEqual(rig.outage(5_000), ['tunnel-blocked']);
    assert.deepEqual(rig.live(4_000), ['well']);
    assert.deepEqual(rig.outage(5_000), ['tunnel-blocked']);
    assert.deepEqual(rig.live(4_000), ['lossy']);
    assert.deepEqual(rig.live(10_000), ['well']);
    assert.equal(rig.result.lossRatio, 0);
  });

  it('still has loss that is no outage', () => {
    const rig = new Rig();
    rig.live(40_000);
    let count = 0;
    rig.wire.passes = (request) => !isSmall(request) || ++count % 3 !== 0;
    assert.deepEqual(rig.live(40_000), ['lossy']);
  });

  it('keeps a fault that was there before an outage', () => {
    const rig = new Rig();
    rig.live(40_000);
    rig.wire.passes = (request) => !isLong(request);
    assert.deepEqual(rig.live(20_000), ['mtu-blackhole']);
    assert.deepEqual(rig.outage(10_000), ['tunnel-blocked']);
    assert.deepEqual(rig.live(30_000), ['mtu-blackhole']);
    rig.wire.passes = () => true;
    assert.deepEqual(rig.live(20_000), ['well']);
  });
});

function evidence(small: Passing, more: Partial<Record<ProbeKind, Passing>> = {}): PathEvidence {
  const passes = Object.fromEntries(PROBE_KINDS.map((kind) => [kind, 'unknown'])) as Record<ProbeKind, Passing>;
  return {
    passes: { ...passes, small, ...more },
    ...{ isHeard: false, refusal: undefined, lossRatio: undefined, pathMtuBytes: undefined, mtuBytes: MTU },
  };
}

describe('what is told of faults', () => {
  const told: FaultChange[] = [];
  let hints = 0;
  const log = () => {
    told.length = hints = 0;
    return new FaultLog(
      (change) => void told.push(change),
      () => void hints++,
    );
  };

  it('is each change once, with what it was and how long', () => {
    const faults = log();
    for (let nowMs = 0; nowMs < 30_000; nowMs += 1_000) faults.look(targetOf(1), evidence('no'), nowMs);
    faults.look(targetOf(1), evidence('no', { underlay: 'no' }), 30_000);
    for (let nowMs = 40_000; nowMs < 50_000; nowMs += 1_000) faults.look(targetOf(1), evidence('yes'), nowMs);
    assert.deepEqual(
      told.map(({ diagnosis, before, lastedMs }) => [diagnosis?.fault, before, lastedMs]),
      [
        ['tunnel-blocked', undefined, 0],
        ['peer-unreachable', 'tunnel-blocked', 30_000],
        [undefined, 'peer-unreachable', 40_000],
      ],
    );
  });

  it('is no end of a fault that is only not known any more', () => {
    const faults = log();
    const narrow = evidence('yes', { full: 'no' });
    faults.look(targetOf(1), narrow, 0);
    // In a large cluster a peer is not looked at all the time.
    faults.look(targetOf(1), evidence('unknown'), 1_000);
    faults.look(targetOf(1), evidence('yes'), 2_000);
    faults.look(targetOf(1), narrow, 3_000);
    assert.equal(told.length, 1);
    faults.look(targetOf(1), evidence('yes', { full: 'yes' }), 4_000);
    assert.deepEqual([told.length, told[1]?.before], [2, 'mtu-blackhole']);
  });

  it('is that a peer with a fault is not probed any more, and nothing of others', () => {
    const faults = log();
    faults.look(targetOf(1), evidence('no'), 0);
    faults.look(targetOf(2), evidence('yes'), 0);
    for (const peer of [1, 2, 3]) faults.gone(targetOf(peer).id, 5_000);
    assert.deepEqual(
      told.map(({ target, isProbed }) => [target.id, isProbed]),
      [
        ['10.244.1.0/24', true],
        ['10.244.1.0/24', false],
      ],
    );
  });

  it('is no flood, of one peer or of all, and in the end what is so', () => {
    const faults = log();
    const targets = Array.from({ length: 128 }, (_, index) => targetOf(index + 1));
    const flap = (peers: number, fromMs: number, forMs: number) => {
      const [broken, well] = [evidence('no'), evidence('yes')];
      for (let nowMs = fromMs; nowMs < fromMs + forMs; nowMs += 1_000)
        for (const target of targets.slice(0, peers)) faults.look(target, nowMs % 2_000 === 0 ? broken : well, nowMs);
    };
    flap(1, 0, 30_000);
    assert.equal(told.length, 10);
    assert.equal(hints, 20, 'of each of the others there is a hint');
    assert.deepEqual(
      told.map(({ isOften }) => isOften),
      [...Array.from({ length: 9 }, () => false), true],
    );
    // Its last change was to well; it is broken now, and stays so.
    for (let nowMs = 30_000; nowMs < 200_000; nowMs += 1_000) faults.look(targetOf(1), evidence('no'), nowMs);
    assert.equal(hints, 21, 'once, however often it is looked at until it is told');
    assert.deepEqual([told.length, told.at(-1)?.diagnosis?.fault], [11, 'tunnel-blocked']);
    flap(128, 200_000, 3_600_000);
    assert.ok(told.length > 300 && told.length < 256 + 400, `${told.length} in an hour`);
  });
});
