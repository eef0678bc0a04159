import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import {
  DISTRUST_UNTIL,
  ENDPOINT_VALUE_BYTES,
  LONG_WAY_UNTIL,
  NEXT_TO_SOCKET,
  UNHEARD_SINCE_6,
  WAY_BACK_UNTIL,
  WHOLE_UNTIL_6,
} from '../../src/dataplane/fast-path/layout.ts';
import { decodeSign, encodeSign, SIGN_PAYLOAD_BYTES } from '../../src/dataplane/fast-path/sign.ts';
import { type Ipv6Addr, parseIpv6 } from '../../src/ip/ipv6.ts';
import { parsePrefix6 } from '../../src/ip/prefix.ts';
import type { BpfProgram } from '../../src/linux/bpf.ts';
import { SOL_UDP, UDP_NO_CHECK6_RX } from '../../src/linux/constants.ts';
import { adoptUdpSocket, getIntOption, openUdpSocket, setIntOption } from '../../src/linux/udp-socket.ts';
import { ACK, concat, payloadOf, tcpPacket } from '../fakes/packets.ts';
import {
  address6,
  fragmentHeader,
  icmp6Packet,
  ipv6Packet,
  optionsHeader,
  tcp6Packet,
  udp6Packet,
} from '../fakes/packets6.ts';
import {
  ETHERNET_6,
  MARK,
  NEXT,
  OWN_6,
  openProgramBench,
  PORT,
  type ProgramBench,
  QUESTION,
  REDIRECTED,
  runProgram,
  TAG,
  TAG_WHOLE,
  XDP_PASSED,
} from '../fuzz/program-bench.ts';

const OWN = 'fd00:77::1';
const PEER = 'fd00:77::2';
/** Nothing has come from it by the socket. */
const UNHEARD = 'fd00:77::9';
/** The way back to it leads through another device, or is none. */
const ELSEWHERE = ['fd00:88::8', OWN, '::1', 'fe80::2'];
/** The kernel does not know its MAC address. */
const UNRESOLVED = 'fd00:77::7';
const host = (text: string): Ipv6Addr => parseIpv6(text)!;
const SECOND = 1_000_000_000n;
const FOREVER = 1n << 62n;
const PORTS = { sourcePort: 1, destinationPort: 2 };
const ip = { source: address6('fd00:244:0:2::9'), destination: address6('fd00:244:86dd:1::2') };

interface Outer {
  readonly source?: string;
  readonly destination?: string;
  readonly flowLabel?: number;
  readonly hopLimit?: number;
  readonly port?: number;
  readonly withoutChecksum?: boolean;
  readonly extension?: readonly [number, Uint8Array];
}

function datagram(inner: Uint8Array, outer: Outer = {}): Uint8Array {
  const { source = PEER, destination = OWN, flowLabel = TAG, hopLimit = 64, port = PORT, extension } = outer;
  const packet = udp6Packet({
    ip: {
      ...{ source: address6(source), destination: address6(destination), flowLabel, hopLimit },
      ...(extension === undefined ? {} : { extensions: [extension] }),
    },
    ...{ sourcePort: PORT, destinationPort: port, withoutChecksum: outer.withoutChecksum ?? true, payload: inner },
  });
  return concat(ETHERNET_6, packet);
}

const tcp6 = (source = ip.source, bytes = 100): Uint8Array =>
  tcp6Packet({ ip: { ...ip, source }, ...PORTS, payload: payloadOf(bytes) });

function aged6(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  copy[7]!--;
  return copy;
}

function changed(packet: Uint8Array, at: number, value: number): Uint8Array {
  const copy = packet.slice();
  copy[at] = value;
  return copy;
}

describe('the socket where hosts have IPv6 alone', () => {
  it('takes datagrams without a checksum, also when an agent that knew of none has opened it', async () => {
    await using _bench = await openProgramBench([], 6);
    using socket = openUdpSocket({ address: OWN_6, port: 0, bufferBytes: 65_536 });
    const takes = (): number => getIntOption(socket.fd, SOL_UDP, UDP_NO_CHECK6_RX);
    assert.equal(takes(), 1);
    setIntOption(socket.fd, SOL_UDP, UDP_NO_CHECK6_RX, 0);
    assert.equal(takes(), 0);
    assert.equal(adoptUdpSocket(socket.fd)?.address, OWN_6);
    assert.equal(takes(), 1);
  });
});

