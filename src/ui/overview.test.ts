import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Peer, Peers } from '../api/schema.ts';
import { type AgentReport, linkHealth, overviewOf } from './overview.ts';

const NOW = 1_000_000_000;

function peer(host: number, more: Partial<Peer> = {}): Peer {
  return {
    id: `10.244.${host}.0/24`,
    subnets: [`10.244.${host}.0/24`],
    publicAddresses: [`192.168.77.${host}`],
    backendType: 'udp',
    path: 'forwarder',
    ...more,
  };
}

function report(host: number, peers: readonly Peer[], more: Partial<AgentReport> = {}): AgentReport {
  const self: Peers['self'] = {
    startedAtMs: NOW,
    ready: true,
    backendType: 'udp',
    lease: { subnets: [`10.244.${host}.0/24`], publicAddresses: [`192.168.77.${host}`], isHeld: true },
    dataPath: { mtuBytes: 1472 },
  };
  const answer: Peers = { atMs: NOW, total: peers.length, peers: [...peers], self };
  return { name: `h${host}`, peers: answer, failure: undefined, ...more };
}

const probe = (more: Partial<NonNullable<Peer['probe']>> = {}) => ({
  measuredAtMs: NOW,
  rttMs: 0.5,
  lossRatio: 0,
  ...more,
});
const traffic = (packets: number) => ({ packets, bytes: packets * 100, drops: { mtu: 1, ttl: 2 } });

describe('health of a link', () => {
  it('is what probes of now say', () => {
    for (const [given, health] of [
      [peer(2), 'unknown'],
      [peer(2, { probe: probe() }), 'good'],
      [peer(2, { probe: probe({ lossRatio: 0.1 }) }), 'degraded'],
      [peer(2, { probe: probe({ problem: 'small MTU' }) }), 'degraded'],
      [peer(2, { probe: probe({ lossRatio: 0.03 }) }), 'good'],
      // Something comes back again, and what was lost before is still in the share.
      [peer(2, { probe: probe({ lossRatio: 0.6 }) }), 'degraded'],
      [peer(2, { probe: { measuredAtMs: NOW, lossRatio: 1 } }), 'broken'],
      [peer(2, { path: 'skipped', reason: 'another backend' }), 'broken'],
      [peer(2, { reason: 'IPv4 only', probe: probe() }), 'degraded'],
      // So old that it says nothing.
      [peer(2, { probe: probe({ measuredAtMs: NOW - 3_600_000, lossRatio: 1 }) }), 'unknown'],
    ] as const) {
      assert.equal(linkHealth(given, NOW).health, health, JSON.stringify(given));
    }
  });

  it('has the reason that the agent gives', () => {
    assert.equal(
      linkHealth(peer(2, { probe: { measuredAtMs: NOW, problem: 'UDP is filtered' } }), NOW).why,
      'UDP is filtered',
    );
    assert.equal(linkHealth(peer(2, { path: 'skipped', reason: 'another backend' }), NOW).why, 'another backend');
    assert.match(linkHealth(peer(2, { probe: probe({ lossRatio: 0.25 }) }), NOW).why!, /25 %/);
  });
});

describe('health of a link in dual stack', () => {
  const [four, six] = [probe({ family: 'IPv4' }), probe({ family: 'IPv6' })];
  const dual = (...probes: NonNullable<Peer['probes']>): Peer =>
    peer(2, { subnets: ['10.244.2.0/24', 'fd00:2::/64'], probe: probes[0]!, probes });
  const dead = { measuredAtMs: NOW, family: 'IPv6', problem: 'IPv6 is filtered' } as const;

  it('is that of the worse family, which is named', () => {
    assert.deepEqual(linkHealth(dual(four, six), NOW), { health: 'good' });
    assert.deepEqual(linkHealth(dual(four, dead), NOW), { health: 'broken', why: 'IPv6: IPv6 is filtered' });
    assert.deepEqual(linkHealth(dual({ ...four, problem: 'small MTU' }, dead), NOW), {
      ...{ health: 'broken', why: 'IPv6: IPv6 is filtered; IPv4: small MTU' },
    });
    const old = { ...dead, measuredAtMs: NOW - 3_600_000 };
    assert.deepEqual(linkHealth(dual(four, old), NOW), { health: 'good' });
  });

  it('comes with the figures of both', () => {
    const worse = { ...dual(four, dead), probe: dead };
    const { links } = overviewOf([report(1, [worse])], NOW);
    assert.deepEqual(
      links.map(({ health, rttMs, families }) => [health, rttMs, families]),
      [['broken', undefined, [{ family: 'IPv4', rttMs: 0.5, lossRatio: 0 }, { family: 'IPv6' }]]],
    );
    assert.equal(overviewOf([report(1, [peer(2, { probe: four })])], NOW).links[0]!.families, undefined);
  });
});

