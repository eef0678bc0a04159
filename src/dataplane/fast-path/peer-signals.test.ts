import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../../test/netns/waiting.ts';
import type { IpAddr } from '../../ip/address.ts';
import { parseIpv6, putIpv6 } from '../../ip/ipv6.ts';
import { type PeerSignal, SignalQueue } from './peer-signals.ts';
import { SIGN_PAYLOAD_BYTES } from './sign.ts';

async function arrived(taken: readonly unknown[], count: number): Promise<void> {
  await eventually(`${count} signals`, () => taken.length >= count);
}

describe('the queue from a packet worker', () => {
  it('hands over what was put in, in order, and wakes who waits', async () => {
    const queue = SignalQueue.allocate();
    let now = 0;
    const writer = new SignalQueue(queue.buffer).writer(() => now, 8);
    const taken: PeerSignal[] = [];
    using _reading = queue.read((signal) => taken.push(signal));
    await delay(1);
    writer.sent(1, 0x0a00_0001);
    writer.received(1, 0xfffffffe | 0);
    const bytes = Uint8Array.from({ length: 100 }, (_, index) => index);
    writer.sign(2, 7, bytes, 40);
    await arrived(taken, 3);
    assert.deepEqual(taken, [
      { type: 'sent', address: 0x0a00_0001 },
      { type: 'received', address: 0xffff_fffe },
      { type: 'sign', address: 7, payload: bytes.slice(40, 40 + SIGN_PAYLOAD_BYTES) },
    ]);
    // One of a kind a peer and a time, and none of nobody.
    writer.sent(1, 1);
    writer.sent(0, 1);
    now = 1_000;
    writer.sent(1, 2);
    await arrived(taken, 4);
    assert.deepEqual(taken.slice(3), [{ type: 'sent', address: 2 }]);
  });

  it('names hosts by their addresses, not by the slots that they have now, where those have IPv6 alone', async () => {
    const queue = SignalQueue.allocate();
    const hosts = ['fd77::1', 'fd77::ffff:0:2'];
    const writer = queue.writer(() => 0, 8, {
      putHostAddress6: (slot, view, offset) => putIpv6(view, offset, parseIpv6(hosts[slot - 1]!)!),
    });
    const taken: PeerSignal[] = [];
    using _reading = queue.read((signal) => taken.push(signal));
    writer.received(2, 2);
    const bytes = Uint8Array.from({ length: 100 }, (_, index) => index);
    writer.sign(1, 1, bytes, 40);
    await arrived(taken, 2);
    assert.deepEqual(taken, [
      { type: 'received', address: parseIpv6('fd77::ffff:0:2') },
      { type: 'sign', address: parseIpv6('fd77::1'), payload: bytes.slice(40, 40 + SIGN_PAYLOAD_BYTES) },
    ]);
  });

  it('lets a second sign of a peer through at once, and no more', async () => {
    const queue = SignalQueue.allocate();
    let now = 1_000;
    const writer = queue.writer(() => now, 8);
    const taken: unknown[] = [];
    using _reading = queue.read(({ address }) => taken.push(address));
    const sign = (address: number): void => writer.sign(1, address, new Uint8Array(SIGN_PAYLOAD_BYTES), 0);
    for (const address of [1, 2, 3]) sign(address);
    now += 2;
    for (const address of [4, 5]) sign(address);
    now += 1_000;
    for (const address of [6, 7, 8]) sign(address);
    writer.received(1, 9);
    await eventually('the last signal', () => taken.includes(9));
    assert.deepEqual(taken, [1, 2, 4, 6, 7, 9]);
  });

  it('loses what finds no room, and nothing else', async () => {
    const queue = SignalQueue.allocate();
    const writer = queue.writer(() => 0, 10_000);
    const taken: IpAddr[] = [];
    using _reading = queue.read(({ address }) => taken.push(address));
    for (let slot = 1; slot <= 5_000; slot++) writer.sent(slot, slot);
    await arrived(taken, 1_024);
    assert.deepEqual(
      taken,
      Array.from({ length: 1_024 }, (_, index) => index + 1),
    );
    writer.sent(9_000, 9_000);
    await arrived(taken, 1_025);
    assert.equal(taken.at(-1), 9_000);
  });
});
