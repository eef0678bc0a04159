import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { FastPathTables } from '../../src/dataplane/fast-path/fast-path-tables.ts';
import { inboundProgram } from '../../src/dataplane/fast-path/inbound-program.ts';
import { MARK_FAST, MARK_WHOLE } from '../../src/dataplane/fast-path/skb-program.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { prefix4 } from '../../src/ip/prefix.ts';
import { type BpfProgram, createBpfMap, loadClassifier } from '../../src/linux/bpf.ts';
import { bpf, addressOf as memoryAddress } from '../../src/linux/ffi.ts';
import { ACK, address, aged, concat, ECE, FIN, payloadOf, SYN, tcpPacket, udpPacket } from '../fakes/packets.ts';

/** linux/bpf.h: BPF_PROG_TEST_RUN, which runs a program on a packet of ours and sends nothing. */
const PROG_TEST_RUN = 10;
const ATTRIBUTE_BYTES = 72;
const ROOM = 4_096;
/** What a program returns: TCX_NEXT as an unsigned number, TCX_REDIRECT, TCX_DROP. */
const NEXT = 0xffff_ffff;
const REDIRECTED = 7;
const DROPPED = 2;

const OWN = ipv4Of(address('192.168.77.1'));
const PORT = 8285;
const PEERS = [
  { slot: 1, subnet: '10.244.2.0', publicIp: '192.168.77.2' },
  { slot: 2, subnet: '10.244.3.0', publicIp: '192.168.77.3' },
].map(({ slot, subnet, publicIp }) => ({
  slot,
  subnet: prefix4(ipv4Of(address(subnet)), 24),
  publicIp: ipv4Of(address(publicIp)),
  port: PORT,
}));
const LOOPBACK = 1;
const PORTS = { sourcePort: 1, destinationPort: 2 };
const ETHERNET = Uint8Array.from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);

interface Outcome {
  readonly verdict: number;
  readonly packet: Uint8Array;
}

function runProgram(program: BpfProgram, packet: Uint8Array): Outcome {
  const input = new Uint8Array(new SharedArrayBuffer(packet.length));
  input.set(packet);
  const output = new Uint8Array(new SharedArrayBuffer(ROOM));
  const attributes = new DataView(new SharedArrayBuffer(ATTRIBUTE_BYTES));
  attributes.setUint32(0, program.fd, true);
  attributes.setUint32(8, input.length, true);
  attributes.setUint32(12, output.length, true);
  attributes.setBigUint64(16, BigInt(memoryAddress(input)), true);
  attributes.setBigUint64(24, BigInt(memoryAddress(output)), true);
  attributes.setUint32(32, 1, true);
  const result = bpf(PROG_TEST_RUN, memoryAddress(attributes), ATTRIBUTE_BYTES);
  assert.equal(result, 0, `BPF_PROG_TEST_RUN: ${result}`);
  return { verdict: attributes.getUint32(4, true), packet: output.slice(0, attributes.getUint32(12, true)) };
}

interface Datagram {
  readonly outerSource: string;
  readonly outerDestination?: string;
  readonly mark?: number;
  readonly withoutChecksum?: boolean;
  readonly port?: number;
  readonly ttl?: number;
  readonly inner: Uint8Array;
}

function datagram({ outerSource, outerDestination, mark, withoutChecksum, port, ttl, inner }: Datagram): Uint8Array {
  const outer = udpPacket({
    ip: {
      source: address(outerSource),
      destination: outerDestination === undefined ? OWN : address(outerDestination),
      id: mark ?? MARK_FAST,
      dontFragment: true,
      ttl: ttl ?? 64,
    },
    sourcePort: PORT,
    destinationPort: port ?? PORT,
    withoutChecksum: withoutChecksum ?? true,
    payload: inner,
  });
  return concat(ETHERNET, outer);
}

function inner(
  source: string,
  options: { ttl?: number; options?: Uint8Array; moreFragments?: boolean } = {},
): Uint8Array {
  return tcpPacket({
    ip: { source: address(source), destination: address('10.244.1.2'), ...options },
    sourcePort: 1,
    destinationPort: 2,
    payload: payloadOf(100),
  });
}