describe('the overview', () => {
  it('has both directions of two agents that are asked, each from its sender', () => {
    const { hosts, links } = overviewOf(
      [
        report(1, [peer(2, { tx: traffic(7), probe: probe() })]),
        report(2, [peer(1, { tx: traffic(3), probe: probe({ rttMs: 9 }) })]),
      ],
      NOW,
    );
    assert.deepEqual(
      hosts.map(({ name, state, mtuBytes }) => [name, state, mtuBytes]),
      [
        ['h1', 'ready', 1472],
        ['h2', 'ready', 1472],
      ],
    );
    assert.deepEqual(
      links.map(({ from, to, packets, drops, rttMs }) => [from, to, packets, drops, rttMs]),
      [
        [0, 1, 7, 3, 0.5],
        [1, 0, 3, 3, 9],
      ],
    );
  });

  it('has the remedy that the sender knows, where something is wrong', () => {
    const fault = probe({ problem: 'small MTU', fault: 'mtu-lowered', remedy: 'Set the MTU.' });
    const { links } = overviewOf([report(1, [peer(2, { probe: fault }), peer(3, { probe: probe() })])], NOW);
    assert.deepEqual(
      links.map(({ why, remedy }) => [why, remedy]),
      [
        ['small MTU', 'Set the MTU.'],
        [undefined, undefined],
      ],
    );
  });

  it('has peers that nobody asks, with what was received from them', () => {
    const { hosts, links } = overviewOf(
      [report(1, [peer(9, { holder: 'node-9', tx: traffic(7), rx: traffic(5) })])],
      NOW,
    );
    assert.deepEqual(
      hosts.map(({ name, state }) => [name, state]),
      [
        ['h1', 'ready'],
        ['node-9', 'peer'],
      ],
    );
    assert.deepEqual(
      links.map(({ from, to, packets }) => [from, to, packets]),
      [
        [0, 1, 7],
        [1, 0, 5],
      ],
    );
  });

  it('says of a host that went away why, and keeps who it was', () => {
    const { hosts, links } = overviewOf(
      [
        report(1, [peer(2)]),
        report(2, [peer(1)], { failure: 'ECONNREFUSED' }),
        { name: 'h3', peers: undefined, failure: 'no such file' },
      ],
      NOW,
    );
    assert.deepEqual(
      hosts.map(({ name, state, reason, subnets }) => [name, state, reason, subnets]),
      [
        ['h1', 'ready', undefined, ['10.244.1.0/24']],
        ['h2', 'away', 'ECONNREFUSED', ['10.244.2.0/24']],
        ['h3', 'away', 'no such file', []],
      ],
    );
    // What it said when it was still there is no news.
    assert.deepEqual(
      links.map(({ from, to }) => [from, to]),
      [[0, 1]],
    );
  });

  it('has names that differ, whatever stores call their nodes', () => {
    const { hosts } = overviewOf([report(1, [peer(2, { holder: 'h1' }), peer(3, { holder: 'h1' })])], NOW);
    assert.equal(new Set(hosts.map(({ name }) => name)).size, 3);
  });

  it('leaves out healthy links without traffic when there are too many, never others', () => {
    const peers = [2, 3, 4, 5].map((host) => peer(host, { tx: traffic(host), probe: probe() }));
    peers[0] = peer(2, { tx: traffic(0), probe: { measuredAtMs: NOW, lossRatio: 1 } });
    const { links, omittedLinks } = overviewOf([report(1, peers)], NOW, 2);
    assert.deepEqual(
      links.map(({ to, health }) => [to, health]),
      [
        [1, 'broken'],
        [4, 'good'],
      ],
    );
    assert.equal(omittedLinks, 2);
  });
});
