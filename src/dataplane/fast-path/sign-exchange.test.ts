import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address } from '../../../test/fakes/packets.ts';
import type { IpAddr } from '../../ip/address.ts';
import { ipv4Of } from '../../ip/ipv4.ts';
import { parseIpv6 } from '../../ip/ipv6.ts';
import { decodeSign, encodeSign, SIGN_PAYLOAD_BYTES, type Sign } from './sign.ts';
import { type Grant, SignExchange } from './sign-exchange.ts';

const SECOND = 1_000_000_000n;
const [A, B, STRANGER] = ['192.0.2.1', '192.0.2.2', '192.0.2.9'].map((text) => ipv4Of(address(text))) as [
  IpAddr,
  IpAddr,
  IpAddr,
];

const [A6, B6] = ['fd77::1', 'fd77::2'].map((text) => parseIpv6(text)!) as [IpAddr, IpAddr];

type Checksum = 'checksum' | 'no-checksum';

/** Hosts whose sockets are a list: what is sent waits until it is carried, or is lost. */
class Net {
  now = 100n * SECOND;
  readonly #waiting: {
    readonly from: IpAddr;
    readonly to: IpAddr;
    readonly payload: Uint8Array;
    readonly checksum: Checksum;
  }[] = [];
  readonly hosts = new Map<IpAddr, Host>();
  /** Whether a datagram reaches the socket it is for; by rule of either host. */
  passes: (from: IpAddr, to: IpAddr, checksum: Checksum) => boolean = () => true;
  sent = 0;

  host(own: IpAddr, segmentation: 'host' | 'beyond' = 'beyond', carriesIpv6 = true): Host {
    const host = new Host(this, own, segmentation, carriesIpv6);
    this.hosts.set(own, host);
    return host;
  }

  send(from: IpAddr, to: IpAddr, packet: Uint8Array, checksum: Checksum = 'checksum'): void {
    this.sent++;
    this.#waiting.push({ from, to, payload: packet.slice(-SIGN_PAYLOAD_BYTES), checksum });
  }

  /** Until nobody has anything to say. Returns how many got through. */
  carry(): number {
    let carried = 0;
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (!this.passes(next.from, next.to, next.checksum)) continue;
      this.hosts.get(next.to)?.exchange.take({ type: 'sign', address: next.from, payload: next.payload });
      assert.ok(++carried < 1_000, 'they do not come to an end');
      this.now += 10_000_000n;
    }
    return carried;
  }
}

class Host {
  readonly exchange: SignExchange;
  readonly grants = new Map<IpAddr, Grant>();
  readonly #net: Net;
  arrivedAt = 0n;
  arrivedAt6 = 0n;
  maySend = true;
  knowsNobody = false;
  hasWayBack = true;
  hasPrograms = true;
  takesCut = false;

  constructor(net: Net, own: IpAddr, segmentation: 'host' | 'beyond', carriesIpv6: boolean) {
    this.#net = net;
    let seed = Number(BigInt.asUintN(32, BigInt(own)));
    this.exchange = new SignExchange({
      now: () => net.now,
      randomBytes: (count) =>
        Uint8Array.from({ length: count }, () => (seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0) >>> 24),
      ownAddress: own,
      segmentation,
      carriesIpv6,
      send: (to, packet, checksum) => {
        if (this.maySend) net.send(own, to, packet, checksum);
        return this.maySend;
      },
      grant: (peer, grant) => this.grants.set(peer, grant),
      isPeer: (peer) => peer !== STRANGER && !this.knowsNobody,
      observed: () => ({
        arrivedAt: this.arrivedAt,
        arrivedAt6: this.arrivedAt6,
        wayBackUntil: this.hasWayBack ? net.now : 0n,
      }),
      hasPrograms: () => this.hasPrograms,
      takesCut: () => this.takesCut,
    });
  }

  sends6To(peer: IpAddr): boolean {
    return (this.grants.get(peer)?.sendUntil6 ?? 0n) > this.#net.now;
  }