describe('the inbound program', () => {
  let tables: FastPathTables;
  let program: BpfProgram;
  let acknowledgements: BpfProgram;

  before(() => {
    const map = (kind: 'hash' | 'lpm-trie', name: string, keyBytes: number, valueBytes: number) =>
      createBpfMap({ kind, name, keyBytes, valueBytes, maxEntries: 16 });
    tables = new FastPathTables({
      subnets: map('lpm-trie', 'test_subnets', 8, 12),
      endpoints: map('hash', 'test_endpoints', 4, 56),
      counters: map('hash', 'test_counters', 4, 32),
      awaiting: map('hash', 'test_awaiting', 4, 4),
    });
    tables.publish({
      network: prefix4(ipv4Of(address('10.244.0.0')), 16),
      own: prefix4(ipv4Of(address('10.244.1.0')), 24),
      mtu: 1472,
      peers: PEERS,
    });
    const options = { maps: tables.maps, ownAddress: OWN, ownPort: PORT, tunIndex: LOOPBACK };
    program = loadClassifier('test_in', inboundProgram({ ...options, segmentation: 'beyond' }));
    acknowledgements = loadClassifier('test_in_acks', inboundProgram({ ...options, segmentation: 'host' }));
  });
  after(() => {
    program?.[Symbol.dispose]();
    acknowledgements?.[Symbol.dispose]();
    tables?.[Symbol.dispose]();
  });

  it('takes the outer headers off, and makes the packet one TTL older', () => {
    for (const [mark, source, outerSource] of [
      [MARK_FAST, '10.244.2.9', '192.168.77.2'],
      [MARK_FAST + 40, '10.244.3.1', '192.168.77.3'],
      [MARK_WHOLE, '10.244.2.0', '192.168.77.2'],
    ] as const) {
      const packet = inner(source);
      const { verdict, packet: left } = runProgram(program, datagram({ outerSource, mark, inner: packet }));
      assert.equal(verdict, REDIRECTED);
      assert.deepEqual(left, concat(ETHERNET, aged(packet, 1)));
    }
  });

  it('counts what it takes', () => {
    const before = tables.read(1).rx;
    const packet = inner('10.244.2.9');
    runProgram(program, datagram({ outerSource: '192.168.77.2', inner: packet }));
    const { packets, bytes } = tables.read(1).rx;
    assert.deepEqual([packets - before.packets, bytes - before.bytes], [1, packet.length]);
  });

  it('learns from a sign and drops it; whoever has heard nothing is due for one', () => {
    tables.takeAwaiting(9);
    const sign = datagram({ outerSource: '192.168.77.3', withoutChecksum: false, inner: new Uint8Array(20) });
    assert.equal(runProgram(program, sign).verdict, DROPPED);
    // Once a second, and it was heard a moment ago by the tests before this one, or has just been noted.
    const taken = tables.takeAwaiting(9);
    assert.ok(taken.every(({ address: of, port }) => of === PEERS[1]!.publicIp && port === PORT));
    assert.equal(runProgram(program, sign).verdict, DROPPED);
    assert.deepEqual(tables.takeAwaiting(9), []);
  });

  const peer = '192.168.77.2';
  const good = (): Uint8Array => inner('10.244.2.9');
  const padded = (packet: Uint8Array): Uint8Array => concat(packet, new Uint8Array(4));
  const with_ = (packet: Uint8Array, at: number, ...bytes: number[]): Uint8Array => {
    const copy = packet.slice();
    copy.set(bytes, at);
    return copy;
  };
  const CASES: readonly (readonly [string, () => Uint8Array])[] = [
    ['no mark', () => datagram({ outerSource: peer, mark: 0x1234, inner: good() })],
    ['a UDP checksum', () => datagram({ outerSource: peer, withoutChecksum: false, inner: good() })],
    ['an address that is no peer’s', () => datagram({ outerSource: '192.168.77.4', inner: good() })],
    ['another peer’s container', () => datagram({ outerSource: peer, inner: inner('10.244.3.9') })],
    ['a container of the receiver', () => datagram({ outerSource: peer, inner: inner('10.244.1.9') })],
    ['the peer’s own address', () => datagram({ outerSource: peer, inner: inner(peer) })],
    ['another port', () => datagram({ outerSource: peer, port: 8472, inner: good() })],
    ['another destination', () => datagram({ outerSource: peer, outerDestination: '192.168.77.9', inner: good() })],
    ['an inner TTL that ends here', () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { ttl: 1 }) })],
    [
      'inner options',
      () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { options: new Uint8Array(4) }) }),
    ],
    ['an inner fragment', () => datagram({ outerSource: peer, inner: inner('10.244.2.9', { moreFragments: true }) })],
    ['bytes behind the inner packet', () => datagram({ outerSource: peer, inner: padded(good()) })],
    ['bytes behind the outer one', () => padded(datagram({ outerSource: peer, inner: good() }))],
    ['a wrong outer header checksum', () => with_(datagram({ outerSource: peer, inner: good() }), 14 + 10, 1, 2)],
    ['a UDP length that does not fit', () => with_(datagram({ outerSource: peer, inner: good() }), 14 + 20 + 4, 0, 9)],
    ['IPv6 inside', () => datagram({ outerSource: peer, inner: with_(good(), 0, 0x60) })],
    ['no room for an inner header', () => datagram({ outerSource: peer, inner: good().slice(0, 12) })],
    ['ARP', () => with_(datagram({ outerSource: peer, inner: good() }), 12, 8, 6)],
  ];
  for (const [what, packet] of CASES) {
    it(`leaves to the forwarder: ${what}`, () => {
      const before = packet();
      const { verdict, packet: left } = runProgram(program, before);
      assert.equal(verdict, NEXT);
      assert.deepEqual(left, before);
    });
  }

  describe('where this host cuts super-packets', () => {
    const segment = (flags: number, bytes: number, options = new Uint8Array(12)): Uint8Array =>
      tcpPacket({
        ip: { source: address('10.244.2.9'), destination: address('10.244.1.2') },
        ...{ sourcePort: 1, destinationPort: 2, flags, options, payload: payloadOf(bytes) },
      });
    const received = (packet: Uint8Array, details: Partial<Datagram> = {}): Uint8Array =>
      datagram({ outerSource: peer, mark: 0, inner: packet, ...details });

    it('takes bare acknowledgements, with a mark or without', () => {
      for (const [packet, mark] of [
        [segment(ACK, 0), 0],
        [segment(ACK, 0, new Uint8Array(0)), MARK_FAST],
      ] as const) {
        const { verdict, packet: left } = runProgram(acknowledgements, received(packet, { mark }));
        assert.equal(verdict, REDIRECTED);
        assert.deepEqual(left, concat(ETHERNET, aged(packet, 1)));
      }
    });

    for (const [what, packet] of [
      ['data', () => received(segment(ACK, 1))],
      ['the end of a connection', () => received(segment(ACK | FIN, 0))],
      ['its beginning', () => received(segment(SYN, 0))],
      ['an acknowledgement with word of congestion', () => received(segment(ACK | ECE, 0))],
      ['UDP', () => received(udpPacket({ ip: { source: address('10.244.2.9'), destination: OWN }, ...PORTS }))],
      ['what has a UDP checksum', () => received(segment(ACK, 0), { withoutChecksum: false })],
      ['what a stranger sends', () => received(segment(ACK, 0), { outerSource: '192.168.77.4' })],
    ] as const) {
      it(`leaves to the forwarder: ${what}`, () => {
        const before = packet();
        const { verdict, packet: left } = runProgram(acknowledgements, before);
        assert.equal(verdict, NEXT);
        assert.deepEqual(left, before);
      });
    }
  });

  it('changes a packet only to hand over what a peer may send (property)', () => {
    const original = datagram({ outerSource: peer, inner: good() });
    const mutation = fc.record({ at: fc.nat(original.length - 1), value: fc.nat(255) });
    let taken = 0;
    fc.assert(
      fc.property(
        fc.array(mutation, { maxLength: 3 }),
        fc.integer({ min: 34, max: original.length }),
        fc.boolean(),
        (mutations, length, isCut) => {
          const packet = original.slice(0, isCut ? length : original.length);
          for (const { at, value } of mutations) if (at < packet.length) packet[at] = value;
          const { verdict, packet: left } = runProgram(program, packet);
          if (verdict === NEXT) return assert.deepEqual(left, packet);
          assert.equal(verdict, REDIRECTED);
          taken++;
          const ip = packet.slice(14);
          const view = new DataView(ip.buffer);
          assert.equal(ip.length, view.getUint16(2));
          assert.equal(view.getUint32(16), OWN);
          const owner = PEERS.find(({ publicIp }) => publicIp === view.getUint32(12));
          assert.ok(owner !== undefined && (view.getUint32(28 + 12) & 0xffffff00) >>> 0 === owner.subnet.addr);
          assert.equal(view.getUint16(26), 0);
          assert.equal(left.length, packet.length - 28);
          // All but TTL and header checksum is as it was.
          const [came, went] = [ip.slice(28), left.slice(14)];
          assert.equal(went[8], came[8]! - 1);
          for (const bytes of [came, went]) bytes.fill(0, 8, 9).fill(0, 10, 12);
          assert.deepEqual(went, came);
        },
      ),
      { numRuns: 5_000 },
    );
    assert.ok(taken > 100, `${taken} taken`);
  });
});
