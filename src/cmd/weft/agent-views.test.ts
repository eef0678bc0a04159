import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { FakeInspection } from '../../../test/fakes/fake-inspection.ts';
import type { Peer } from '../../api/schema.ts';
import type { AgentEvent } from '../../events/event.ts';
import { wrapped } from '../../wrapped.ts';
import { renderEvent } from './events.ts';
import { renderLeases } from './leases.ts';
import { renderPeers } from './peers.ts';
import { isHealthy, problemsOf, type StatusAnswers } from './status-problems.ts';
import { renderStatus } from './status-report.ts';
import { type Column, table } from './table.ts';
import { renderTop, topOf } from './top.ts';
import { formatBitRate, formatBytes } from './units.ts';

const fits = (text: string): void => {
  for (const line of text.split('\n')) assert.ok(line.length <= 80, line);
};

function answers(
  change: (agent: FakeInspection) => void = () => {},
  events: readonly AgentEvent[] = [],
): StatusAnswers {
  const agent = new FakeInspection();
  agent.list = agent.list.filter(({ path }) => path !== 'skipped');
  agent.own = { ...agent.own, peers: { total: 2, skipped: 0, refusedEntries: 0 } };
  change(agent);
  return { self: agent.self(), peers: agent.peers(), readiness: agent.readiness(), events };
}

