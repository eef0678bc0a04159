import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hostDrops6Of, hostDropsOf } from './host-drops.ts';

const group = (name: string, values: Readonly<Record<string, number>>): string =>
  `${name}: ${Object.keys(values).join(' ')}\n${name}: ${Object.values(values).join(' ')}\n`;
/** What was not zero. */
const drops = (ip: Readonly<Record<string, number>>, ext: Readonly<Record<string, number>> = {}) =>
  Object.fromEntries(
    Object.entries(
      hostDropsOf(
        `${group('Ip', { InReceives: 0, ...ip })}${group('Udp', { InReceives: 99 })}`,
        group('TcpExt', ext) + group('IpExt', ext),
      ),
    ).filter(([, count]) => count > 0),
  );

describe('packets that the kernel of a host drops', () => {
  it('are none where all were delivered, forwarded and sent', () => {
    assert.deepEqual(drops({ InReceives: 10, InDelivers: 4, ForwDatagrams: 6, OutRequests: 3, OutTransmits: 9 }), {});
  });

  it('are filtered where nothing else says what became of them', () => {
    // Recorded with an INPUT chain that dropped 20 packets and a FORWARD chain that dropped 10, on Linux 6.18.
    const recorded = { InReceives: 36, InDelivers: 0, ForwDatagrams: 16, OutRequests: 0, OutTransmits: 6 };
    assert.deepEqual(drops(recorded), { 'filtered-in': 20, 'filtered-out': 10 });
    // Earlier kernels count no transmits, and forwarded packets after the chain.
    assert.deepEqual(drops({ InReceives: 36, InDelivers: 0, ForwDatagrams: 6 }), { 'filtered-in': 30 });
  });

  it('have the reason that the kernel counts, and are not filtered then', () => {
    const ip = { InHdrErrors: 1, InAddrErrors: 2, InDiscards: 3, InUnknownProtos: 1, OutDiscards: 4, OutNoRoutes: 5 };
    assert.deepEqual(
      drops(
        { ...ip, InReceives: 22, FragFails: 2, ForwDatagrams: 2, OutRequests: 9, OutTransmits: 0 },
        { InNoRoutes: 6, IPReversePathFilter: 7 },
      ),
      { header: 1, address: 2, discarded: 8, 'no-route': 11, 'too-big': 2, 'reverse-path': 7 },
    );
    assert.deepEqual(drops({ InReceives: 3, FragFails: 3 }), { 'too-big': 3 });
  });

  it('were delivered with a wrong checksum, which the protocol counts and not IP', () => {
    const snmp = ['Icmp', 'Tcp', 'Udp', 'UdpLite']
      .map((name, index) => group(name, { InCsumErrors: 10 ** index }))
      .join('');
    const dropped = hostDropsOf(
      group('Ip', { InReceives: 200, InDelivers: 200 }) + snmp,
      group('IpExt', { InCsumErrors: 5_000 }),
    );
    assert.deepEqual([dropped.checksum, dropped['filtered-in']], [111, 0]);
  });

  it('are not fragments, which are more or fewer than packets', () => {
    const ip = { InReceives: 5, ReasmReqds: 5, ReasmOKs: 1, ReasmFails: 1, InDelivers: 1 };
    assert.deepEqual(drops({ ...ip, OutRequests: 1, FragOKs: 1, FragCreates: 3, OutTransmits: 3 }), { reassembly: 1 });
  });

  it('are of IPv6 likewise, as recorded on Linux 6.18 with ten echo requests', () => {
    const drops6 = (rows: Readonly<Record<string, number>>) =>
      Object.fromEntries(
        Object.entries(
          hostDrops6Of(
            Object.entries({ Ip6InReceives: 0, Ip6OutTransmits: 0, ...rows })
              .map((row) => row.join(' \t'))
              .join('\n'),
          ),
        ).filter(([, count]) => count > 0),
      );
    const sent = { Ip6OutRequests: 10, Ip6OutTransmits: 10 };
    const recorded = [
      [{ Ip6InReceives: 20, Ip6OutForwDatagrams: 20, Ip6OutRequests: 2, Ip6OutTransmits: 22 }, {}],
      [{ Ip6InReceives: 10 }, { 'filtered-in': 10 }],
      [{ Ip6InReceives: 10, Ip6OutForwDatagrams: 10 }, { 'filtered-out': 10 }],
      [{ Ip6InReceives: 10, Ip6InDelivers: 10, Ip6OutRequests: 10, Ip6OutDiscards: 10 }, { discarded: 10 }],
      [{ ...sent, Ip6InReceives: 10, Ip6InNoRoutes: 10 }, { 'no-route': 10 }],
      [{ ...sent, Ip6InReceives: 10, Ip6InHdrErrors: 10 }, { header: 10 }],
      [{ ...sent, Ip6InReceives: 10, Ip6InAddrErrors: 10 }, { address: 10 }],
      [
        {
          ...{ Ip6InReceives: 1, Ip6InTooBigErrors: 1, Ip6OutForwDatagrams: 1 },
          ...{ Ip6OutRequests: 1, Ip6FragFails: 1, Ip6OutTransmits: 1 },
        },
        { 'too-big': 1 },
      ],
      [
        {
          ...{ Ip6InReceives: 30, Ip6InDelivers: 10, Ip6ReasmReqds: 30, Ip6ReasmOKs: 10 },
          ...{ Ip6OutRequests: 10, Ip6FragOKs: 10, Ip6FragCreates: 30, Ip6OutTransmits: 30 },
        },
        {},
      ],
      [{ Ip6InReceives: 10, Ip6InDelivers: 10, Udp6InCsumErrors: 6, Icmp6InCsumErrors: 4 }, { checksum: 10 }],
    ] as const;
    for (const [rows, wanted] of recorded) assert.deepEqual(drops6(rows), wanted, JSON.stringify(rows));
  });

  it('are unknown where there is nothing to read', () => {
    assert.deepEqual(hostDropsOf('', ''), {});
    assert.deepEqual(hostDrops6Of(''), {});
  });
});
