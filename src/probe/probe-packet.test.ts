import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type IpAddr, type IpFamily, parseAddr } from '../ip/address.ts';
import { echoRequest, readProbeMessage } from './probe-packet.ts';

const IDENTITY = { id: 0x1234, udpPorts: new Set([40_000]) };
const hex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replaceAll(/\s/g, ''), 'hex'));
const [TO, TO_6] = ['10.244.1.0', Array(8).fill('fdfd').join(':')].map((text): IpAddr => parseAddr(text)!);
/** An IPv4 header in front: 10.244.2.0 to 10.244.1.0. */
const ipv4 = (protocol: string): string => `4500 0054 0000 4000 40${protocol} 0000 0af40200 0af40100`;

describe('a probe', () => {
  it('is an ICMP echo request of that size with a right checksum', () => {
    for (const bytes of [84, 85, 1472]) {
      const icmp = echoRequest(4, 0x1234, 7, bytes);
      assert.equal(icmp.length, bytes - 20);
      assert.equal(Buffer.from(icmp.subarray(4, 18)).toString('latin1'), '\x12\x34\x00\x07weft-probe');
      const padded = Buffer.concat([icmp, Buffer.alloc(icmp.length % 2)]);
      let sum = 0;
      for (let at = 0; at < padded.length; at += 2) sum += padded.readUInt16BE(at);
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
      assert.equal(sum, 0xffff);
    }
    assert.equal(echoRequest(6, 1, 1, 1280).length, 1240);
    assert.throws(() => echoRequest(4, 1, 1, 83), RangeError);
  });

  it('is known by what comes of it', () => {
    const cases: readonly [string, string, IpFamily, unknown][] = [
      ['a reply', `${ipv4('01')} 0000 0000 1234 0007`, 4, { kind: 'reply', sequence: 7 }],
      ['a reply to somebody else', `${ipv4('01')} 0000 0000 4321 0007`, 4, undefined],
      [
        'a probe of another',
        `${ipv4('01')} 0800 0000 9999 0001 ${Buffer.from('weft-probe').toString('hex')}`,
        4,
        { kind: 'request' },
      ],
      [
        'any other echo request',
        `${ipv4('01')} 0800 0000 9999 0001 ${Buffer.from('0123456789').toString('hex')}`,
        4,
        undefined,
      ],
      [
        'fragmentation needed',
        `${ipv4('01')} 0304 0000 0000 0578 ${ipv4('01')} 0800 0000 1234 0009`,
        4,
        { kind: 'error', reason: 'too-big', mtuBytes: 1400, about: { kind: 'echo', to: TO, sequence: 9 } },
      ],
      [
        'port unreachable',
        `${ipv4('01')} 0303 0000 0000 0000 ${ipv4('11')} 9c40 829a 0010 0000`,
        4,
        { kind: 'error', reason: 'port', mtuBytes: 0, about: { kind: 'udp', to: TO, port: 33_434 } },
      ],
      [
        'port unreachable of another program',
        `${ipv4('01')} 0303 0000 0000 0000 ${ipv4('11')} 9c41 829a 0010 0000`,
        4,
        undefined,
      ],
      ['a message that was cut', `${ipv4('01')} 0304 0000 0000 0578 ${ipv4('01')}`, 4, undefined],
      ['an IPv6 reply', '8100 0000 1234 0001', 6, { kind: 'reply', sequence: 1 }],
      [
        'packet too big',
        `0200 0000 0000 0500 6000 0000 0400 3a40 ${'00'.repeat(16)} ${'fd'.repeat(16)} 8000 0000 1234 0002`,
        6,
        { kind: 'error', reason: 'too-big', mtuBytes: 1280, about: { kind: 'echo', to: TO_6, sequence: 2 } },
      ],
    ];
    for (const [what, text, family, expected] of cases) {
      assert.deepEqual(readProbeMessage(family, hex(text), IDENTITY), expected, what);
    }
  });

  it('is read from any bytes without an error', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 120 }), fc.constantFrom<IpFamily>(4, 6), (bytes, family) => {
        readProbeMessage(family, bytes, IDENTITY);
      }),
    );
  });

  it('that is damaged, or cut anywhere, is one or none, and is never read past its end', () => {
    const errors = [
      `${ipv4('01')} 0304 0000 0000 0578 ${ipv4('01')} 0800 0000 1234 0009`,
      `${ipv4('01')} 0303 0000 0000 0000 ${ipv4('11')} 9c40 829a 0010 0000`,
      `0200 0000 0000 0500 6000 0000 0400 3a40 ${'00'.repeat(32)} 8000 0000 1234 0002`,
      `0104 0000 0000 0000 6000 0000 0400 1140 ${'00'.repeat(32)} 9c40 829a 0010 0000`,
    ].map(hex);
    const edits = fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 4 });
    let whole = 0;
    fc.assert(
      fc.property(fc.constantFrom(...errors.keys()), edits, fc.nat(64), fc.nat(40), (which, damage, length, before) => {
        const message = Uint8Array.from(errors[which]!);
        for (const [at, value] of damage) if (at < message.length) message[at] = value;
        const cut = message.subarray(0, Math.max(length, length > 50 ? message.length : 0));
        // What lies around it in a larger buffer is nobody's.
        const around = new Uint8Array(before + cut.length + 40).fill(0xff);
        around.set(cut, before);
        const family = which < 2 ? 4 : 6;
        const seen = readProbeMessage(family, around.subarray(before, before + cut.length), IDENTITY);
        assert.deepEqual(seen, readProbeMessage(family, Uint8Array.from(cut), IDENTITY));
        if (seen?.kind === 'error') whole++;
      }),
      { numRuns: 2_000 },
    );
    assert.ok(whole > 100, `${whole} were still errors about a probe`);
  });
});
