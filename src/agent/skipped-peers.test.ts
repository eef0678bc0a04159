import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { LeaseKey } from '../lease/lease.ts';
import { SkippedPeers } from './skipped-peers.ts';

const FIRST = '10.244.1.0-24' as LeaseKey;

describe('peers that are not reached', () => {
  it('are said once for each reason, and again after they were reached', () => {
    const said: string[] = [];
    const skipped = new SkippedPeers({ warn: (text) => said.push(text) }, () => {});
    for (const reason of ['too far', 'too far', 'of another type', undefined, 'of another type'])
      skipped.set(FIRST, reason === undefined ? {} : { skipped: reason });
    const [far, other] = ['Cannot reach 10.244.1.0/24: too far', 'Cannot reach 10.244.1.0/24: of another type'];
    assert.deepEqual(said, [far, other, other]);
    assert.deepEqual([skipped.count, skipped.lines()], [1, [`${other}.`]]);
    skipped.set(FIRST, undefined);
    assert.deepEqual([skipped.count, skipped.lines()], [0, []]);
  });

  it('are named, too, when it is in one family', () => {
    const said: string[] = [];
    const skipped = new SkippedPeers({ warn: (text) => said.push(text) }, () => {});
    skipped.set('10.244.1.0-24&fd10:0:0:1::-64' as LeaseKey, { lacks: 'too far.' });
    const text = 'Cannot reach 10.244.1.0/24&fd10:0:0:1::/64 in one family: too far.';
    assert.deepEqual([said, skipped.count, skipped.lines()], [[text], 1, [text]]);
  });

  it('are all counted and some named when there are many', () => {
    const skipped = new SkippedPeers({ warn: () => undefined }, () => {});
    for (let third = 1; third <= 200; third++) skipped.set(`10.244.${third}.0-24` as LeaseKey, { skipped: 'too far' });
    const lines = skipped.lines();
    assert.equal(skipped.count, 200);
    assert.equal(lines.length, 21);
    assert.deepEqual([lines[0], lines.at(-1)], ['Cannot reach 10.244.1.0/24: too far.', 'And 180 more.']);
  });

  it('are few lines and events of thousands, also of one that has another reason all the time', () => {
    const [lines, events]: [string[], string[]] = [[], []];
    let nowMs = 0;
    const skipped = new SkippedPeers(
      { warn: (text) => void lines.push(text) },
      ({ subject }) => void events.push(subject),
      () => nowMs,
    );
    for (let n = 0; n < 1_000; n++) {
      skipped.set(`10.${n >> 8}.${n & 255}.0-24` as LeaseKey, { skipped: 'it has no data' });
    }
    assert.deepEqual([lines.length, events.length, skipped.count], [20, 20, 1_000]);
    for (let n = 0; n < 1_000; n++) skipped.set(FIRST, { skipped: `its data is ${n}` });
    assert.equal(lines.length, 20);
    assert.match(skipped.reasonOf(FIRST)!, /its data is 999$/);
    nowMs = 10_000;
    skipped.set(FIRST, { skipped: 'too far' });
    assert.equal(lines.at(-1), 'Cannot reach 10.244.1.0/24: too far (1980 more peers were not logged)');
    assert.equal(events.length, 21);
  });
});
