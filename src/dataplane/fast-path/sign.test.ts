import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address, packetFault } from '../../../test/fakes/packets.ts';
import { address6, udp6Packet } from '../../../test/fakes/packets6.ts';
import { ipv4Of } from '../../ip/ipv4.ts';
import { type Ipv6Addr, parseIpv6 } from '../../ip/ipv6.ts';
import { decodeSign, encodeSign, isSign, SIGN_BYTES, SIGN_PAYLOAD_BYTES, unsummedDatagram } from './sign.ts';

const [A, B] = ['192.0.2.1', '192.0.2.2'].map((text) => ipv4Of(address(text))) as [
  ReturnType<typeof ipv4Of>,
  ReturnType<typeof ipv4Of>,
];
const anySign = fc.record({
  nonce: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  echo: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  takes: fc.boolean(),
  arrives: fc.boolean(),
  takes6: fc.boolean(),
  arrives6: fc.boolean(),
  takesCut: fc.boolean(),
  alone: fc.boolean(),
  tag: fc.nat(0xffff),
  tagWhole: fc.nat(0xffff),
});
const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

describe('a sign', () => {
  it('is a valid IPv4 packet that ends with its receiver, and reads back as it was (property)', () => {
    fc.assert(
      fc.property(anySign, (sign) => {
        const packet = encodeSign(sign, A, B);
        assert.equal(packetFault(packet), undefined);
        assert.equal(packet[8], 1, 'flannel takes the TTL down to 0 and drops the packet without a word');
        assert.ok(isSign(viewOf(packet), 0, packet.length));
        assert.deepEqual(decodeSign(packet.subarray(20)), { ...sign });
      }),
    );
  });

  it('names no address where hosts have IPv6 alone', () => {
    const sign = {
      ...{ nonce: 1n, echo: 2n, takes: true, arrives: false, takes6: true, arrives6: false, takesCut: true },
      ...{ alone: false, tag: 3, tagWhole: 4 },
    };
    const [a, b] = ['fd77::1', 'fd77::2'].map((text) => parseIpv6(text)!) as [Ipv6Addr, Ipv6Addr];
    const packet = encodeSign(sign, a, b);
    assert.equal(packetFault(packet), undefined);
    assert.ok(isSign(viewOf(packet), 0, packet.length));
    assert.deepEqual(packet.subarray(12, 20), new Uint8Array(8));
    assert.deepEqual(decodeSign(packet.subarray(20)), sign);
  });

  it('without a checksum is a datagram as a fast path sends one', () => {
    const [a, b] = ['fd77::1', 'fd77::2'] as const;
    const ends = [a, b].map((text, index) => ({ addr: parseIpv6(text)!, port: 8285 + index }));
    const payload = Uint8Array.from({ length: 48 }, (_, index) => index);
    assert.deepEqual(
      unsummedDatagram(ends[0]!, ends[1]!, payload),
      udp6Packet({
        ip: { source: address6(a), destination: address6(b) },
        ...{ sourcePort: 8285, destinationPort: 8286, withoutChecksum: true, payload },
      }),
    );
  });

  it('is never seen in what is shorter, longer than it says, or differs in what makes it one (property)', () => {
    const packet = encodeSign(
      {
        ...{ nonce: 1n, echo: 2n, takes: true, arrives: true, takes6: true, arrives6: true, takesCut: false },
        ...{ alone: false, tag: 3, tagWhole: 4 },
      },
      A,
      B,
    );
    for (let length = 0; length < packet.length; length++) {
      assert.equal(isSign(viewOf(packet.slice(0, length)), 0, length), false);
    }
    for (const at of [0, 8, 9, 20, 21, 22, 23]) {
      const other = packet.slice();
      other[at]! ^= 2;
      assert.equal(isSign(viewOf(other), 0, other.length), false, `byte ${at}`);
    }
    assert.equal(SIGN_BYTES, 20 + SIGN_PAYLOAD_BYTES);
  });

  it('of another version is not understood, whatever is in it (property)', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const payload = bytes.slice();
        if (payload.length > 4 && payload[4] === 1) payload[4] = 2;
        assert.equal(decodeSign(payload), undefined);
      }),
    );
  });
});