describe('the programs where hosts have IPv6 alone', () => {
  let bench: ProgramBench;
  let program: BpfProgram;

  before(async () => {
    bench = await openProgramBench([PEER], 6);
    program = bench.programs.beyond;
    const peers = [PEER, UNHEARD, ...ELSEWHERE, UNRESOLVED].map((publicIpv6, index) => ({
      ...{ slot: index + 1, publicAddresses: { ipv4: undefined, ipv6: host(publicIpv6) }, port: PORT },
      subnets: { ipv4: undefined, ipv6: parsePrefix6(`fd00:244:0:${index + 2}::/64`)! },
    }));
    const ipv6 = { network: parsePrefix6('fd00:244::/32')!, own: parsePrefix6('fd00:244:86dd:1::/64')! };
    bench.tables.publish({ ipv4: undefined, ipv6, mtu: 1_452, peers });
    for (const each of [PEER, ...ELSEWHERE, UNRESOLVED]) bench.grant(host(each));
  });
  after(() => bench?.[Symbol.asyncDispose]());

  const knownOf = (peer: string): DataView => {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    bench.tables.maps.endpoints.lookup(address6(peer), new Uint8Array(value.buffer));
    return value;
  };
  const know = (peer: string, ...fields: readonly (readonly [number, bigint])[]): void => {
    const value = new DataView(new ArrayBuffer(ENDPOINT_VALUE_BYTES));
    for (const [field, time] of fields) value.setBigUint64(field, time, true);
    bench.tables.maps.endpoints.update(address6(peer), new Uint8Array(value.buffer));
  };

  it('take the outer headers off, and make the packet one hop older', () => {
    const udp = udp6Packet({ ip, ...PORTS, payload: payloadOf(9) });
    for (const inner of [tcp6(), udp, icmp6Packet(ip, 128, 0, 1, payloadOf(56))]) {
      const before = bench.tables.read(1).rx;
      const { verdict, packet } = runProgram(program, datagram(inner));
      assert.equal(verdict, REDIRECTED);
      assert.deepEqual(packet, concat(ETHERNET_6, aged6(inner)));
      const { packets, bytes } = bench.tables.read(1).rx;
      assert.deepEqual([packets - before.packets, bytes - before.bytes], [1, inner.length]);
    }
  });

  it('take data where this host cuts super-packets, but what could overtake; bare acknowledgements always', () => {
    const segment = (bytes: number): Uint8Array =>
      datagram(tcp6Packet({ ip, ...PORTS, flags: ACK, options: new Uint8Array(12), payload: payloadOf(bytes) }));
    const verdicts = (): number[] => [0, 1].map((bytes) => runProgram(bench.programs.host, segment(bytes)).verdict);
    assert.deepEqual(verdicts(), [REDIRECTED, REDIRECTED]);
    know(PEER, [LONG_WAY_UNTIL, FOREVER]);
    assert.deepEqual(verdicts(), [REDIRECTED, NEXT]);
    know(PEER);
  });

  it('take by XDP what a socket has sent, too, if its checksums are right', () => {
    const good = datagram(tcp6(), { withoutChecksum: false });
    know(PEER, [NEXT_TO_SOCKET, FOREVER]);
    const { verdict, packet } = runProgram(bench.xdp.beyond, good);
    assert.equal(verdict, XDP_PASSED);
    assert.deepEqual(packet, concat(MARK, ETHERNET_6, aged6(tcp6())));
    for (const at of [14 + 46, good.length - 1]) {
      const wrong = changed(good, at, good[at]! ^ 0x55);
      assert.deepEqual(runProgram(bench.xdp.beyond, wrong).packet, wrong);
    }
  });

  for (const [what, packet] of [
    ['another peer’s container', () => datagram(tcp6(address6('fd00:244:0:3::9')))],
    ['a container of the receiver', () => datagram(tcp6(address6('fd00:244:86dd:1::9')))],
    ['the right container, but another host', () => datagram(tcp6(), { source: 'fd00:77::3' })],
    ['a host that the socket has not heard', () => datagram(tcp6(address6('fd00:244:0:3::9')), { source: UNHEARD })],
    ...ELSEWHERE.map(
      (source, index) =>
        [
          `a host to which no way leads back: ${source}`,
          () => datagram(tcp6(address6(`fd00:244:0:${index + 4}::9`)), { source }),
        ] as const,
    ),
    ['for another host', () => datagram(tcp6(), { destination: 'fd00:77::5' })],
    ['for another port', () => datagram(tcp6(), { port: PORT + 1 })],
    ['with a checksum: a socket has sent it', () => datagram(tcp6(), { withoutChecksum: false })],
    ['a hop limit that ends here', () => datagram(tcp6(), { hopLimit: 1 })],
    ['outer options', () => datagram(tcp6(), { extension: [60, optionsHeader()] })],
    ['an outer fragment', () => datagram(tcp6(), { extension: [44, fragmentHeader(0, false)] })],
    ['another outer protocol', () => changed(datagram(tcp6()), 14 + 6, 136)],
    ['an outer length that is too long', () => changed(datagram(tcp6()), 14 + 5, 0xff)],
    ['a UDP length that is too long', () => changed(datagram(tcp6()), 14 + 45, 0xff)],
    ['another outer version', () => changed(datagram(tcp6()), 14, 0x45)],
    ['a frame for another MAC address', () => changed(datagram(tcp6()), 0, 0x02)],
    [
      'inner options',
      () => datagram(ipv6Packet({ ...ip, extensions: [[60, optionsHeader()]], nextHeader: 6 }, payloadOf(40))),
    ],
    ['IPv4 inside', () => datagram(tcpPacket({ ip: { source: 0x0a01_0203, destination: 0x0a01_0204 }, ...PORTS }))],
    ['a sign', () => datagram(encodeSign(QUESTION, host(PEER), OWN_6))],
    ['half an inner header', () => datagram(tcp6().slice(0, 39))],
    ['half an outer header', () => datagram(tcp6()).slice(0, 14 + 44)],
  ] as const) {
    it(`leave to the host as it is: ${what}`, () => {
      for (const [of, program] of Object.entries({ ...bench.programs, xdp: bench.xdp.beyond })) {
        const before = packet();
        // XDP takes what sockets send; a sign is no packet of theirs.
        if (of === 'xdp' && what.startsWith('with a checksum')) continue;
        const { verdict, packet: left } = runProgram(program, before);
        assert.equal(verdict, of === 'xdp' ? XDP_PASSED : NEXT, of);
        assert.deepEqual(left, before, of);
      }
    });
  }

  it('learn from the flow label what the identification says over IPv4', () => {
    know(PEER, [UNHEARD_SINCE_6, 7n]);
    runProgram(program, datagram(tcp6(), { flowLabel: 0 }));
    assert.equal(knownOf(PEER).getBigUint64(UNHEARD_SINCE_6, true), 7n, 'that of nobody');
    assert.ok(knownOf(PEER).getBigUint64(DISTRUST_UNTIL, true) > 0n);
    know(PEER, [UNHEARD_SINCE_6, 7n]);
    runProgram(program, datagram(tcp6()));
    assert.equal(knownOf(PEER).getBigUint64(UNHEARD_SINCE_6, true), 0n);
    assert.equal(knownOf(PEER).getBigUint64(WHOLE_UNTIL_6, true), 0n);
    runProgram(program, datagram(tcp6(), { flowLabel: TAG_WHOLE }));
    assert.ok(knownOf(PEER).getBigUint64(WHOLE_UNTIL_6, true) > 0n);
  });

  for (const [segmentation, withoutChecksum] of [
    ['beyond', true],
    ['beyond', false],
    ['host', true],
    ['host', false],
  ] as const) {
    const how = withoutChecksum ? 'without a checksum' : 'with a checksum';
    it(`answer a peer’s question ${how} while this host has no agent (segmentation ${segmentation})`, () => {
      bench.tables.beat(process.hrtime.bigint() - 5n * SECOND, 0n);
      know(PEER);
      const payload = encodeSign(QUESTION, host(PEER), OWN_6);
      const { verdict, packet } = runProgram(
        bench.programs[segmentation],
        datagram(payload, { withoutChecksum, hopLimit: 61, flowLabel: 0 }),
      );
      bench.tables.beat(FOREVER, 0n);
      assert.equal(verdict, REDIRECTED);
      const takes = segmentation === 'beyond';
      const status = { takes, arrives: false, takes6: takes, arrives6: false, takesCut: takes };
      const answer = {
        ...{ nonce: 0n, echo: QUESTION.nonce, ...status, alone: true },
        ...{ tag: TAG, tagWhole: TAG_WHOLE },
      };
      assert.deepEqual(decodeSign(packet.subarray(-SIGN_PAYLOAD_BYTES)), answer);
      const expected = datagram(encodeSign(answer, OWN_6, host(PEER)), {
        ...{ source: OWN, destination: PEER, withoutChecksum, flowLabel: 0 },
      });
      assert.deepEqual(packet.subarray(14), expected.subarray(14));
    });
  }

  it('note the way back to a peer whose question they leave to the socket, so that the agent may invite it', () => {
    know(PEER);
    const question = datagram(encodeSign(QUESTION, host(PEER), OWN_6));
    assert.equal(runProgram(program, question).verdict, NEXT);
    assert.ok(knownOf(PEER).getBigUint64(WAY_BACK_UNTIL, true) > 0n);
  });

  it('send nothing to a peer that is not granted, that is elsewhere, or whose neighbour entry is missing', () => {
    const to = (destination: string): Uint8Array =>
      tcp6Packet({
        ip: { source: ip.destination, destination: address6(destination) },
        ...{ ...PORTS, payload: payloadOf(9) },
      });
    const sent = (destination: string): boolean => {
      for (const peer of [PEER, ...ELSEWHERE, UNRESOLVED]) know(peer);
      const packet = to(destination);
      const outcomes = Object.values(bench.outbound).map((program) => runProgram(program, packet));
      for (const { verdict, packet: left } of outcomes) if (verdict === NEXT) assert.deepEqual(left, packet);
      return outcomes.every(({ verdict }) => verdict === REDIRECTED);
    };
    assert.equal(sent('fd00:244:0:2::9'), true);
    assert.equal(sent('fd00:244:0:3::9'), false, 'not granted');
    for (const [index, what] of [...ELSEWHERE, UNRESOLVED].entries()) {
      assert.equal(sent(`fd00:244:0:${index + 4}::9`), false, what);
    }
  });
});
