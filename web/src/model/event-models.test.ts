import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Peers, Self, State } from '../../../src/api/schema.ts';
import type { HostEvents } from '../../../src/ui/event-logs.ts';
import { cpuShare, dropsOf, dropWords, findingsOf, pathShares, perSecond } from './host-figures.ts';
import { changesOf, type HostEvent, kernelLines, mergeEvents, newestFirst, spanOf, ticksOf } from './timeline.ts';

const event = (id: number, atMs: number) =>
  ({ id, atMs, kind: 'peer-added', severity: 'info', subject: '10.1.0.0/24', text: `event ${id}` }) as const;
const told = (host: string, startedAtMs: number, ...events: HostEvents['events']): HostEvents => ({
  host,
  startedAtMs,
  events,
});

describe('events of hosts', () => {
  const idsOf = (logs: ReturnType<typeof mergeEvents>, host: string) => logs.get(host)?.events.map(({ id }) => id);

  it('are added to those that are known', () => {
    const first = mergeEvents(new Map(), [told('a', 5, event(1, 10), event(2, 20)), told('b', 6, event(1, 10))]);
    const second = mergeEvents(first, [told('a', 5, event(3, 30))]);
    assert.deepEqual([idsOf(second, 'a'), idsOf(second, 'b')], [[1, 2, 3], [1]]);
    assert.deepEqual(idsOf(first, 'a'), [1, 2]);
  });

  it('are those of its present agent alone', () => {
    const first = mergeEvents(new Map(), [told('a', 5, event(1, 10), event(2, 20))]);
    assert.deepEqual(idsOf(mergeEvents(first, [told('a', 6, event(1, 90))]), 'a'), [1]);
  });

  it('are the latest, with very many', () => {
    const many = Array.from({ length: 20_000 }, (_, index) => event(index + 1, index));
    const logs = mergeEvents(new Map(), [told('a', 5, ...many)]);
    assert.deepEqual([idsOf(logs, 'a')?.length, idsOf(logs, 'a')?.at(-1)], [10_000, 20_000]);
    const hosts = Array.from({ length: 500 }, (_, index) => told(`${index}`, 5, ...many.slice(0, 200)));
    const all = [...mergeEvents(new Map(), hosts).values()].reduce((sum, { events }) => sum + events.length, 0);
    assert.equal(all, 50_000);
  });

  it('of all hosts are one list, the newest first', () => {
    const logs = mergeEvents(new Map(), [told('a', 1, event(1, 10), event(2, 30)), told('b', 1, event(1, 20))]);
    assert.deepEqual(
      newestFirst(logs.values()).map(({ host, id }) => `${host}${id}`),
      ['a2', 'b1', 'a1'],
    );
  });

  it('lie on an axis with round times', () => {
    assert.deepEqual(spanOf('5m', [], 1_000_000), [700_000, 1_000_000]);
    const [from, to] = spanOf('all', [{ ...event(1, 500_000), host: 'a' }], 1_000_000);
    assert.ok(from < 500_000 && to === 1_000_000);
    const ticks = ticksOf([0, 3_600_000], 8);
    assert.ok(ticks.length <= 8 && ticks.every((tick) => tick % 600_000 === 0), ticks.join());
  });
});

describe('what the kernel has of an event', () => {
  it('is what names its subject, as a diff', () => {
    const entries: State['entries'] = [
      { type: 'route', key: '10.1.0.0/24', wanted: 'via 1.1.1.1', actual: 'via 1.1.1.1', status: 'same' },
      { type: 'route', key: '10.2.0.0/24', wanted: 'via 1.1.1.2', status: 'missing' },
      { type: 'fdb', key: '02:00', wanted: 'dst 1.1.1.1 for 10.1.0.0/24', actual: 'dst 9.9.9.9', status: 'different' },
    ];
    assert.deepEqual(
      kernelLines(entries, { subject: '10.1.0.0/24', text: 'a peer' }).map(({ sign, text }) => sign + text),
      [' route 10.1.0.0/24 via 1.1.1.1', '−fdb 02:00 dst 9.9.9.9', '+fdb 02:00 dst 1.1.1.1 for 10.1.0.0/24'],
    );
    assert.deepEqual(kernelLines(entries, { subject: 'kernel', text: 'nothing that has a name' }), []);
    const [line] = kernelLines(entries, { subject: 'kernel', text: 'restored: route 10.2.0.0/24 via 1.1.1.9' });
    assert.deepEqual(line, { sign: '+', text: 'route 10.2.0.0/24 via 1.1.1.2' });
  });
});

