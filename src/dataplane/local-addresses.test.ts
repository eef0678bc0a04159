import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address } from '../../test/fakes/packets.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { LocalAddresses } from './local-addresses.ts';

const of = (text: string) => ipv4Of(address(text));

describe('LocalAddresses', () => {
  it('is what it was last told, and readers of the same memory see it', () => {
    const addresses = LocalAddresses.allocate();
    const reader = new LocalAddresses(addresses.buffer);
    assert.equal(addresses.replace([of('192.168.77.1'), of('10.0.0.9'), of('10.0.0.9')]), 0);
    assert.deepEqual([reader.has(of('192.168.77.1')), reader.has(of('10.0.0.9'))], [true, true]);
    addresses.replace([of('10.0.0.9')]);
    assert.deepEqual([reader.has(of('192.168.77.1')), reader.has(of('10.0.0.9'))], [false, true]);
    assert.equal(reader.has(0xc0a8_4d01 | 0), false, 'signed words are the same addresses');
    addresses.replace([]);
    assert.equal(reader.has(of('10.0.0.9')), false);
  });

  it('never has an address that is of no use from afar, whatever the host has', () => {
    const addresses = LocalAddresses.allocate();
    const unfit = ['0.0.0.0', '0.0.0.7', '127.0.0.1', '127.255.0.1', '169.254.169.254', '169.254.20.10', '224.0.0.1', '240.0.0.1', '255.255.255.255']; // biome-ignore format: a list
    addresses.replace([...unfit.map(of), of('169.253.0.1')]);
    for (const text of unfit) assert.equal(addresses.has(of(text)), false, text);
    assert.equal(addresses.has(of('169.253.0.1')), true);
  });

  it('has room for 2,048, and says how many more there are', () => {
    const addresses = LocalAddresses.allocate();
    const many = Array.from({ length: 2_051 }, (_, index) => ipv4Of(0x0a00_0000 + index));
    assert.equal(addresses.replace(many), 3);
    assert.deepEqual([addresses.has(many[2_047]!), addresses.has(many[2_048]!)], [true, false]);
    assert.equal(addresses.replace(many.slice(3)), 0);
    assert.deepEqual([addresses.has(many[0]!), addresses.has(many[2_050]!)], [false, true]);
  });

  it('agrees with a set, whatever is added and removed', () => {
    // Few addresses, so that they come again, and ones that begin in the same bucket.
    const addressArbitrary = fc.oneof(
      fc.integer({ min: 0x0a00_0001, max: 0x0a00_0040 }),
      fc.integer({ min: 1, max: 40 }).map((index) => 0x0a00_0000 + index * 4_096),
    );
    fc.assert(
      fc.property(fc.array(fc.uniqueArray(addressArbitrary, { maxLength: 40 }), { maxLength: 30 }), (states) => {
        const addresses = LocalAddresses.allocate();
        const ever = new Set(states.flat());
        for (const state of states) {
          addresses.replace(state.map(ipv4Of));
          for (const each of ever) assert.equal(addresses.has(each), state.includes(each));
        }
        addresses.replace([]);
        assert.ok(
          new Int32Array(addresses.buffer).every((word) => word === 0),
          'nothing is left behind',
        );
      }),
    );
  });
});
