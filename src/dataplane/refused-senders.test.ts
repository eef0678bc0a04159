import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address } from '../../test/fakes/packets.ts';
import { DROP_FOREIGN_DESTINATION, DROP_UNKNOWN_SOURCE } from './drop-reason.ts';
import { type AddressAt, RefusedSenders } from './refused-senders.ts';

const STRANGER = address('203.0.113.9');
const POD = address('10.244.2.9');

/** Notes an address of either version (a number or a bigint), as the worker has it in memory. */
function note(
  senders: RefusedSenders,
  sender: number | bigint,
  reason: number,
  inner: number | bigint | undefined,
  packets: number,
): void {
  const view = new DataView(new ArrayBuffer(32));
  const put = (value: number | bigint, at: number): AddressAt => {
    if (typeof value === 'number') view.setUint32(at, value);
    else {
      view.setBigUint64(at, value >> 64n);
      view.setBigUint64(at + 8, value & 0xffff_ffff_ffff_ffffn);
    }
    return { version: typeof value === 'number' ? 4 : 6, at };
  };
  senders.note(view, put(sender, 0), reason, inner === undefined ? undefined : put(inner, 16), packets);
}

describe('RefusedSenders', () => {
  it('hands over what the worker noted, by sender and reason, once', () => {
    const senders = RefusedSenders.allocate();
    const worker = new RefusedSenders(senders.buffer);
    note(worker, STRANGER, DROP_UNKNOWN_SOURCE, POD, 3);
    note(worker, STRANGER, DROP_UNKNOWN_SOURCE, address('10.244.2.10'), 40);
    note(worker, STRANGER, DROP_FOREIGN_DESTINATION, undefined, 1);
    assert.deepEqual(senders.take(), [], 'the half that is being filled is left alone');
    assert.deepEqual(senders.take(), [
      { sender: STRANGER, reason: 'unknown-source', inner: POD, packets: 43 },
      { sender: STRANGER, reason: 'foreign-destination', inner: undefined, packets: 1 },
    ]);
    for (let again = 0; again < 3; again++) assert.deepEqual(senders.take(), []);
  });

  it('keeps addresses of IPv6 as they are, beside those of IPv4', () => {
    const senders = RefusedSenders.allocate();
    const [pod, other] = [0xfd00_0000_0000_0001_ffff_ffff_8000_0005n, 0xfd00_0000_0000_0001_ffff_ffff_8000_0006n];
    note(senders, STRANGER, DROP_UNKNOWN_SOURCE, pod, 1);
    note(senders, pod, DROP_UNKNOWN_SOURCE, pod, 2);
    note(senders, other, DROP_UNKNOWN_SOURCE, undefined, 3);
    note(senders, pod, DROP_UNKNOWN_SOURCE, other, 4);
    senders.take();
    assert.deepEqual(senders.take(), [
      { sender: STRANGER, reason: 'unknown-source', inner: pod, packets: 1 },
      { sender: pod, reason: 'unknown-source', inner: pod, packets: 6 },
      { sender: other, reason: 'unknown-source', inner: undefined, packets: 3 },
    ]);
  });

  it('goes on while the other half is read', () => {
    const senders = RefusedSenders.allocate();
    note(senders, 1, DROP_UNKNOWN_SOURCE, undefined, 1);
    senders.take();
    note(senders, 2, DROP_UNKNOWN_SOURCE, undefined, 1);
    assert.deepEqual(senders.take().map(({ sender }) => sender), [1]); // biome-ignore format: one line
    note(senders, 3, DROP_UNKNOWN_SOURCE, undefined, 1);
    assert.deepEqual(senders.take().map(({ sender }) => sender), [2]); // biome-ignore format: one line
    assert.deepEqual(senders.take().map(({ sender }) => sender), [3]); // biome-ignore format: one line
  });

  it('keeps the first 32 of a flood of forged addresses, and has no more memory', () => {
    const senders = RefusedSenders.allocate();
    for (let sender = 1; sender <= 10_000; sender++) note(senders, sender, DROP_UNKNOWN_SOURCE, undefined, 1);
    note(senders, 7, DROP_UNKNOWN_SOURCE, undefined, 2 ** 31);
    senders.take();
    const taken = senders.take();
    assert.equal(taken.length, 32);
    assert.deepEqual(taken[6], { sender: 7, reason: 'unknown-source', inner: undefined, packets: 0x7fff_ffff });
  });
});
