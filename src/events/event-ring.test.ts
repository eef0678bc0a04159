import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { NewEvent } from './event.ts';
import { EventRing } from './event-ring.ts';

const event = (text: string): NewEvent => ({ kind: 'peer-added', severity: 'info', subject: '10.244.2.0/24', text });

describe('the ring of events', () => {
  it('gives what is after an id, the oldest first, and says what it has forgotten', () => {
    const run = (capacity: number, count: number, after: number, limit: number): void => {
      const ring = new EventRing(capacity, () => 7);
      const all = Array.from({ length: count }, (_, n) => `event ${n + 1}`);
      for (const text of all) ring.add(event(text));
      const kept = all.map((text, n) => ({ id: n + 1, text })).slice(-capacity);
      const expected = kept.filter(({ id }) => id > after).slice(0, limit);
      const found = ring.after(after, limit);
      assert.deepEqual(
        found.events.map(({ id, text }) => ({ id, text })),
        expected,
      );
      assert.equal(found.newestId, count);
      assert.equal(found.oldestId, kept[0]?.id ?? 1);
    };
    const small = (max: number) => fc.integer({ min: 0, max });
    fc.assert(fc.property(fc.integer({ min: 1, max: 8 }), small(30), small(35), small(12), run));
  });

  it('shows what cannot be printed, and cuts what is long', () => {
    const ring = new EventRing();
    ring.add({ ...event(`a\u001b[31mred\n${'x'.repeat(5_000)}`), subject: 'peer\n2', cause: 'b\u0007' });
    const [kept] = ring.after(0, 1).events;
    assert.match(kept?.text ?? '', /^a\\x1b\[31mred\\nx+… \(\d+ more\)$/);
    assert.ok(kept!.text.length < 600);
    assert.equal(kept?.subject, 'peer\\n2');
    assert.equal(kept?.cause, 'b\\x07');
  });

  it('keeps the first operations of an event, each cut, and counts the others', () => {
    const ring = new EventRing();
    ring.add({
      ...event('many'),
      operations: [`a\nb${'x'.repeat(500)}`, ...Array.from({ length: 30 }, (_, n) => String(n))],
    });
    ring.add({ ...event('none'), operations: [] });
    const [many, none] = ring.after(0, 2).events;
    assert.match(many!.operations![0]!, /^a\\nbx+… \(\d+ more\)$/);
    assert.deepEqual(
      many!.operations!.slice(1),
      Array.from({ length: 19 }, (_, n) => String(n)),
    );
    assert.equal(many!.moreOperations, 11);
    assert.ok(!('operations' in none!) && !('moreOperations' in none!));
  });

  it('forgets the operations of all but the latest thousand events, and still counts them', () => {
    const ring = new EventRing(1_500);
    for (let n = 0; n < 2_000; n++) ring.add({ ...event('one'), operations: ['add route', 'delete route'] });
    const { events } = ring.after(0, 2_000);
    assert.equal(events.length, 1_500);
    for (const { id, operations, moreOperations } of events) {
      if (id > 1_000) assert.equal(operations?.length, 2);
      else assert.deepEqual([operations, moreOperations], [undefined, 2]);
    }
  });

  it('tells its listeners until they leave', () => {
    const ring = new EventRing();
    const heard: (number | undefined)[] = [];
    {
      using _ = ring.listen((one) => heard.push(one?.id));
      ring.add(event('one'));
      ring.hint();
    }
    ring.add(event('two'));
    ring.hint();
    assert.deepEqual([heard, ring.hints, ring.after(0, 9).newestId], [[1, undefined], 2, 2]);
  });
});