describe('what an event changed', () => {
  const event = (id: number, fields: Partial<HostEvent>): HostEvent => ({
    ...{ id, atMs: id * 100, kind: 'kernel-changed', severity: 'info', subject: 'kernel', text: '', host: 'h1' },
    ...fields,
  });
  const signed = (one: HostEvent, all: readonly HostEvent[] = [one]) =>
    changesOf(one, all).lines.map(({ sign, text }) => sign + text);

  it('is what it did itself, with what went and what came', () => {
    const operations = ['delete route 10.2.0.0/24', 'add route 10.2.0.0/24 via 1.1.1.9'];
    const own = event(1, { kind: 'kernel-repaired', operations, moreOperations: 3 });
    assert.deepEqual(signed(own), ['−delete route 10.2.0.0/24', '+add route 10.2.0.0/24 via 1.1.1.9']);
    assert.equal(changesOf(own, [own]).left, 3);
    assert.deepEqual(changesOf(event(1, { moreOperations: 4 }), []), { lines: [], left: 4 });
  });

  it('is what came next on what it names, on its host', () => {
    const peer = event(5, { kind: 'peer-added', subject: '10.2.0.0/24', text: 'a peer came' });
    const next = event(7, { operations: ['add route 10.2.0.0/24 via 1.1.1.2', 'add route 10.3.0.0/24 via 1.1.1.3'] });
    const others = [
      event(4, { operations: ['add route 10.2.0.0/24 before'] }),
      event(6, { host: 'h2', operations: ['add route 10.2.0.0/24 elsewhere'] }),
      event(8, { kind: 'kernel-repaired', operations: ['add route 10.2.0.0/24 put back'] }),
      event(9, { atMs: 60_000, operations: ['add route 10.2.0.0/24 much later'] }),
    ];
    assert.deepEqual(signed(peer, [next, peer, ...others]), ['+add route 10.2.0.0/24 via 1.1.1.2']);
    assert.deepEqual(signed(peer), []);
  });
});

