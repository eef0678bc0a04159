import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type CopiesFacts, type CountedRise, judgeCopies } from './trace-copies.ts';

const FAR = '192.168.77.2';
const spoofed = (packets: number): CountedRise => ({ host: FAR, side: 'rx', reason: 'spoofed-source', packets });
const received = (packets: number): CountedRise => ({ host: FAR, side: 'received', reason: 'packets', packets });

function judge(facts: Partial<CopiesFacts>) {
  return judgeCopies({ copies: 10, meanwhile: [], ofCopies: [], share: 0.5, farHost: FAR, ...facts });
}

describe('counters of agents', () => {
  it('are the packet’s where they rise with all copies', () => {
    const { drops, notes } = judge({ meanwhile: [spoofed(1)], ofCopies: [spoofed(10)] });
    assert.deepEqual([drops, notes], [[spoofed(10)], []]);
  });

  it('of other packets are named as such', () => {
    // Twelve a second, and half a second of copies.
    const { drops, notes } = judge({ meanwhile: [spoofed(13)], ofCopies: [spoofed(6)] });
    assert.deepEqual([drops, notes], [[], [`dropped meanwhile, of other packets: spoofed-source (rx) at ${FAR}`]]);
    const both = judge({ meanwhile: [spoofed(13)], ofCopies: [spoofed(16)] });
    assert.deepEqual(both.drops, [spoofed(16)]);
  });

  it('tell nothing beside too many other packets', () => {
    const flood = judge({ meanwhile: [spoofed(4_001), received(4_001)], ofCopies: [spoofed(2_050), received(2_050)] });
    assert.deepEqual([flood.drops, flood.hasArrived], [[], 'unclear']);
  });

  it('say whether the copies have arrived', () => {
    assert.equal(judge({ meanwhile: [received(3)], ofCopies: [received(11)] }).hasArrived, true);
    // An agent's own probes.
    assert.equal(judge({ meanwhile: [received(9)], ofCopies: [received(4)] }).hasArrived, false);
    assert.equal(judge({}).hasArrived, false);
  });
});
