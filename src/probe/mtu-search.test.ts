import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { MtuSearch } from './mtu-search.ts';

/** Runs a search on a path that takes so much. @returns what it found, and with how many probes. */
function searchOn(mtuBytes: number, fullBytes: number, saysSo: boolean): { found: number; probes: number } {
  const search = new MtuSearch(fullBytes);
  if (saysSo) search.told(mtuBytes);
  let probes = 0;
  for (let size = search.next; size !== undefined; size = search.next, probes++) {
    if (size <= mtuBytes) search.passed(size);
    else search.failed(size);
  }
  return { found: search.found!, probes };
}

describe('the search for a path’s MTU', () => {
  it('finds what passes to within two bytes, in few probes, whatever the path takes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 577, max: 9_000 }), fc.integer({ min: 1, max: 3_000 }), (mtu, more) => {
        const { found, probes } = searchOn(mtu, mtu + more, false);
        assert.ok(found <= mtu && found > mtu - 2, `${found} of ${mtu}`);
        assert.ok(probes <= 14);
      }),
    );
  });

  it('takes one probe where a router says what passes', () => {
    assert.deepEqual(searchOn(1_400, 1_472, true), { found: 1_400, probes: 1 });
  });

  it('is not misled by a router that lies', () => {
    const search = new MtuSearch(1_472);
    search.told(1_450);
    search.failed(1_450);
    search.told(2_000);
    for (let size = search.next; size !== undefined; size = search.next) {
      if (size <= 1_300) search.passed(size);
      else search.failed(size);
    }
    assert.ok(search.found! > 1_298 && search.found! <= 1_300);
  });
});
