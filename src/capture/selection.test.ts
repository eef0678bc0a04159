import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { WeftError } from '../errors.ts';
import { type IpAddr, parseAddr, parsePrefix } from '../ip/address.ts';
import { carriedBy, type Flow, flowOf } from './flow.ts';
import { parsePacketFilter } from './packet-filter.ts';
import { type CaptureRole, Selection, type SelectionParts } from './selection.ts';

const prefix = (text: string) => parsePrefix(text)!;
const bytesOf = (addr: IpAddr): number[] => {
  const bits = typeof addr === 'number' ? 32 : 128;
  const hex = addr.toString(16).padStart(bits / 4, '0');
  return hex.match(/../g)!.map((pair) => Number.parseInt(pair, 16));
};

/** An IP packet, so far as selection looks at it. */
function packet(from: string, to: string, protocol: number, body: readonly number[]): number[] {
  const [source, destination] = [parseAddr(from)!, parseAddr(to)!];
  if (typeof source !== 'number')
    return [
      0x60,
      0,
      0,
      0,
      body.length >> 8,
      body.length & 255,
      protocol,
      64,
      ...bytesOf(source),
      ...bytesOf(destination),
      ...body,
    ];
  const total = 20 + body.length;
  const head = [0x45, 0, total >> 8, total & 255, 0, 0, 0, 0, 64, protocol, 0, 0];
  return [...head, ...bytesOf(source), ...bytesOf(destination), ...body];
}
const udp = (from: number, to: number, body: readonly number[]): number[] => {
  const length = 8 + body.length;
  return [from >> 8, from & 255, to >> 8, to & 255, length >> 8, length & 255, 0, 0, ...body];
};
const ethernet = (ip: readonly number[]): number[] => [
  ...new Array<number>(12).fill(2),
  ...((ip[0] ?? 0) >> 4 === 4 ? [0x08, 0x00] : [0x86, 0xdd]),
  ...ip,
];
const ECHO = [8, 0, 0, 0, 0, 1, 0, 1];
const VXLAN = [8, 0, 0, 0, 0, 0, 1, 0];

const parts: SelectionParts = {
  networks: [prefix('10.244.0.0/16'), prefix('fd00::/48')],
  subnets: [prefix('10.244.1.0/24')],
  peers: [
    { name: 'b', subnets: [prefix('10.244.2.0/24'), prefix('fd00:0:0:2::/64')], addresses: [parseAddr('192.0.2.2')!] },
  ],
  tunnel: [{ protocol: 'udp', port: 8285 }],
  isDirect: false,
  isUnwrapped: false,
  filter: undefined,
};

function selected(
  options: Partial<SelectionParts>,
  role: CaptureRole,
  ip: readonly number[],
): string | false | undefined {
  const frame = Uint8Array.from(role === 'overlay' ? ip : ethernet(ip));
  const found = new Selection({ ...parts, ...options }).select(role, role === 'overlay' ? 'raw' : 'ethernet', frame);
  return found === undefined ? false : found.comment;
}

