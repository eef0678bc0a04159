import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { concat } from '../../test/fakes/packets.ts';
import { address6, ipv6Packet, optionsHeader } from '../../test/fakes/packets6.ts';
import { formatAddr } from '../ip/address.ts';
import { decodeFrame, decodeIp } from './decode.ts';

function hex(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));
}

// An echo request from 10.244.1.2 to 10.244.2.2 as flannel0 shows it: TTL 63, DF, id 0x1c46, echo id 0x0102, sequence 3.
const ECHO = hex('4500 0020 1c46 4000 3f01 0000 0af4 0102 0af4 0202  0800 0000 0102 0003 deadbeef');
// A udp-mode datagram that carries it: 192.168.77.11:8285 → 192.168.77.12:8285.
const WRAPPED = hex(
  `4500 003c 0001 4000 4011 0000 c0a8 4d0b c0a8 4d0c  205d 205d 0028 0000 ${Buffer.from(ECHO).toString('hex')}`,
);
const ETHERNET = '02000000000c 02000000000b';

describe('decodeFrame', () => {
  it('reads an echo request on a TUN device', () => {
    const packet = decodeFrame('raw', ECHO);
    assert.deepEqual(packet, {
      ethernet: undefined,
      ip: {
        family: 4,
        source: 0x0af40102,
        destination: 0x0af40202,
        ttl: 63,
        protocol: 1,
        headerLength: 20,
        totalLength: 32,
        id: 0x1c46,
        dontFragment: true,
        moreFragments: false,
        fragmentOffset: 0,
      },
      transport: { kind: 'icmp', type: 8, code: 0, echo: { id: 0x102, sequence: 3 } },
      payload: hex('deadbeef'),
    });
  });

  it('reads a datagram on Ethernet, with and without a VLAN tag, and the packet inside it', () => {
    for (const tag of ['', '8100 0064']) {
      const outer = decodeFrame('ethernet', hex(`${ETHERNET} ${tag} 0800 ${Buffer.from(WRAPPED).toString('hex')}`));
      assert.ok(outer);
      assert.equal(outer.ethernet?.source, '02:00:00:00:00:0b');
      assert.equal(outer.ethernet?.destination, '02:00:00:00:00:0c');
      assert.equal(formatAddr(outer.ip.source), '192.168.77.11');
      assert.deepEqual(outer.transport, { kind: 'udp', sourcePort: 8285, destinationPort: 8285, length: 40 });
      assert.deepEqual(decodeIp(outer.payload), decodeIp(ECHO));
    }
  });

  it('leaves out the padding of short Ethernet frames', () => {
    const padded = decodeFrame('ethernet', hex(`${ETHERNET} 0800 ${Buffer.from(ECHO).toString('hex')} 000000000000`));
    assert.deepEqual(padded?.payload, hex('deadbeef'));
  });

  it('names TCP flags and skips TCP options', () => {
    const packet = decodeIp(
      hex(
        '4500 0030 0000 0000 4006 0000 0a000001 0a000002 1451 0050 00000001 00000002 6012 7210 0000 0000 020405b4 6869 7979',
      ),
    );
    assert.deepEqual(packet?.transport, {
      kind: 'tcp',
      sourcePort: 0x1451,
      destinationPort: 80,
      sequence: 1,
      acknowledgment: 2,
      flags: 'SYN ACK',
      window: 0x7210,
    });
    assert.deepEqual(packet?.payload, hex('6869 7979'));
  });

  it('reads IPv6, and what follows extension headers and a first fragment', () => {
    const addresses = [address6('fd10::1:2'), address6('fd10::2:2')] as const;
    const echo = hex('8000 0000 0102 0003 deadbeef');
    const fields = { source: addresses[0], destination: addresses[1], nextHeader: 58, hopLimit: 63 };
    for (const extensions of [[], [[0, optionsHeader()] as const], [[44, hex('0000 0001 00001c46')] as const]]) {
      const packet = decodeFrame(
        'ethernet',
        concat(hex(`${ETHERNET} 86dd`), ipv6Packet({ ...fields, extensions }, echo)),
      );
      assert.ok(packet);
      assert.deepEqual([packet.ip.family, packet.ip.ttl, packet.ip.protocol], [6, 63, 58]);
      assert.deepEqual([packet.ip.source, packet.ip.destination].map(formatAddr), ['fd10::1:2', 'fd10::2:2']);
      assert.deepEqual(packet.transport, { kind: 'icmp', type: 128, code: 0, echo: { id: 0x102, sequence: 3 } });
      assert.deepEqual(packet.payload, hex('deadbeef'));
      assert.equal(packet.ip.totalLength, 52 + 8 * extensions.length);
    }
    const later = decodeIp(ipv6Packet({ ...fields, extensions: [[44, hex('0000 0008 00001c46')]] }, echo));
    assert.deepEqual([later?.transport, later?.ip.fragmentOffset, later?.ip.id], [{ kind: 'other' }, 8, 0x1c46]);
  });

  it('takes no ports from a fragment that is not the first', () => {
    const fragment = Uint8Array.from(WRAPPED);
    fragment[7] = 1;
    assert.deepEqual(decodeIp(fragment)?.transport, { kind: 'other' });
    assert.equal(decodeIp(fragment)?.ip.fragmentOffset, 8);
  });

  it('is undefined for ARP, truncated and contradictory headers', () => {
    assert.equal(decodeFrame('ethernet', hex(`${ETHERNET} 0806 ${'00'.repeat(28)}`)), undefined);
    assert.equal(decodeIp(hex(`60${'00'.repeat(38)}`)), undefined);
    assert.equal(decodeIp(ECHO.subarray(0, 19)), undefined);
    assert.equal(decodeIp(hex('4400 0020 1c46 4000 3f01 0000 0af4 0102 0af4 0202')), undefined);
    assert.equal(decodeIp(hex('4500 0013 1c46 4000 3f01 0000 0af4 0102 0af4 0202')), undefined);
    assert.equal(decodeFrame('unsupported', ECHO), undefined);
  });

  it('never throws, and never gives more payload than there was', () => {
    const start = fc.constantFrom(ECHO, WRAPPED, hex(`${ETHERNET} 0800 ${Buffer.from(WRAPPED).toString('hex')}`));
    const edits = fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 8 });
    fc.assert(
      fc.property(
        start,
        edits,
        fc.nat(80),
        fc.constantFrom('raw' as const, 'ethernet' as const),
        (bytes, changes, cut, link) => {
          const copy = Uint8Array.from(bytes).subarray(0, cut);
          for (const [at, value] of changes) if (at < copy.length) copy[at] = value;
          const packet = decodeFrame(link, copy);
          assert.ok(packet === undefined || packet.payload.length + 20 <= copy.length);
        },
      ),
      { numRuns: 2000 },
    );
  });
});
