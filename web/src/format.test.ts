import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { bitRate, bytes, count, duration, packetRate, percent, si } from './format.ts';

describe('numbers of the page', () => {
  it('have three digits and an SI prefix', () => {
    for (const [value, text] of [
      [0, '0'],
      [7, '7'],
      [7.5, '7.50'],
      [999, '999'],
      [999.6, '1.00 k'],
      [12_345, '12.3 k'],
      [2_600_000_000, '2.60 G'],
      [-1500, '−1.50 k'],
    ] as const) {
      assert.equal(si(value), text);
    }
  });

  it('have the unit that suits them', () => {
    assert.deepEqual([0, 0.2, 5, 43_000].map(packetRate), ['0 pkt/s', '<1 pkt/s', '5 pkt/s', '43.0 kpkt/s']);
    assert.deepEqual([0, 10, 125_000].map(bitRate), ['0 bit/s', '80 bit/s', '1.00 Mbit/s']);
    assert.deepEqual([0, 1023, 1024, 98_000_000].map(bytes), ['0 B', '1023 B', '1.0 KiB', '93.5 MiB']);
    assert.deepEqual([0.0421, 0.9999, 12.34, 450, 1500, 90_000, 7_500_000, 604_800_000].map(duration), [
      '42 µs',
      '1.00 ms',
      '12.3 ms',
      '450 ms',
      '1.5 s',
      '2 min',
      '2 h 5 min',
      '7 d',
    ]);
    assert.deepEqual([0, 0.0004, 0.05, 0.5, 1].map(percent), ['0 %', '<0.1 %', '5.0 %', '50 %', '100 %']);
    assert.deepEqual(
      [0, 1, 2].map((value) => count(value, 'host')),
      ['0 hosts', '1 host', '2 hosts'],
    );
  });
});