describe('which packets are the overlay’s', () => {
  const inner = packet('10.244.1.2', '10.244.2.2', 1, ECHO);
  const back = packet('10.244.2.2', '10.244.1.2', 1, ECHO);
  const outer = (ip: readonly number[], port = 8285): number[] =>
    packet('192.0.2.1', '192.0.2.2', 17, udp(8285, port, ip));

  it('names the peer on each side', () => {
    for (const role of ['overlay', 'containers'] as const) {
      assert.equal(selected({}, role, inner), 'to b (10.244.2.0/24 fd00:0:0:2::/64)');
      assert.equal(selected({}, role, back), 'from b (10.244.2.0/24 fd00:0:0:2::/64)');
      assert.match(String(selected({}, role, packet('fd00:0:0:1::2', 'fd00:0:0:2::2', 58, ECHO))), /^to b /);
    }
    assert.match(String(selected({}, 'underlay', outer(inner))), /^to b /);
    assert.equal(
      selected({}, 'underlay', packet('192.0.2.9', '192.0.2.1', 17, udp(8285, 8285, inner))),
      'no known peer',
    );
  });

  it('leaves out what is not the overlay’s', () => {
    assert.equal(selected({}, 'underlay', packet('192.0.2.1', '192.0.2.2', 17, udp(5000, 53, []))), false);
    assert.equal(
      selected({}, 'underlay', packet('192.0.2.1', '192.0.2.2', 6, new Array<number>(20).fill(0x50))),
      false,
    );
    assert.equal(selected({}, 'underlay', inner), false);
    assert.equal(selected({}, 'containers', packet('10.244.1.2', '10.244.1.3', 1, ECHO)), false);
    assert.equal(selected({}, 'containers', packet('10.244.1.2', '198.51.100.1', 1, ECHO)), false);
    assert.match(String(selected({ isDirect: true }, 'underlay', inner)), /^to b [^;]*$/);
    assert.match(
      String(selected({ isUnwrapped: true }, 'underlay', inner)),
      /^to b .*; XDP has removed the tunnel’s headers/,
    );
    assert.match(String(selected({ isUnwrapped: true }, 'underlay', outer(inner))), /^to b [^;]*$/);
    assert.equal(selected({ isUnwrapped: true }, 'underlay', packet('192.0.2.1', '198.51.100.1', 1, ECHO)), false);
  });

  it('applies a filter to what the tunnel carries, as it is, in VXLAN or in IP', () => {
    const tunnels: readonly [SelectionParts['tunnel'][number], readonly number[]][] = [
      [{ protocol: 'udp', port: 8285 }, outer(inner)],
      [{ protocol: 'udp', port: 8472 }, outer([...VXLAN, ...ethernet(inner)], 8472)],
      [{ protocol: 'ipip' }, packet('192.0.2.1', '192.0.2.2', 4, inner)],
    ];
    for (const [tunnel, datagram] of tunnels) {
      for (const [text, isWanted] of [
        ['icmp and host 10.244.2.2', true],
        ['src host 10.244.2.2', false],
        ['peer b', true],
        ['udp', false],
      ] as const) {
        const filter = parsePacketFilter(text, (word) => (word === 'b' ? parts.peers[0]!.subnets : undefined));
        assert.equal(selected({ tunnel: [tunnel], filter }, 'underlay', datagram) !== false, isWanted, text);
        assert.equal(selected({ filter }, 'overlay', inner) !== false, isWanted, text);
      }
    }
  });

  it('reads any bytes without an error', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 120 }),
        fc.constantFrom('raw' as const, 'ethernet' as const),
        (bytes, link) => {
          const flow = flowOf(link, bytes);
          if (flow !== undefined) carriedBy(flow);
          for (const first of [0x45, 0x60]) flowOf('raw', Uint8Array.of(first, ...bytes));
        },
      ),
    );
  });
});

describe('the words of a filter', () => {
  const flow = (ip: readonly number[]): Flow => flowOf('raw', Uint8Array.from(ip))!;
  const dns = flow(packet('10.244.1.2', '10.244.2.9', 17, udp(40_000, 53, [])));
  const none = () => undefined;

  it('join as usual: not before and, and before or', () => {
    for (const [text, expected] of [
      ['udp', true],
      ['port 53', true],
      ['src port 53', false],
      ['dst port 53', true],
      ['net 10.244.2.0/24', true],
      ['src net 10.244.2.0/24', false],
      ['tcp or udp and port 53', true],
      ['tcp and udp or port 53', true],
      ['(tcp or udp) and port 54', false],
      ['not tcp and not host 10.244.2.8', true],
      ['not (udp or tcp)', false],
    ] as const) {
      assert.equal(parsePacketFilter(text, none)(dns), expected, text);
    }
  });

  it('are refused with what is wrong', () => {
    for (const [text, why] of [
      ['host', /ends too early/],
      ['host x', /"x" is no address/],
      ['port 70000', /"70000" is no port/],
      ['net 10.0.0.0', /is no CIDR/],
      ['peer c', /"c" is not a peer/],
      ['(udp', /not closed/],
      ['udp tcp', /"tcp" is not expected/],
      ['greater 5', /"greater" is not known/],
    ] as const) {
      assert.throws(
        () => parsePacketFilter(text, none),
        (error) => error instanceof WeftError && error.code === 'WEFT_USAGE' && why.test(error.message),
        text,
      );
    }
  });
});
