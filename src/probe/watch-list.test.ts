import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { WatchList } from './watch-list.ts';

const ids = (count: number): string[] => Array.from({ length: count }, (_, i) => `p${i}`);

function listOf(count: number, room = 64): WatchList {
  const list = new WatchList(room);
  for (const id of ids(count)) list.add(id);
  return list;
}

describe('the list of peers that are probed', () => {
  it('has all of them while they are few, each in its turn', () => {
    const list = listOf(5);
    list.now(0);
    const turns = Array.from({ length: 10 }, () => list.next());
    assert.deepEqual(new Set(turns.slice(0, 5)), new Set(ids(5)));
    assert.deepEqual(turns.slice(0, 5), turns.slice(5));
    list.remove('p2');
    assert.deepEqual(list.now(0), new Set(['p0', 'p1', 'p3', 'p4']));
  });

  it('of many has those with traffic and a sample that reaches everybody in time', () => {
    const list = listOf(5_000);
    const active = ids(5_000).slice(100, 120);
    list.setActive(active);
    const seen = new Set<string>();
    for (let minute = 0; minute <= 5_000 / 16 + 1; minute++) {
      const watched = list.now(minute * 60_000);
      assert.ok(watched.size <= 36);
      for (const id of active) assert.ok(watched.has(id));
      for (const id of watched) seen.add(id);
    }
    assert.equal(seen.size, 5_000);
  });

  it('never has more than there is room for, nor a peer that is gone, whatever comes and goes', () => {
    const step = fc.record({
      add: fc.boolean(),
      id: fc.integer({ min: 0, max: 150 }),
      pause: fc.integer({ min: 0, max: 70_000 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const list = new WatchList(20);
        const there = new Set<string>();
        let now = 0;
        for (const { add, id, pause } of steps) {
          if (add) list.add(`p${id}`);
          else list.remove(`p${id}`);
          if (add) there.add(`p${id}`);
          else there.delete(`p${id}`);
          list.setActive(there);
          now += pause;
          const watched = list.now(now);
          assert.ok(watched.size <= 20);
          for (const each of watched) assert.ok(there.has(each));
          assert.equal(list.next() === undefined, there.size === 0);
        }
      }),
    );
  });
});
