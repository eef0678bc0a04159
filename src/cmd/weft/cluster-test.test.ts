import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../../test/fakes/fake-inspection.ts';
import type { Peer } from '../../api/schema.ts';
import type { Asked, SelfAndPeers } from './agent-target.ts';
import { clusterReport, renderCluster, renderClusterJunit } from './cluster-test.ts';

const subnetOf = (i: number): string => `10.244.${i}.0/24`;

/** The nodes 1 to 3, which see each other well. */
function nodes(change: (agents: readonly FakeInspection[]) => void = () => {}): Asked<SelfAndPeers>[] {
  const agents = [1, 2, 3].map((i) => {
    const agent = new FakeInspection();
    const [model] = agent.list;
    agent.own = { ...agent.own, lease: { ...agent.own.lease!, subnets: [subnetOf(i)] } };
    agent.list = [1, 2, 3]
      .filter((j) => j !== i)
      .map((j): Peer => ({ ...model!, id: subnetOf(j), subnets: [subnetOf(j)], holder: `n${j}` }));
    return agent;
  });
  change(agents);
  return agents.map((agent, i) => ({ name: `n${i + 1}`, answer: { self: agent.self(), peers: agent.peers() } }));
}
const broken = (agent: FakeInspection, to: number, change: Partial<Peer>): void => {
  agent.list = agent.list.map((peer) => (peer.holder === `n${to}` ? { ...peer, ...change } : peer));
};
const measuredAtMs = new FakeInspection().peers().atMs;

