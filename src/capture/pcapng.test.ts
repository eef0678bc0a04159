import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { readPcapng } from '../../test/fakes/pcapng-reader.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { interfaceDescription, interfaceStatistics, nameResolution, packetBlock, sectionHeader } from './pcapng.ts';

describe('a pcapng file', () => {
  const ethernet = { name: 'eth0', description: 'underlay', linkType: 'ethernet', snapBytes: 262_144 } as const;
  const raw = { name: 'flannel0', description: 'overlay', linkType: 'raw', snapBytes: 128 } as const;

  it('has the bytes that the format asks for', () => {
    // Section header with shb_userappl, written out by hand from the draft.
    assert.equal(
      Buffer.from(sectionHeader('weft')).toString('hex'),
      '0a0d0d0a280000004d3c2b1a01000000ffffffffffffffff04000400776566740000000028000000',
    );
    const packet = packetBlock({
      ...{ interfaceId: 1, timeNs: 0x1_0000_0002n, direction: 'outbound', originalBytes: 9, comment: 'to b' },
      bytes: Uint8Array.of(0x45, 1, 2, 3, 4),
    });
    assert.equal(
      packet.toString('hex'),
      '060000003c00000001000000010000000200000005000000' +
        '09000000' +
        '4501020304000000' +
        '0200040002000000' +
        '01000400746f2062' +
        '00000000' +
        '3c000000',
    );
  });

  it('is read back as it was written, whatever is in it', () => {
    const packets = fc.array(
      fc.record({
        interfaceId: fc.constantFrom(0, 1),
        timeNs: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
        direction: fc.constantFrom('inbound' as const, 'outbound' as const),
        originalBytes: fc.nat(70_000),
        bytes: fc.uint8Array({ maxLength: 70 }),
        comment: fc.option(fc.string({ unit: 'grapheme', maxLength: 40 }), { nil: undefined }),
      }),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(packets, fc.nat(), fc.nat(), (list, received, dropped) => {
        const file = Buffer.concat([
          sectionHeader('weft 1'),
          interfaceDescription(raw),
          interfaceDescription(ethernet),
          ...list.map(packetBlock),
          interfaceStatistics({ interfaceId: 1, atNs: 5n, received, dropped }),
        ]);
        const read = readPcapng(file);
        assert.deepEqual(
          read.packets,
          list.map(({ interfaceId, ...rest }) => ({ interface: ['flannel0', 'eth0'][interfaceId]!, ...rest })),
        );
        assert.deepEqual(read.statistics, [{ interface: 'eth0', received, dropped }]);
        assert.deepEqual(read.interfaces, [
          { ...raw, linkType: 101, exponent: 9 },
          { ...ethernet, linkType: 1, exponent: 9 },
        ]);
      }),
    );
  });

  it('names addresses of both families', () => {
    const block = nameResolution([
      { address: parseIpv4('192.0.2.1')!, name: 'worker-1' },
      { address: parseIpv6('2001:db8::2')!, name: 'worker-2' },
    ]);
    const { names } = readPcapng(Buffer.concat([sectionHeader('weft'), block]));
    assert.deepEqual(
      [...names],
      [
        ['c0000201', 'worker-1'],
        ['20010db8000000000000000000000002', 'worker-2'],
      ],
    );
    assert.deepEqual([...readPcapng(Buffer.concat([sectionHeader('weft'), nameResolution([])])).names], []);
  });
});
