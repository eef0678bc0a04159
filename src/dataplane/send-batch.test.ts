import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { GuardedLayout, MemoryConn } from '../../test/fakes/memory-dataplane.ts';
import { concat, hex, payloadOf } from '../../test/fakes/packets.ts';
import { createArena, IOVEC_SIZE, putIovec } from './arena.ts';
import { HEADER_STRIDE, SEND_IOVECS } from './limits.ts';
import { putSockaddr, SOCKADDR_SIZE } from './mmsghdr.ts';
import { SendBatch } from './send-batch.ts';

interface Want {
  readonly address: number;
  readonly data: Uint8Array;
}

function setUp() {
  const layout = new GuardedLayout(createArena(() => 0x7f12_ffff_f000));
  const batch = new SendBatch(layout, SOCKADDR_SIZE, (at, slot) => putSockaddr(layout.arena, at, slot, 8_285));
  const payloads = layout.take(70_000);
  const packets = layout.take(SEND_IOVECS * HEADER_STRIDE);
  let packetCount = 0;
  layout.arena.bytes.set(payloadOf(70_000), payloads);
  const conn = new MemoryConn(layout);
  /** Up to `most` equal datagrams: how many it was. */
  const addSome = (wanted: Want[], address: number, header: number, payload: number, most: number): number => {
    const first = payloadOf(header, address + header + payload);
    const data = concat(first, layout.arena.bytes.slice(payloads, payloads + payload));
    if (payload === 0) {
      const packet = packets + HEADER_STRIDE * (packetCount++ % SEND_IOVECS); // more than a batch has
      layout.arena.bytes.set(first, packet);
      batch.add(address, address, 8_285, packet, header);
      wanted.push({ address, data });
      return 1;
    }
    const count = batch.reserve(address, address, 8_285, data.length, most);
    assert.ok(count >= 1 && count <= most);
    for (let index = 0; index < count; index++) {
      const at = batch.header + index * HEADER_STRIDE;
      const iovec = batch.iovec + index * 2 * IOVEC_SIZE;
      layout.arena.bytes.set(first, at);
      putIovec(layout.arena, iovec, at, header);
      putIovec(layout.arena, iovec + IOVEC_SIZE, payloads, payload);
      wanted.push({ address, data });
    }
    batch.commitPairs(count, data.length);
    return count;
  };
  const add = (address: number, header: number, payload: number): Want => {
    const wanted: Want[] = [];
    addSome(wanted, address, header, payload, 1);
    return wanted[0]!;
  };
  return { layout, batch, conn, add, addSome };
}

const datagrams = fc.record({
  address: fc.integer({ min: 1, max: 2 }),
  header: fc.constantFrom(20, 28, 52, HEADER_STRIDE),
  payload: fc.oneof(fc.constantFrom(0, 1_000, 1_420), fc.nat(3_000), fc.constantFrom(40_000, 65_379)),
  equal: fc.oneof({ weight: 4, arbitrary: fc.constant(1) }, fc.integer({ min: 2, max: 100 })),
});