describe('the status of an agent', () => {
  it('is healthy on one screen', () => {
    const found = answers();
    const problems = problemsOf(found);
    assert.deepEqual(problems, []);
    const text = renderStatus(found, problems);
    fits(text);
    assert.ok(text.split('\n').length <= 24);
    assert.match(text, /^Peers +2: 1 fast-path, 1 vxlan$/m);
    assert.match(text, /^No problems\.$/m);
  });

  it('has the tunnels that the kernel has to its peers', () => {
    const peersWith = (tunnels: readonly Peer['tunnel'][], path: Peer['path']) => {
      return (agent: FakeInspection) => {
        const [peer] = agent.list;
        agent.list = tunnels.map((tunnel) => ({ ...peer!, path, ...(tunnel && { tunnel }) }));
      };
    };
    const line = (...given: Parameters<typeof peersWith>): string | undefined => {
      const text = renderStatus(answers(peersWith(...given)), []);
      fits(text);
      return /^Tunnels +(.*)$/m.exec(text)?.[1];
    };
    const bytes = { sentBytes: 1_536, receivedBytes: 512 };
    const { atMs } = new FakeInspection().own;
    const [young, old] = [5_000, 95_000].map((ageMs) => ({ ...bytes, lastHandshakeAtMs: atMs - ageMs }));
    assert.equal(line([old, young], 'wireguard'), '2: handshake 5s to 95s ago, sent 3.0 KiB, received 1.0 KiB');
    assert.equal(line([young, bytes], 'wireguard'), '2: handshake 5s ago, 1 without, sent 3.0 KiB, received 1.0 KiB');
    assert.equal(line([bytes, bytes], 'ipsec'), '2: sent 3.0 KiB, received 1.0 KiB');
    assert.equal(line([undefined], 'vxlan'), undefined);
  });

  const faults: readonly (readonly [
    string,
    'error' | 'warning',
    RegExp,
    Parameters<typeof answers>[0],
    AgentEvent[]?,
  ])[] = [
    [
      'a part that fails',
      'error',
      /^kernel: no way$/,
      (a) => void (a.failures = [{ part: 'kernel', failure: 'no way', remedy: 'look' }]),
    ],
    [
      'a start that waits',
      'error',
      /^not ready: waiting for a subnet lease$/,
      (a) => void (a.own = { ...a.own, ready: false, reason: 'waiting for a subnet lease' }),
    ],
    [
      'a store that is away',
      'error',
      /does not answer since 0s; packets still flow/,
      (a) => void (a.own = { ...a.own, store: { ...a.own.store, isReachable: false } }),
    ],
    [
      'why a store is away',
      'error',
      /does not answer since 0s: connect ECONNREFUSED; packets still flow/,
      (a) => {
        const store = { ...a.own.store, isReachable: false, failure: 'connect ECONNREFUSED' };
        a.own = { ...a.own, store };
      },
    ],
    [
      'a clock by which the certificate of the store is not valid',
      'error',
      /: this host’s clock says [-\dT:.]+Z, and the certificate of the store has expired; packets still flow/,
      (a) => {
        const store = { ...a.own.store, isReachable: false, failure: 'Last error: certificate has expired' };
        a.own = { ...a.own, store };
      },
    ],
    ['a peer that cannot be reached', 'error', /not on the link/, (a) => void (a.list = new FakeInspection().list)],
    [
      'a peer that no probe comes back from',
      'error',
      /^10\.244\.2\.0\/24: none of the last probes was answered/,
      (a) => void (a.list = a.list.map((peer) => ({ ...peer, probe: peer.probe && { ...peer.probe, lossRatio: 1 } }))),
    ],
    [
      'an interface that is down',
      'error',
      /^the external interface eth0 is down$/,
      (a) => void (a.own = { ...a.own, external: { ...a.own.external!, isUp: false } }),
    ],
    [
      'another configuration',
      'warning',
      /network configuration has changed/,
      (a) => void (a.own = { ...a.own, store: { ...a.own.store, isConfigOutdated: true } }),
    ],
    [
      'refused entries',
      'warning',
      /^3 entries/,
      (a) => void (a.own = { ...a.own, peers: { ...a.own.peers, refusedEntries: 3 } }),
    ],
    [
      'a fast path that is closed',
      'warning',
      /^no fast path \(ipsec-policy\)/,
      (a) =>
        void (a.own = {
          ...a.own,
          dataPath: {
            ...a.own.dataPath,
            fastPath: { isOpen: false, obstacle: 'ipsec-policy', text: 'why', peersAlone: 0 },
          },
        }),
    ],
    [
      'IPv6 that is not forwarded',
      'warning',
      /^net\.ipv6\.conf\.all\.forwarding is 0/,
      (a) =>
        void (a.own = {
          ...a.own,
          dataPath: { ...a.own.dataPath, forwardingOff: ['net.ipv6.conf.all.forwarding'] },
        }),
    ],
    [
      'a repair of a minute ago',
      'warning',
      /^restored: .* \(1 repair in 10m, the last 60s ago\)$/,
      undefined,
      [
        {
          id: 1,
          atMs: new FakeInspection().own.atMs - 60_000,
          kind: 'kernel-repaired',
          severity: 'warning',
          subject: 'kernel',
          text: 'restored: add route',
        },
      ],
    ],
  ];
  for (const [name, severity, text, change, events] of faults) {
    it(`says ${name}, with what to do`, () => {
      const found = answers(change, events);
      const problems = problemsOf(found);
      assert.deepEqual(
        problems.map((problem) => [problem.severity, text.test(problem.text)]),
        [[severity, true]],
        JSON.stringify(problems),
      );
      assert.ok(problems[0]!.remedy.length > 3);
      assert.equal(isHealthy(problems), severity === 'warning');
      fits(renderStatus(found, problems));
    });
  }

  it('names the family in which a peer of both is not reached, each by itself', () => {
    const at = { measuredAtMs: new FakeInspection().own.atMs };
    const [four, six] = [
      { ...at, rttMs: 0.4, lossRatio: 0, family: 'IPv4' },
      { ...at, lossRatio: 1, family: 'IPv6' },
    ] as const;
    const dual = (...probes: NonNullable<Peer['probes']>) =>
      answers((a) => void (a.list = a.list.slice(1).map((peer) => ({ ...peer, probe: probes.at(-1)!, probes }))));
    const told = (found: StatusAnswers) => problemsOf(found).map(({ text, remedy }) => `${text} → ${remedy}`);
    const id = '10.244.3.0/24&fd00:3::/64';
    const silent = `${id}: IPv6: none of the last probes was answered → weft ping fd00:3:: shows where it ends.`;
    assert.deepEqual(told(dual(four, six)), [silent]);
    const fault = { problem: 'lossy way', fault: 'lossy', remedy: 'Look.' } as const;
    const both = dual({ ...four, ...fault }, six);
    assert.deepEqual(told(both), [`${id}: IPv4: lossy: lossy way → Look.`, silent]);
    assert.match(
      renderPeers(both.peers, 80),
      /^10\.244\.3\.0\/24&fd00:3::\/64: IPv4: lossy: lossy way\n {2}→ Look\.$/m,
    );
  });

  it('names five of a thousand peers', () => {
    const [, , skipped] = new FakeInspection().list;
    const problems = problemsOf(answers((a) => void (a.list = Array.from({ length: 1_000 }, () => skipped!))));
    assert.equal(problems.length, 6);
    assert.match(problems.at(-1)!.text, /^995 more peers/);
  });
});

