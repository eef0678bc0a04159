import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address } from '../../test/fakes/packets.ts';
import { DROP_FOREIGN_DESTINATION, DROP_UNKNOWN_SOURCE } from './drop-reason.ts';
import { RefusedSenders } from './refused-senders.ts';

const STRANGER = address('203.0.113.9');
const POD = address('10.244.2.9');

describe('RefusedSenders', () => {
  it('hands over what the worker noted, by sender and reason, once', () => {
    const senders = RefusedSenders.allocate();
    const worker = new RefusedSenders(senders.buffer);
    worker.note(STRANGER, DROP_UNKNOWN_SOURCE, POD, 3);
    worker.note(STRANGER, DROP_UNKNOWN_SOURCE, address('10.244.2.10'), 40);
    worker.note(STRANGER, DROP_FOREIGN_DESTINATION, 0, 1);
    assert.deepEqual(senders.take(), [], 'the half that is being filled is left alone');
    assert.deepEqual(senders.take(), [
      { sender: STRANGER, reason: 'unknown-source', inner: POD, packets: 43 },
      { sender: STRANGER, reason: 'foreign-destination', inner: 0, packets: 1 },
    ]);
    for (let again = 0; again < 3; again++) assert.deepEqual(senders.take(), []);
  });

  it('goes on while the other half is read', () => {
    const senders = RefusedSenders.allocate();
    senders.note(1, DROP_UNKNOWN_SOURCE, 0, 1);
    senders.take();
    senders.note(2, DROP_UNKNOWN_SOURCE, 0, 1);
    assert.deepEqual(senders.take().map(({ sender }) => sender), [1]); // biome-ignore format: one line
    senders.note(3, DROP_UNKNOWN_SOURCE, 0, 1);
    assert.deepEqual(senders.take().map(({ sender }) => sender), [2]); // biome-ignore format: one line
    assert.deepEqual(senders.take().map(({ sender }) => sender), [3]); // biome-ignore format: one line
  });

  it('keeps the first 32 of a flood of forged addresses, and has no more memory', () => {
    const senders = RefusedSenders.allocate();
    for (let sender = 1; sender <= 10_000; sender++) senders.note(sender, DROP_UNKNOWN_SOURCE, 0, 1);
    senders.note(7, DROP_UNKNOWN_SOURCE, 0, 2 ** 31);
    senders.take();
    const taken = senders.take();
    assert.equal(taken.length, 32);
    assert.deepEqual(taken[6], { sender: 7, reason: 'unknown-source', inner: 0, packets: 0x7fff_ffff });
  });
});
