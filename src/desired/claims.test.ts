import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Claims } from './claims.ts';

interface Value {
  readonly key: string;
  readonly says: number;
}

const value: fc.Arbitrary<Value> = fc
  .tuple(fc.constantFrom('x', 'y', 'z'), fc.nat({ max: 2 }))
  .map(([key, says]) => ({ key, says }));

describe('Claims', () => {
  const claims = () => {
    const changed = new Set<string>();
    return { changed, claims: new Claims<Value>(({ key }) => key, changed) };
  };

  it('lets the earliest claim count, and the next one when its owner lets go', () => {
    const { changed, claims: c } = claims();
    c.set('first', [{ key: 'x', says: 1 }]);
    c.set('newcomer', [{ key: 'x', says: 2 }]);
    assert.equal(c.get('x')?.says, 1);
    assert.deepEqual([...c.losers()], [{ key: 'x', says: 2 }]);
    changed.clear();
    c.set('newcomer', [{ key: 'x', says: 3 }]);
    assert.deepEqual([...changed], []);
    c.set('first', []);
    assert.equal(c.get('x')?.says, 3);
    assert.deepEqual([...changed], ['x']);
    assert.deepEqual([...c.losers()], []);
  });

  it('agrees with a list of claims in the order they were made', () => {
    const step = fc.record({ owner: fc.constantFrom('a', 'b', 'c'), values: fc.array(value, { maxLength: 4 }) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const { changed, claims: c } = claims();
        let model: { owner: string; key: string; values: Value[] }[] = [];
        const counting = (key: string) => model.find((claim) => claim.key === key)?.values[0];
        for (const { owner, values } of steps) {
          const before = ['x', 'y', 'z'].map((key) => counting(key)?.says);
          const wanted = Map.groupBy(values, ({ key }) => key);
          model = model.filter((claim) => claim.owner !== owner || wanted.has(claim.key));
          for (const [key, mine] of wanted) {
            const known = model.find((claim) => claim.owner === owner && claim.key === key);
            if (known !== undefined) known.values = mine;
            else model.push({ owner, key, values: mine });
          }
          changed.clear();
          c.set(owner, values);
          const after = ['x', 'y', 'z'].map((key) => counting(key)?.says);
          assert.deepEqual(
            ['x', 'y', 'z'].map((key) => c.get(key)?.says),
            after,
          );
          assert.deepEqual(
            [...changed].sort(),
            ['x', 'y', 'z'].filter((_, i) => before[i] !== after[i]),
          );
          assert.deepEqual(
            [...c.keys()].sort(),
            ['x', 'y', 'z'].filter((_, i) => after[i] !== undefined),
          );
          const losing = ['x', 'y', 'z'].filter((key) =>
            model.some((claim) => claim.key === key && claim.values.some(({ says }) => says !== counting(key)?.says)),
          );
          assert.deepEqual([...new Set([...c.losers()].map(({ key }) => key))].sort(), losing);
        }
      }),
    );
  });
});
