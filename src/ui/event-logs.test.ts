import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Answer } from '../api/schema.ts';
import { EventLogs } from './event-logs.ts';

const START = 1_000;

/** What an agent answers that has events from the first to the last of these ids, as far as it still keeps them. */
function answer(firstId: number, lastId: number, startedAtMs = START): Answer<'/events'> {
  const events = Array.from({ length: Math.max(0, lastId - firstId + 1) }, (_, index) => ({
    ...{ id: firstId + index, atMs: 1, kind: 'peer-added' as const, severity: 'info' as const },
    ...{ subject: 's', text: 't' },
  }));
  return { startedAtMs, events, oldestId: 1, newestId: lastId };
}

const idsOf = (logs: EventLogs, seen: number) =>
  logs.since(seen).hosts.map(({ host, events }) => `${host} ${events.map(({ id }) => id)}`);

describe('what happened on all hosts', () => {
  it('is told once to who asks for what came after what he has seen', () => {
    const logs = new EventLogs(2);
    assert.deepEqual(logs.since(0), { newest: 0, hosts: [] });
    logs.take('a', 0, answer(1, 2));
    logs.take('b', 0, answer(1, 1));
    assert.deepEqual(idsOf(logs, 0), ['a 1,2', 'b 1']);
    const seen = logs.since(0).newest;
    assert.deepEqual(logs.since(seen), { newest: seen, hosts: [] });
    logs.take('a', 0, answer(2, 4));
    assert.deepEqual(idsOf(logs, seen), ['a 3,4'], 'what came twice is there once');
  });

  it('is asked of an agent when it has something new, and not again', () => {
    const logs = new EventLogs(2);
    const after = (newestEventId: number | undefined, startedAtMs = START) =>
      logs.question('a', { startedAtMs, ...(newestEventId !== undefined && { newestEventId }) })?.after;
    assert.deepEqual(logs.question('a', { startedAtMs: START, newestEventId: 2 }), { after: 0, limit: 10_000 });
    logs.take('a', 0, answer(1, 2));
    assert.equal(after(2), undefined);
    assert.equal(after(1), undefined, 'what it said before it was asked');
    assert.equal(after(3), 2);
    assert.equal(after(undefined), 2, 'an agent that does not say what it has');
    assert.equal(after(20_000), 10_000, 'the latest of too many');
    logs.take('a', 10_000, { ...answer(1, 0), newestId: 20_000 });
    assert.equal(after(20_000), undefined, 'it has forgotten them');
    assert.equal(after(0, START + 1), 0, 'of another process');
    logs.take('a', 0, answer(1, 0, START + 1));
    assert.equal(after(0, START + 1), undefined, 'which has none yet');
  });

  it('is heard of an agent that is followed, which is asked for what was missed', () => {
    const logs = new EventLogs(2);
    const [one, two, three, four] = answer(1, 4).events;
    const after = () => logs.question('a', { startedAtMs: START, newestEventId: 1 })?.after;
    logs.hear('a', one!);
    assert.deepEqual(logs.since(0).hosts, [], 'nobody has asked for it');
    logs.take('a', 0, answer(1, 1));
    for (const event of [one, two]) logs.hear('a', event!);
    assert.deepEqual([idsOf(logs, 0), after()], [['a 1,2'], undefined]);
    logs.hear('a', four!);
    assert.deepEqual([idsOf(logs, 0), after()], [['a 1,2'], 2]);
    logs.take('a', 2, answer(3, 4));
    logs.hear('a', three!);
    assert.deepEqual([idsOf(logs, 0), after()], [['a 1,2,3,4'], undefined]);
    logs.missed('a');
    assert.equal(after(), 4, 'it is followed again');
  });

  it('is asked for anew when the agent has become another process meanwhile', () => {
    const logs = new EventLogs(2);
    logs.take('a', 0, answer(1, 3));
    logs.take('a', 3, answer(4, 5, START + 1));
    assert.equal(logs.question('a', { startedAtMs: START + 1, newestEventId: 5 })?.after, 0);
  });

  it('is that of the present agent of a host', () => {
    const logs = new EventLogs(1);
    logs.take('a', 0, answer(1, 3));
    const { newest } = logs.since(0);
    logs.take('a', 0, answer(1, 1, START + 1));
    assert.deepEqual(
      logs.since(newest).hosts.map(({ startedAtMs }) => startedAtMs),
      [START + 1],
    );
    assert.deepEqual(idsOf(logs, 0), ['a 1']);
  });

  it('is kept up to a limit, however many hosts there are', () => {
    const logs = new EventLogs(500);
    assert.deepEqual(logs.question('a', { startedAtMs: START, newestEventId: 5_000 }), { after: 4_900, limit: 100 });
    logs.take('a', 4_900, answer(4_901, 5_000));
    logs.take('a', 5_000, answer(5_001, 5_150));
    const [host] = logs.since(0).hosts;
    assert.deepEqual([host?.events.length, host?.events.at(-1)?.id], [100, 5_150]);
  });
});