  sends6Whole(peer: IpAddr): boolean {
    return (this.grants.get(peer)?.wholeUntil6 ?? 0n) > this.#net.now;
  }

  sendsCut(peer: IpAddr): boolean {
    return (this.grants.get(peer)?.takesCutUntil ?? 0n) > this.#net.now;
  }

  sendsTo(peer: IpAddr): boolean {
    return (this.grants.get(peer)?.sendUntil ?? 0n) > this.#net.now;
  }

  accepts(peer: IpAddr): boolean {
    return (this.grants.get(peer)?.acceptUntil ?? 0n) > this.#net.now;
  }

  sendsWhole(peer: IpAddr): boolean {
    return (this.grants.get(peer)?.wholeUntil ?? 0n) > this.#net.now;
  }
}

/** What a forger sends, who does not see what the hosts say to each other. */
const forged = (sign: Partial<Sign>): Uint8Array =>
  encodeSign(
    {
      ...{ nonce: 0n, echo: 0n, takes: true, arrives: true, takes6: true, arrives6: true, takesCut: true },
      ...{ alone: false, tag: 1, tagWhole: 2, ...sign },
    },
    A,
    B,
  ).slice(-SIGN_PAYLOAD_BYTES);

describe('the exchange of signs', () => {
  it('lets both send and accept after one packet by the socket, with the tags that the other wants', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    a.exchange.take({ type: 'sent', address: B });
    assert.equal(a.sendsTo(B), false);
    net.carry();
    for (const [own, one, peer, other] of [
      [A, a, B, b],
      [B, b, A, a],
    ] as const) {
      assert.ok(one.sendsTo(peer) && one.accepts(peer), `${own}`);
      assert.equal(one.sendsWhole(peer), false);
      const [said, seen] = [one.grants.get(peer)!, other.grants.get(own)!];
      assert.deepEqual([said.tag, said.tagWhole], [seen.expectTag, seen.expectTagWhole]);
      assert.ok(Math.abs(said.tag - said.tagWhole) >= 1_024);
    }
    assert.ok(net.sent <= 4, `${net.sent} datagrams`);
  });

  it('goes on from what was granted when an earlier agent ended, with its tags', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    b.arrivedAt = net.now;
    b.takesCut = true;
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    const before = a.grants.get(B)!;
    net.now += 600n * SECOND;
    const next = net.host(A);
    next.exchange.resume(B, before);
    assert.ok(next.sendsTo(B) && next.accepts(B) && next.sendsWhole(B) && next.sendsCut(B));
    const { tag, tagWhole, expectTag, expectTagWhole } = next.grants.get(B)!;
    assert.deepEqual([tag, tagWhole], [before.tag, before.tagWhole]);
    assert.deepEqual([expectTag, expectTagWhole], [before.expectTag, before.expectTagWhole]);
    next.exchange.tick();
    assert.ok(net.carry() >= 2, 'a question at once, and its answer');
    net.passes = () => false;
    for (let tenth = 0; tenth < 100; tenth++) {
      net.now += SECOND / 10n;
      next.exchange.tick();
    }
    assert.ok(
      !(next.sendsTo(B) || next.accepts(B) || next.sendsWhole(B) || next.sendsCut(B)),
      'and then by what is heard',
    );
  });

  it('names a peer whose program has answered by itself for as long as is asked for', () => {
    const net = new Net();
    const a = net.host(A);
    let alone = true;
    const take = ({ payload }: { payload: Uint8Array }): void => {
      const { nonce: echo, tag, tagWhole } = decodeSign(payload)!;
      const status = { takes: true, arrives: true, takes6: true, arrives6: true, takesCut: false };
      net.send(B, A, encodeSign({ nonce: 0n, echo, ...status, alone, tag, tagWhole }, B, A));
    };
    net.hosts.set(B, { exchange: { take } } as unknown as Host);
    const talkFor = (seconds: number): void => {
      for (const end = net.now + BigInt(seconds) * SECOND; net.now < end; net.now += SECOND / 4n) {
        a.exchange.renew(B);
        net.carry();
      }
    };
    talkFor(30);
    assert.ok(a.sendsTo(B) && a.sendsWhole(B));
    assert.deepEqual(a.exchange.aloneFor(60n * SECOND), []);
    talkFor(40);
    assert.deepEqual(a.exchange.aloneFor(60n * SECOND), [B]);
    alone = false;
    talkFor(2);
    assert.deepEqual(a.exchange.aloneFor(0n), []);
  });

  it('takes nothing from an earlier agent that did not hold any more', () => {
    const net = new Net();
    const a = net.host(A);
    a.exchange.resume(B, {
      ...{ sendUntil6: 0n, wholeUntil6: 9n, takesCutUntil: 9n },
      ...{ sendUntil: 0n, acceptUntil: 0n, wholeUntil: 9n, tag: 1, tagWhole: 2, expectTag: 3, expectTagWhole: 4 },
    });
    assert.ok(!(a.sendsTo(B) || a.accepts(B) || a.sendsWhole(B) || a.sendsCut(B)));
  });

  it('lets out what is cut on the way to a peer that takes it before its kernel joins packets, for as long as that says so', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    b.takesCut = true;
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    assert.ok(a.sendsCut(B) && !b.sendsCut(A));
    b.takesCut = false;
    net.now += 2n * SECOND;
    a.exchange.renew(B);
    net.carry();
    assert.ok(a.sendsTo(B) && !a.sendsCut(B));
  });

  it('lets nothing out whole from where this host cuts super-packets', () => {
    const net = new Net();
    const [a, b] = [net.host(A, 'host'), net.host(B)];
    b.takesCut = true;
    a.exchange.take({ type: 'sent', address: B });
    a.exchange.renew(B);
    net.carry();
    assert.ok(a.sendsTo(B) && !a.sendsCut(B));
  });

  it('lets IPv6 packets out to a peer whose program takes them, and to no other', () => {
    for (const carriesIpv6 of [true, false]) {
      const net = new Net();
      const [a, b] = [net.host(A), net.host(B, 'beyond', carriesIpv6)];
      a.exchange.take({ type: 'sent', address: B });
      net.carry();
      assert.ok(a.sendsTo(B) && b.sendsTo(A) && b.sends6To(A));
      assert.equal(a.sends6To(B), carriesIpv6);
      a.exchange.end();
      assert.ok(!(a.sendsTo(B) || a.sends6To(B)));
    }
  });

  it('lets them out to any peer where this host cuts super-packets, as soon as the socket may send', () => {
    const net = new Net();
    const a = net.host(A, 'host');
    assert.ok(!a.sends6To(B));
    a.exchange.take({ type: 'sent', address: B });
    assert.ok(a.sends6To(B));
    a.maySend = false;
    net.now += 5n * SECOND;
    a.exchange.renew(B);
    assert.ok(!a.sends6To(B));
  });

  it('says of each family whether super-packets arrive', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    b.arrivedAt6 = net.now;
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    assert.deepEqual([a.sendsWhole(B), a.sends6Whole(B)], [false, true]);
    b.arrivedAt = net.now;
    b.arrivedAt6 = 0n;
    net.now += 2n * SECOND;
    a.exchange.renew(B);
    net.carry();
    net.now += 2n * SECOND;
    assert.deepEqual([a.sendsWhole(B), a.sends6Whole(B)], [true, false]);
  });

  it('says whether super-packets arrive', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    b.arrivedAt = net.now;
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    assert.deepEqual([a.sendsWhole(B), b.sendsWhole(A)], [true, false]);
  });

  it('invites nobody to whom the way back leads elsewhere', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    b.hasWayBack = false;
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    assert.deepEqual([a.sendsTo(B), b.sendsTo(A)], [false, true]);
  });

  it('accepts for longer than the other sends, whatever is lost when', () => {
    for (let lostFrom = 0; lostFrom < 12; lostFrom++) {
      const net = new Net();
      const [a, b] = [net.host(A), net.host(B)];
      let count = 0;
      net.passes = () => count++ < lostFrom;
      for (let tenth = 0; tenth < 200; tenth++) {
        net.now += SECOND / 10n;
        a.exchange.renew(B);
        b.exchange.renew(A);
        net.carry();
        if (a.sendsTo(B)) assert.ok(b.accepts(A), `${lostFrom}: after ${tenth}`);
        if (b.sendsTo(A)) assert.ok(a.accepts(B), `${lostFrom}: after ${tenth}`);
      }
      assert.deepEqual([a.sendsTo(B), b.sendsTo(A), a.accepts(B), b.accepts(A)], [false, false, false, false]);
    }
  });

  it('holds as long as it is in use, and a question every two seconds is enough', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    const before = net.sent;
    for (let half = 0; half < 60; half++) {
      net.now += SECOND / 2n;
      for (const [host, peer] of [
        [a, B],
        [b, A],
      ] as const) {
        host.exchange.renew(peer);
        net.carry();
      }
      assert.ok(a.sendsTo(B) && b.accepts(A) && b.sendsTo(A) && a.accepts(B));
    }
    // A question, its answer with one of the other's own, and the answer to that.
    const most = 3 * 15 + 3;
    assert.ok(net.sent - before <= most, `${net.sent - before} datagrams in half a minute`);
  });

  it('stays for half a minute after the last packet, and no longer', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    for (let quarter = 0; quarter < 4 * 40; quarter++) {
      net.now += SECOND / 4n;
      for (const host of [a, b]) host.exchange.tick();
      net.carry();
      if (quarter < 4 * 28) assert.ok(a.sendsTo(B), `${quarter / 4} s`);
    }
    assert.deepEqual([a.sendsTo(B), b.sendsTo(A)], [false, false]);
  });

  for (const [what, passes] of [
    ['what comes to one of them', (_: IpAddr, to: IpAddr) => to !== A],
    ['what leaves one of them', (from: IpAddr) => from !== A],
  ] as const) {
    it(`a rule against ${what} closes it for both, in both directions`, () => {
      const net = new Net();
      const [a, b] = [net.host(A), net.host(B)];
      a.exchange.take({ type: 'sent', address: B });
      net.carry();
      net.passes = passes;
      for (let tenth = 0; tenth < 60; tenth++) {
        net.now += SECOND / 10n;
        a.exchange.renew(B);
        b.exchange.renew(A);
        net.carry();
      }
      assert.deepEqual([a.sendsTo(B), b.sendsTo(A)], [false, false]);
      net.passes = () => true;
      net.now += 60n * SECOND;
      b.exchange.take({ type: 'sent', address: A });
      net.carry();
      assert.deepEqual([a.sendsTo(B), b.sendsTo(A)], [true, true]);
    });
  }

  it('ends at once when the socket may not send', () => {
    const net = new Net();
    const a = net.host(A);
    net.host(B);
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    net.now += 2n * SECOND;
    a.maySend = false;
    a.exchange.renew(B);
    assert.equal(a.sendsTo(B), false);
  });

  it('ends at once when the other says farewell', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    b.exchange.end();
    net.carry();
    assert.deepEqual([a.sendsTo(B), b.sendsTo(A), b.accepts(A)], [false, false, false]);
  });

  it('believes nobody who does not know its number', () => {
    const net = new Net();
    const a = net.host(A);
    a.exchange.take({ type: 'sent', address: B });
    for (let guess = 0n; guess < 1_000n; guess++) {
      a.exchange.take({ type: 'sign', address: B, payload: forged({ echo: guess, nonce: guess }) });
      net.now += 1_000_000n;
    }
    assert.deepEqual([a.sendsTo(B), a.sendsWhole(B)], [false, false]);
    assert.equal(a.grants.get(B)?.tag, 0);
    assert.ok(net.sent < 250, `${net.sent} answers`);
  });

  it('knows no strangers, and understands no other version', () => {
    const net = new Net();
    const a = net.host(A);
    a.exchange.take({ type: 'sign', address: STRANGER, payload: forged({ nonce: 5n }) });
    a.exchange.take({ type: 'sign', address: B, payload: new Uint8Array(SIGN_PAYLOAD_BYTES) });
    assert.deepEqual([net.sent, a.grants.has(STRANGER)], [0, false]);
  });

  it('asks a host that never answers, as flannel’s, ever more seldom', () => {
    const net = new Net();
    const a = net.host(A);
    for (let second = 0; second < 600; second++) {
      net.now += SECOND;
      a.exchange.take({ type: 'sent', address: B });
    }
    assert.ok(net.sent >= 8 && net.sent < 25, `${net.sent} in ten minutes`);
  });

  it('where the host cuts super-packets, goes by what the socket sends and receives, asks nobody and takes nothing', () => {
    const net = new Net();
    const [a, b] = [net.host(A, 'host'), net.host(B)];
    a.exchange.take({ type: 'sent', address: B });
    a.exchange.take({ type: 'received', address: B });
    assert.ok(a.sendsTo(B) && a.accepts(B));
    assert.equal(net.sent, 0);
    b.exchange.take({ type: 'sent', address: A });
    net.carry();
    assert.equal(b.sendsTo(A), false);
    net.now += 6n * SECOND;
    assert.deepEqual([a.sendsTo(B), a.accepts(B)], [true, false]);
  });

  it('makes itself known to a peer before anything is sent to it: asks until it is answered, and is accepted by then', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    net.passes = () => false;
    assert.equal(a.exchange.introduce(B), false);
    net.carry();
    assert.deepEqual([a.exchange.introduce(B), net.sent], [false, 1]);
    net.passes = () => true;
    net.now += SECOND / 4n;
    assert.deepEqual([a.exchange.introduce(B), net.sent], [false, 2]);
    net.carry();
    assert.equal(a.exchange.introduce(B), true);
    assert.ok(a.sendsTo(B) && a.accepts(B) && b.accepts(A));
    assert.equal(a.exchange.introduce(STRANGER), true, 'no peer any more');
  });

  it('… and answers nobody before its programs are there', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    a.hasPrograms = false;
    b.exchange.take({ type: 'sent', address: A });
    assert.equal(net.carry(), 1);
    assert.deepEqual([b.sendsTo(A), a.accepts(B)], [false, true]);
    a.hasPrograms = true;
    net.now += SECOND;
    b.exchange.renew(A);
    net.carry();
    assert.ok(b.sendsTo(A));
  });

  it('… and tries whether one may leave when none has for long, as soon as the peer is sent to', () => {
    const net = new Net();
    const a = net.host(A, 'host');
    const sent = (): number => {
      a.exchange.renew(B);
      return net.sent;
    };
    a.exchange.take({ type: 'sent', address: B });
    net.now += SECOND;
    assert.equal(sent(), 0);
    net.now += 60n * SECOND;
    assert.ok(a.sendsTo(B));
    assert.deepEqual([sent(), sent()], [1, 1]);
    net.now += 3n * SECOND;
    a.maySend = false;
    assert.equal(sent(), 1);
    assert.equal(a.sendsTo(B), false);
  });

  it('… so often that the peer goes on accepting, though a datagram is lost: no packet need go by the socket', () => {
    const net = new Net();
    const [a, b] = [net.host(A, 'host'), net.host(B, 'host')];
    a.exchange.take({ type: 'sent', address: B });
    b.exchange.take({ type: 'received', address: A });
    let isLost = false;
    net.passes = () => (isLost = !isLost);
    // The program names a peer that is sent to once a second, and the agent looks twice a second.
    for (let turn = 0; turn < 40; turn++) {
      net.now += turn % 2 === 0 ? SECOND : (3n * SECOND) / 2n;
      a.exchange.renew(B);
      net.carry();
      assert.ok(a.sendsTo(B) && b.accepts(A), `turn ${turn}`);
    }
  });

  for (const segmentation of ['beyond', 'host'] as const) {
    describe(`between hosts that have IPv6 alone (segmentation ${segmentation})`, () => {
      it('lets both send after an answer, and not before', () => {
        const net = new Net();
        const [a, b] = [net.host(A6, segmentation), net.host(B6, segmentation)];
        a.exchange.take({ type: 'sent', address: B6 });
        assert.deepEqual([a.sendsTo(B6), a.sends6To(B6)], [false, false]);
        net.carry();
        for (const [one, peer] of [
          [a, B6],
          [b, A6],
        ] as const) {
          assert.deepEqual([one.sendsTo(peer), one.sends6To(peer), one.accepts(peer)], [true, true, true]);
          assert.equal(one.sendsWhole(peer), false);
        }
        net.now += 5n * SECOND;
        assert.equal(a.sends6To(B6), false, 'nobody has asked again');
        a.exchange.renew(B6);
        net.carry();
        assert.equal(a.sends6To(B6), true);
      });

      it('sends nothing where datagrams without a checksum do not come through, and the other way does not care', () => {
        const net = new Net();
        const [a, b] = [net.host(A6, segmentation), net.host(B6, segmentation)];
        let isBlocked = true;
        net.passes = (from, _to, checksum) => !(isBlocked && from === A6 && checksum === 'no-checksum');
        for (let quarter = 0; quarter < 40; quarter++) {
          net.now += SECOND / 4n;
          for (const [host, peer] of [
            [a, B6],
            [b, A6],
          ] as const) {
            host.exchange.take({ type: 'sent', address: peer });
          }
          net.carry();
        }
        assert.deepEqual([a.sendsTo(B6), a.sends6To(B6), b.sends6To(A6)], [false, false, true]);
        isBlocked = false;
        net.now += 60n * SECOND;
        a.exchange.renew(B6);
        net.carry();
        assert.equal(a.sends6To(B6), true);
        isBlocked = true;
        net.now += 5n * SECOND;
        a.exchange.renew(B6);
        net.carry();
        assert.equal(a.sends6To(B6), false);
      });

      it('goes on from what was granted when an earlier agent ended', () => {
        const net = new Net();
        const [a] = [net.host(A6, segmentation), net.host(B6, segmentation)];
        a.exchange.take({ type: 'sent', address: B6 });
        net.carry();
        const next = net.host(A6, segmentation);
        next.exchange.resume(B6, a.grants.get(B6)!);
        assert.equal(next.sends6To(B6), true);
        net.now += 5n * SECOND;
        assert.equal(next.sends6To(B6), false, 'and then by what is answered');
      });
    });
  }

  it('over IPv4 sends by the socket alone', () => {
    const net = new Net();
    const [a, b] = [net.host(A), net.host(B)];
    net.passes = (_from, _to, checksum) => checksum === 'checksum';
    a.exchange.take({ type: 'sent', address: B });
    net.carry();
    assert.ok(a.sendsTo(B) && b.sendsTo(A));
  });

  it('forgets who is no peer any more: one that comes back has other tags', () => {
    const net = new Net();
    const a = net.host(A);
    const tags = (): number[] => {
      a.exchange.take({ type: 'received', address: B });
      const { expectTag, expectTagWhole } = a.grants.get(B)!;
      return [expectTag, expectTagWhole];
    };
    const before = tags();
    a.exchange.tick();
    assert.deepEqual(tags(), before);
    a.knowsNobody = true;
    a.exchange.tick();
    a.knowsNobody = false;
    assert.notDeepEqual(tags(), before);
  });
});