describe('SendBatch', () => {
  it('every datagram leaves as it was added, whatever was put in one message', () => {
    const { layout, batch, conn, addSome } = setUp();
    fc.assert(
      fc.property(fc.array(datagrams, { minLength: 1, maxLength: 200 }), (list) => {
        const wanted: Want[] = [];
        const flush = (): void => {
          batch.seal();
          assert.equal(conn.send(batch.message(0), batch.count), batch.count);
          const counted = Array.from({ length: batch.count }, (_, index) => batch.segments(index));
          assert.deepEqual(
            conn.messages.splice(0).map((message) => message.datagrams),
            counted,
          );
          batch.reset();
        };
        for (const { address, header, payload, equal } of list) {
          for (let left = equal; left > 0; ) {
            if (!batch.hasRoom) flush();
            left -= addSome(wanted, address, header, payload, left);
          }
        }
        flush();
        layout.checkGuards();
        const sent = conn.sent.splice(0);
        assert.deepEqual(
          sent.map(({ address, data }) => `${address} ${hex(data)}`),
          wanted.map(({ address, data }) => `${address} ${hex(data)}`),
        );
      }),
      { numRuns: 60 },
    );
  });

  it('equal datagrams to one peer share a message: 64 of them, 65,507 bytes, the last may be shorter', () => {
    const shapes = (sizes: readonly (readonly [address: number, payload: number])[]): number[] => {
      const { batch, add } = setUp();
      for (const [address, payload] of sizes) add(address, 40, payload);
      return Array.from({ length: batch.count }, (_, index) => batch.segments(index));
    };
    assert.deepEqual(shapes(Array.from({ length: 65 }, () => [1, 10] as const)), [64, 1]);
    assert.deepEqual(shapes(Array.from({ length: 46 }, () => [1, 1_432] as const)), [44, 2]);
    assert.deepEqual(shapes([[1, 10], [1, 10], [1, 9], [1, 9], [1, 10]]), [3, 1, 1]); // biome-ignore format: rows
    assert.deepEqual(shapes([[1, 10], [2, 10], [1, 10]]), [1, 1, 1]); // biome-ignore format: rows
  });

  it('takes equal datagrams together where it would take them one by one', () => {
    const shapes = (length: number, most: number, total: number): number[] => {
      const { batch, addSome } = setUp();
      for (let left = total; left > 0 && batch.hasRoom; ) left -= addSome([], 1, 40, length, Math.min(most, left));
      return Array.from({ length: batch.count }, (_, index) => batch.segments(index));
    };
    for (const length of [1, 984, 1_432, 30_000, 65_400]) {
      for (const total of [1, 44, 64, 100]) {
        assert.deepEqual(shapes(length, 1_000, total), shapes(length, 1, total));
      }
    }
  });

  it('has room for 64 messages, 2,048 vector entries and 1,024 headers, whichever is used up first', () => {
    const fill = (shape: (count: number) => readonly [address: number, header: number, payload: number]): number => {
      const { layout, batch, conn, add } = setUp();
      let count = 0;
      while (batch.hasRoom) add(...shape(count++));
      batch.seal();
      assert.equal(conn.send(batch.message(0), batch.count), batch.count);
      assert.equal(conn.sent.length, count);
      layout.checkGuards();
      return count;
    };
    assert.equal(
      fill((count) => [1 + (count % 2), 40, 10]),
      64,
    );
    assert.equal(
      fill(() => [1, 40, 10]),
      1_024,
    );
    // A datagram in one piece takes one entry, but the next may have two.
    assert.equal(
      fill(() => [1, 40, 0]),
      2_047,
    );
  });

  it('one datagram a message after the kernel refused segments', () => {
    const { batch, conn, add } = setUp();
    conn.segmentationRefused = 5;
    batch.disableSegmentation();
    const wanted = Array.from({ length: 5 }, () => add(1, 40, 100));
    batch.seal();
    assert.equal(conn.send(batch.message(0), batch.count), 5);
    assert.deepEqual(
      conn.sent.map(({ data }) => data),
      wanted.map(({ data }) => data),
    );
  });

  it('splits a message into its datagrams, each with the header it begins with', () => {
    fc.assert(
      fc.property(fc.array(datagrams, { minLength: 1, maxLength: 60 }), (list) => {
        const { layout, batch, conn, add } = setUp();
        const wanted: Want[] = [];
        for (const { address, header, payload } of list) if (batch.hasRoom) wanted.push(add(address, header, payload));
        batch.seal();
        let at = 0;
        for (let index = 0; index < batch.count; index++) {
          batch.splitMessage(index, (message, bytes, ip, present) => {
            const { data } = wanted[at++]!;
            assert.equal(bytes, data.length);
            assert.deepEqual(layout.arena.bytes.slice(ip, ip + present), data.slice(0, present));
            assert.equal(conn.send(message, 1), bytes > 65_507 ? -90 : 1);
          });
        }
        assert.equal(at, wanted.length);
        const fitting = wanted.filter(({ data }) => data.length <= 65_507);
        assert.deepEqual(
          conn.sent.map(({ data }) => hex(data)),
          fitting.map(({ data }) => hex(data)),
        );
      }),
      { numRuns: 60 },
    );
  });
});