describe('what the agents say of every pair', () => {
  it('is each direction once, with its figures', () => {
    const report = clusterReport(nodes(), [], 5);
    assert.equal(report.ok, true);
    assert.deepEqual(
      report.pairs.map(({ from, to }) => `${from}${to}`),
      ['n1n2', 'n1n3', 'n2n1', 'n2n3', 'n3n1', 'n3n2'],
    );
    assert.deepEqual(report.pairs[0], {
      ...{ from: 'n1', to: 'n2', status: 'ok', path: 'fast-path', device: 'flannel0' },
      ...{ rttMs: 0.4, lossRatio: 0, pathMtuBytes: 1_472 },
    });
    const text = renderCluster(report);
    assert.match(text, /^3 nodes, 6 directions: 6 work, 0 degraded, 0 broken, 0 not measured$/m);
    assert.match(text, /^✔ n1 → n2 +0\.40 ms, MTU 1472, by fast-path on flannel0$/m);
    assert.match(text, /^All paths work \(5 ms\)\.$/m);
    assert.match(text.replaceAll(/\s+/g, ' '), /Not measured: paths from containers, fragments, DNS and Services, /);
    assert.equal(report.unmeasured.length, 4);
    assert.equal(clusterReport(nodes(), ['n2'], 5).pairs.length, 4);
  });

  it('names the pair, the cause and the hop', () => {
    const probe = {
      measuredAtMs,
      problem: 'something drops',
      fault: 'one-way',
      remedy: 'look at the firewall',
    } as const;
    const report = clusterReport(
      nodes(([, second]) => broken(second!, 3, { probe })),
      [],
      5,
    );
    assert.equal(report.ok, false);
    const bad = report.pairs.filter(({ status }) => status !== 'ok');
    assert.deepEqual(
      bad.map(({ from, to, status, problem }) => [from, to, status, problem]),
      [['n2', 'n3', 'broken', { fault: 'one-way', cause: 'something drops', remedy: 'look at the firewall' }]],
    );
    const text = renderCluster(report);
    assert.match(text, /^✖ n2 → n3 by fast-path on flannel0: one-way: something drops$/m);
    assert.match(text, /^1 problem \(5 ms\)\.$/m);
    const junit = renderClusterJunit(report);
    assert.match(junit, /tests="9" failures="1"/);
    assert.match(junit, /classname="weft\.n2" name="n3"><failure type="one-way" message="something drops">/);
  });

  it('has each family of dual stack by itself: IPv6 may be broken alone, or not measured', () => {
    const [four, dead] = [
      { measuredAtMs, rttMs: 0.4, family: 'IPv4' },
      { measuredAtMs, problem: 'IPv6 is filtered', fault: 'tunnel-blocked', remedy: 'look', family: 'IPv6' },
    ] as const;
    const dual = { subnets: [subnetOf(2), 'fd00:2::/64'], probe: dead };
    const reportOf = (probes: NonNullable<Peer['probes']>) =>
      clusterReport(
        nodes(([first]) => broken(first!, 2, { ...dual, probes })),
        ['n2'],
        5,
      );
    const report = reportOf([four, dead]);
    const brief = ({ pairs }: typeof report) =>
      pairs
        .filter(({ family }) => family !== undefined)
        .map((pair) => `${pair.from} ${pair.to} ${pair.family} ${pair.status}`);
    assert.deepEqual(brief(report), ['n1 n2 IPv4 ok', 'n1 n2 IPv6 broken']);
    assert.equal(report.ok, false);
    const text = renderCluster(report);
    assert.match(text, /^1 node, 5 directions: 4 work, 0 degraded, 1 broken, 0 not measured$/m);
    assert.match(text, /^✔ n1 → n2 IPv4 +0\.40 ms, by fast-path on flannel0$/m);
    assert.match(text, /^✖ n1 → n2 IPv6 +tunnel-blocked, by fast-path on flannel0$/m);
    assert.match(text, /^✖ n1 → n2 IPv6 by fast-path on flannel0: tunnel-blocked: IPv6 is filtered$/m);
    assert.match(renderClusterJunit(report), /classname="weft\.n1" name="n2 IPv6"><failure type="tunnel-blocked"/);
    assert.deepEqual(brief(reportOf([four])), ['n1 n2 IPv4 ok', 'n1 n2 IPv6 unknown']);
  });

  it('tells what is not known from what is broken', () => {
    const unmeasured = clusterReport(
      nodes(([first]) => broken(first!, 2, { probe: undefined as never })),
      [],
      5,
    );
    assert.deepEqual([unmeasured.ok, unmeasured.pairs[0]?.status], [true, 'unknown']);
    assert.match(renderCluster(unmeasured), /as far as they are measured/);
    assert.match(renderClusterJunit(unmeasured), /name="n2"><skipped message="not measured"/);
    const nothing = clusterReport(
      nodes((agents) => {
        for (const agent of agents) agent.list = agent.list.map(({ probe: _, ...peer }) => peer);
      }),
      [],
      5,
    );
    assert.equal(nothing.ok, false);
    assert.match(renderCluster(nothing), /^Nothing is measured/m);

    const skipped = clusterReport(
      nodes(([first]) => broken(first!, 2, { path: 'skipped', reason: 'not on the link' })),
      [],
      5,
    );
    assert.deepEqual(skipped.pairs[0]?.problem?.fault, 'skipped');
    const forgotten = clusterReport(
      nodes(([first]) => void (first!.list = first!.list.slice(1))),
      [],
      5,
    );
    assert.deepEqual(
      [forgotten.ok, forgotten.pairs[0]?.status, forgotten.pairs[0]?.problem?.fault],
      [false, 'broken', 'peer-unknown'],
    );
  });

  it('has an agent that does not answer, or is not ready, as a fault of that node', () => {
    const [first, second] = nodes(([one]) => void (one!.own = { ...one!.own, ready: false, reason: 'no lease' }));
    const away = { name: 'n3', error: new Error('x'), text: 'cannot ask' };
    const report = clusterReport([first!, second!, away], [], 5);
    assert.equal(report.ok, false);
    assert.deepEqual(
      report.nodes.map(({ problem }) => problem?.fault),
      ['not-ready', undefined, 'agent-away'],
    );
    assert.deepEqual(
      report.pairs.map(({ from, to, status }) => `${from}${to} ${status}`),
      ['n1n2 ok', 'n1n3 ok', 'n2n1 ok', 'n2n3 ok', 'n3n1 unknown', 'n3n2 unknown'],
    );
  });
});