describe('tables of an agent', () => {
  it('fit 80 columns', () => {
    const agent = new FakeInspection();
    const peers = renderPeers(agent.peers(), 80);
    fits(table([{ title: 'X', text: (x: string) => x, minWidth: 5 }], ['x'.repeat(200)]));
    for (const line of peers.split('\n\n')[0]!.split('\n')) assert.ok(line.length <= 80, line);
    assert.match(peers, /^10\.244\.2\.0\/24 +worker-2 +fast-path +0\.4ms +0% +16\.4K +12\.3K +2 +0s$/m);
    assert.match(peers, /^10\.244\.4\.0\/24: Cannot reach/m);
    const [first] = agent.list;
    const drops = { 'too-big': 12_345_678 };
    const fault = {
      problem: 'ours do not reach it. '.repeat(9),
      fault: 'one-way',
      remedy: 'Look. '.repeat(20),
    } as const;
    agent.list = [
      { ...first!, tx: { ...first!.tx!, drops }, probe: { ...first!.probe!, rttMs: 1_234.5, lossRatio: 1, ...fault } },
    ];
    const wide = renderPeers(agent.peers(), 80);
    fits(wide);
    assert.match(wide, /1235ms +100% +\S+ +\S+ +12\.3M /);
    assert.match(wide, /^10\.244\.2\.0\/24: one-way: ours do not reach it\./m);
    assert.match(wide, /^ {2}→ Look\./m);
    const tunnel = { sentBytes: 1_023 << 20, receivedBytes: 1_536, lastHandshakeAtMs: agent.own.atMs - 119_000 };
    const { tx: _, rx: __, ...uncounted } = agent.list[0]!;
    agent.list = [
      { ...uncounted, path: 'wireguard', tunnel },
      { ...uncounted, path: 'wireguard', tunnel: { sentBytes: 0, receivedBytes: 0 } },
    ];
    const tunnels = renderPeers(agent.peers(), 80);
    fits(tunnels);
    assert.match(tunnels, / SENT +RCVD +HANDSHAKE +SEEN$/m);
    assert.match(tunnels, / wireguard +1235ms +100% +1023M +1\.5K +119s +0s$/m);
    assert.match(tunnels, / wireguard +1235ms +100% +0 +0 +- +0s$/m);
    const leases = renderLeases(agent.leases(), 80);
    fits(leases);
    assert.match(leases, /^10\.244\.1\.0\/24 +192\.0\.2\.1 +- +udp +own +0s$/m);
    assert.match(leases, /Refusing the lease/);
  });

  it('are never wider, as far as their columns give way, and show no control characters', () => {
    const columns: readonly Column<readonly [string, string]>[] = [
      { title: 'A', text: ([a]) => a, minWidth: 4 },
      { title: 'B', text: ([, b]) => b, minWidth: 4, right: true },
    ];
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.string({ unit: 'binary' }), fc.string())),
        fc.integer({ min: 10, max: 60 }),
        (rows, width) => {
          const lines = table(columns, rows, width).split('\n').slice(0, -1);
          assert.equal(lines.length, rows.length + 1);
          for (const line of lines) {
            assert.ok(line.length <= width);
            assert.doesNotMatch(line, /\p{Cc}/u);
          }
        },
      ),
    );
  });

  it('show an event with its cause, whoever made its text', () => {
    const event: AgentEvent = {
      ...{ id: 1, atMs: Date.UTC(2026, 0, 2, 3, 4, 5), kind: 'kernel-repaired', severity: 'warning' },
      ...{ subject: 'kernel', text: `restored: ${'word '.repeat(30)}`, cause: 'somebody\u001b[31m' },
    };
    const text = renderEvent(event, '', 80);
    fits(text);
    assert.match(text, /^2026-01-02 03:04:05 ! kernel-repaired {2}kernel: restored: word/);
    assert.match(text, /^ {4}because somebody\\x1b\[31m$/m);
  });

  it('have what flowed in between, the busiest peer first, and none where counters began anew', () => {
    const [before, now] = [new FakeInspection(), new FakeInspection()];
    const sample = (agent: FakeInspection, atMs: number) => ({
      self: { ...agent.self(), atMs },
      peers: { ...agent.peers(), atMs },
    });
    const [first, second] = now.list;
    now.list = [
      second!,
      {
        ...first!,
        tx: { packets: 112, bytes: 1_016_800, drops: { 'too-big': 12 } },
        rx: { packets: 0, bytes: 0, drops: {} },
      },
    ];
    now.own = { ...now.own, process: { ...now.own.process, cpuSeconds: 2.5 } };
    const top = topOf(sample(before, 1_000), sample(now, 3_000));
    assert.equal(top.cpuRatio, 0.5);
    const text = renderTop(sample(before, 1_000), sample(now, 3_000), 2, 80);
    fits(text);
    assert.match(text, /^10\.244\.2\.0\/24 +worker-2 +fast-path +4\.0M +0 +\d+ +5 +0\.4ms$/m);
    const [fast] = now.list.slice(1);
    const many = { packets: 99_000_000, bytes: 99_000_000_000, drops: { 'too-big': 9_000_000 } };
    now.list = [{ ...fast!, tx: many, rx: many, probe: { ...fast!.probe!, rttMs: 1_234.5 } }];
    fits(renderTop(sample(before, 1_000), sample(now, 3_000), 2, 80));
    const [busiest] = top.peers;
    assert.deepEqual(
      [busiest?.peer.id, busiest?.txBytesPerSecond, busiest?.rxBytesPerSecond, busiest?.dropsPerSecond],
      ['10.244.2.0/24', 500_000, 0, 5],
    );
  });

  it('have numbers that people read', () => {
    assert.deepEqual([0, 1_023, 1_536, 123 * 1024 ** 2, 5e15].map(formatBytes), [
      '0 B',
      '1023 B',
      '1.5 KiB',
      '123 MiB',
      '4.4 PiB',
    ]);
    assert.deepEqual([0, 100, 125_000, 1.25e9].map(formatBitRate), ['0', '800', '1.0M', '10.0G']);
    assert.deepEqual(wrapped('  a b c', '    ', 5), ['  a b', '    c']);
  });
});