describe('figures of a host', () => {
  const traffic = (packets: number, drops: Record<string, number> = {}) => ({ packets, bytes: packets * 100, drops });
  const self = (atMs: number, cpuSeconds: number, startedAtMs = 1) =>
    ({
      atMs,
      startedAtMs,
      process: { cpuSeconds, rssBytes: 1, heapBytes: 1 },
      totals: { tx: traffic(1, { 'no-peer': 2 }), rx: traffic(1, { 'bad-source': 5, 'no-peer': 1 }) },
      dataPath: { queueDrops: { tun: 0, socket: 4 } },
      store: { isReachable: true, isConfigOutdated: false, unreadableEntries: 0, name: 'etcd' },
    }) as unknown as Self;

  it('are drops by reason, of all places together', () => {
    assert.deepEqual(
      [...dropsOf(self(1, 1))],
      [
        ['bad-source', 5],
        ['socket', 4],
        ['no-peer', 3],
      ],
    );
  });

  it('are drops by the kernel as well, which a backend without a forwarder has alone', () => {
    const of = (dataPath: object) => ({ ...self(1, 1), totals: undefined, dataPath }) as unknown as Self;
    const vxlan = of({ queueDrops: {}, hostDrops: { 'filtered-out': 7, 'no-route': 0 }, hostDrops6: { 'too-big': 1 } });
    assert.deepEqual(
      [...dropsOf(vxlan)],
      [
        ['kernel: filtered-out', 7],
        ['kernel, IPv6: too-big', 1],
      ],
    );
    // One reason of the agent and one of the kernel have the same name.
    const both = { ...self(1, 1), totals: { tx: traffic(1, { 'too-big': 2 }), rx: traffic(1) } } as unknown as Self;
    both.dataPath.hostDrops = { 'too-big': 3 };
    assert.deepEqual([dropsOf(both).get('too-big'), dropsOf(both).get('kernel: too-big')], [2, 3]);
  });

  it('say that nothing was dropped only where agent and kernel were asked', () => {
    const of = (hostDrops?: Record<string, number>) => ({ dataPath: { hostDrops } }) as unknown as Self;
    assert.equal(dropWords(of({ 'filtered-in': 0 }), 0), 'No packet has been dropped, by the agent or by the kernel.');
    assert.match(dropWords(of({ 'filtered-in': 3 }), 1), /^kernel: .* of all programs/);
    for (const silent of [of(), of({})]) {
      assert.match(dropWords(silent, 0), /^The agent has dropped no packet; .*not known\.$/);
      assert.match(dropWords(silent, 2), /^By the agent alone; .*not known\.$/);
    }
  });

  it('are processor time between two looks at one process', () => {
    assert.equal(cpuShare(self(1000, 1), self(2000, 1.25)), 0.25);
    assert.equal(cpuShare(self(1000, 9), self(2000, 0.5, 2)), undefined);
    assert.equal(cpuShare(undefined, self(1, 1)), undefined);
    assert.equal(perSecond(10, 40, 3000), 10);
    assert.equal(perSecond(40, 10, 3000), undefined);
  });

  it('are the share of packets that each path has', () => {
    const peers = (fast: number, slow: number) =>
      ({
        peers: [
          { id: 'a', path: 'fast-path', tx: traffic(fast) },
          { id: 'b', path: 'forwarder', tx: traffic(slow) },
          { id: 'c', path: 'forwarder' },
        ],
      }) as unknown as Peers;
    assert.deepEqual(pathShares(peers(0, 0), peers(90, 10)), [
      { path: 'forwarder', peers: 2, share: 0.1 },
      { path: 'fast-path', peers: 1, share: 0.9 },
    ]);
    assert.equal(pathShares(undefined, peers(9, 9))[0]!.share, undefined);
  });

  it('are findings with their remedy, each cause once', () => {
    const readiness = {
      atMs: 1,
      ready: false,
      parts: [{ part: 'kernel', failure: 'ip says no', remedy: 'say yes' }, { part: 'rules' }],
    } as const;
    const state = { problems: ['a foreign route'], failure: 'ip says no' } as unknown as State;
    const check = {
      name: 'ip-forward',
      looksAt: '/proc',
      status: 'warn',
      found: 'disabled',
      remedy: 'sysctl',
    } as const;
    const checks = [
      check,
      { ...check, name: 'tun-device', status: 'ok', found: 'yes' } as const,
      { ...check, name: 'cni-plugins', status: 'fail', found: 'no bridge', remedy: 'weft install-cni' } as const,
      // What the agent has said already.
      { ...check, name: 'routes', status: 'fail', found: 'ip says no' } as const,
    ];
    const parts = [...readiness.parts];
    assert.deepEqual(findingsOf(self(1, 1), { ...readiness, parts }, state, undefined, { atMs: 1, checks }), [
      { tone: 'bad', title: 'kernel', text: 'ip says no', remedy: 'say yes' },
      { tone: 'bad', title: 'cni-plugins', text: 'no bridge', remedy: 'weft install-cni' },
      { tone: 'warn', title: 'kernel', text: 'a foreign route' },
      { tone: 'warn', title: 'ip-forward', text: 'disabled', remedy: 'sysctl' },
    ]);
    assert.deepEqual(findingsOf(undefined, undefined, undefined, undefined, undefined), []);
  });
});
