import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { overlaps } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { type Ipv4Prefix, prefix4, prefix6 } from '../ip/prefix.ts';
import { DisjointPrefixes } from './disjoint-prefixes.ts';

/** In 10.5.0.0/22, so that they meet. */
const small = fc
  .record({ offset: fc.nat(1023), length: fc.integer({ min: 20, max: 32 }) })
  .map(({ offset, length }) => prefix4(ipv4Of(0x0a050000 + offset), length));

it('finds an overlap exactly where a plain list has one, in both families', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(small, fc.boolean()), { maxLength: 60 }), (steps) => {
      const held4 = DisjointPrefixes.ipv4<Ipv4Prefix>();
      const held6 = DisjointPrefixes.ipv6<Ipv4Prefix>();
      const wide = ({ addr, length }: Ipv4Prefix) => prefix6(ipv6Of(BigInt(addr) << 96n), length);
      let model: Ipv4Prefix[] = [];
      for (const [prefix, isRemoval] of steps) {
        const clash = model.some((other) => overlaps(other, prefix));
        const [found4, found6] = [held4.overlapping(prefix), held6.overlapping(wide(prefix))];
        assert.equal(found4 !== undefined, clash);
        assert.equal(found6 !== undefined, clash);
        if (found4 !== undefined) assert.ok(model.includes(found4) && overlaps(found4, prefix));
        if (found6 !== undefined) assert.ok(model.includes(found6) && overlaps(wide(found6), wide(prefix)));
        if (!clash) {
          held4.add(prefix, prefix);
          held6.add(wide(prefix), prefix);
          model.push(prefix);
        } else if (isRemoval && found4 !== undefined) {
          held4.delete(found4);
          held6.delete(wide(found4));
          model = model.filter((other) => other !== found4);
        }
      }
    }),
    { numRuns: 300 },
  );
});
