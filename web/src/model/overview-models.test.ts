import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseFilter } from './filter.ts';
import { figureWords, hostTones, isAbout, labelsOf, problemsOf } from './hosts.ts';
import { cellOf, matrixOf } from './matrix.ts';
import { hostView, linkView, look } from './overview.fixture.ts';
import { History, linkKey, linkRates } from './rates.ts';
import { lineWidth, sceneOf } from './scene.ts';

const all = parseFilter('');
const three = ['h1', 'h2', 'h3'].map((name) => hostView(name));

describe('the filter', () => {
  it('wants all words, and none of those with a minus', () => {
    assert.ok(parseFilter('  ')('anything'));
    assert.ok(parseFilter('NODE 10.4')('node-1 10.4.0.0/24'));
    assert.ok(!parseFilter('node 10.5')('node-1 10.4.0.0/24'));
    assert.ok(!parseFilter('node -ready')('node-1 not ready'));
    assert.ok(parseFilter('-')('a lone minus says nothing'));
  });
});

describe('figures of a family', () => {
  it('are what was measured, or that nothing answers', () => {
    const figures = { family: 'IPv4', rttMs: 0.4, lossRatio: 0.25, pathMtuBytes: 1_472 } as const;
    assert.equal(figureWords(figures), '400 µs, 25 % lost, 1472 bytes');
    assert.equal(figureWords({ family: 'IPv6' }), 'no answer');
  });
});

describe('tones of hosts', () => {
  it('come from their own state and from links that are all broken', () => {
    const hosts = [
      hostView('a'),
      hostView('b', { state: 'not-ready' }),
      hostView('c', { state: 'away' }),
      hostView('d', { state: 'peer' }),
    ];
    assert.deepEqual(hostTones(look(hosts, [])), ['good', 'warn', 'bad', 'idle']);
    assert.deepEqual(hostTones(look(hosts, [linkView(0, 3)])), ['good', 'warn', 'bad', 'good']);
    const broken = { health: 'broken' } as const;
    const cut = [linkView(0, 1, broken), linkView(0, 2, broken), linkView(1, 2), linkView(2, 1)];
    assert.deepEqual(hostTones(look(three, cut)), ['bad', 'good', 'good']);
    // One broken link does not say whose fault it is.
    assert.deepEqual(hostTones(look(three, [linkView(0, 1, broken), linkView(0, 2)])), ['good', 'good', 'good']);
  });
});

describe('problems', () => {
  it('name pair and reason, the worst first', () => {
    const links = [
      linkView(0, 1, { health: 'degraded', why: 'small MTU' }),
      linkView(1, 2, { health: 'broken', why: 'filtered' }),
      linkView(0, 2),
    ];
    const problems = problemsOf(look([...three, hostView('h4', { state: 'away', reason: 'ECONNREFUSED' })], links));
    assert.deepEqual(
      problems.map(({ tone, title, text }) => `${tone} ${title}: ${text}`),
      ['bad h4 does not answer: ECONNREFUSED', 'bad h2 → h3: filtered', 'warn h1 → h2: small MTU'],
    );
  });

  it('are found by the hosts that they name', () => {
    const hosts = look([...three, hostView('h4', { state: 'away' })], [linkView(1, 2, { health: 'broken' })]);
    const found = (text: string): string[] =>
      problemsOf(hosts)
        .filter((problem) => isAbout(problem, hosts, parseFilter(text)))
        .map(({ title }) => title);
    assert.deepEqual(found(''), ['h4 does not answer', 'h2 → h3']);
    assert.deepEqual(found('h3'), ['h2 → h3']);
    assert.deepEqual(found('h4'), ['h4 does not answer']);
    assert.deepEqual(found('h1'), []);
  });
});

describe('names of hosts', () => {
  it('fit, and can still be told apart', () => {
    assert.deepEqual(labelsOf(['h1', 'node-002.lan']), ['h1', 'node-002.lan']);
    const inCloud = ['ip-10-0-12-34', 'ip-10-0-12-35'].map((name) => `${name}.eu-west-1.compute.internal`);
    assert.deepEqual(labelsOf(inCloud), ['ip-10-0-12-34', 'ip-10-0-12-35']);
    const pool = ['gke-production-default-pool-4f2a91bc-x7d1', 'gke-production-default-pool-4f2a91bc-k2p9'];
    assert.deepEqual(labelsOf(pool), ['gke-product…a91bc-x7d1', 'gke-product…a91bc-k2p9']);
    assert.ok(labelsOf([...pool, ...inCloud], 17).every((label) => label.length <= 17));
    assert.deepEqual(labelsOf(['192.168.77.1', '10.168.77.1']), ['192.168.77.1', '10.168.77.1']);
  });
});

describe('the matrix', () => {
  it('has a red cell where packets do not come through, whatever it shows', () => {
    const links = [linkView(0, 1), linkView(1, 0, { health: 'broken', rttMs: undefined as never, why: 'filtered' })];
    for (const metric of ['rtt', 'loss', 'mtu'] as const) {
      const matrix = matrixOf(look(three, links), metric, all);
      assert.deepEqual(matrix.order, [0, 1, 2]);
      assert.equal(matrix.cell(0, 0).look, 'self');
      assert.equal(matrix.cell(1, 0).look, 'bad');
      assert.equal(matrix.cell(0, 1).look, 0);
      assert.equal(matrix.cell(2, 0).look, 'none');
    }
  });

  it('shades round trips by their length alone', () => {
    const looks = [0.2, 1, 5, 30, 200].map((rttMs) => cellOf(linkView(0, 1, { rttMs }), 'rtt'));
    assert.deepEqual(
      looks.map((cell) => cell.look),
      [0, 1, 2, 3, 4],
    );
    assert.deepEqual(
      looks.map((cell) => cell.text),
      ['0.20', '1.0', '5.0', '30', '200'],
    );
    assert.equal(cellOf(linkView(0, 1, { health: 'degraded', why: 'small MTU' }), 'mtu').look, 'warn');
  });

  it('has the hosts that the filter finds', () => {
    assert.deepEqual(matrixOf(look(three, []), 'rtt', parseFilter('h2')).order, [1]);
  });
});

describe('rates', () => {
  const none = new Map();

  it('are what was counted between two looks, by name and not by place', () => {
    const first = linkView(0, 1, { countedAtMs: 1000, packets: 100, bytes: 1000, drops: 1 });
    const second = linkView(1, 0, { countedAtMs: 3000, packets: 150, bytes: 3000, drops: 2 });
    const before = look([hostView('a'), hostView('b')], [first]);
    const now = look([hostView('b'), hostView('a')], [second]);
    const rates = linkRates(before, now, none);
    assert.deepEqual(rates.get(linkKey(now, second)), { packets: 25, bytes: 1000, drops: 0.5 });
    assert.equal(linkRates(undefined, now, none).size, 0);
    // Nobody was asked between these two.
    assert.deepEqual(linkRates(now, now, rates), rates);
    assert.equal(linkRates(now, now, none).size, 0);
  });

  it('are unknown after a restart and where nobody counts', () => {
    const before = look(three, [linkView(0, 1, { countedAtMs: 1, packets: 100, bytes: 9 }), linkView(1, 2)]);
    const now = look(three, [linkView(0, 1, { countedAtMs: 2, packets: 3, bytes: 1 }), linkView(1, 2)]);
    assert.equal(linkRates(before, now, none).size, 0);
  });

  it('are kept for a while', () => {
    const history = new History(3);
    for (const value of [1, 2, null, 4]) history.push(value ?? 3, value);
    assert.deepEqual(
      [history.atMs, history.values],
      [
        [2, 3, 4],
        [2, null, 4],
      ],
    );
  });
});

describe('the scene of the map', () => {
  it('has one line for both directions, coloured by the worse', () => {
    const overview = look(three, [linkView(0, 1), linkView(1, 0, { health: 'degraded' }), linkView(1, 2)]);
    const scene = sceneOf(overview, new Map(), all);
    assert.deepEqual(
      scene.pairs.map(({ a, b, tone }) => [a, b, tone]),
      [
        [0, 1, 'warn'],
        [1, 2, 'good'],
      ],
    );
    assert.equal(scene.hub, undefined);
  });

  it('is wider where more packets are, within limits', () => {
    assert.equal(lineWidth(0), 1);
    assert.ok(lineWidth(1000) > lineWidth(100));
    assert.ok(lineWidth(1e12) <= 7);
  });

  it('finds the host that all links begin at, when only that is asked', () => {
    const hosts = [hostView('a'), hostView('b', { state: 'peer' }), hostView('c', { state: 'peer' })];
    assert.equal(sceneOf(look(hosts, [linkView(0, 1), linkView(2, 0)]), new Map(), all).hub, 0);
  });

  it('leaves out lines that say nothing where there are thousands', () => {
    const hosts = Array.from({ length: 80 }, (_, index) => hostView(`h${index}`));
    const links = hosts.flatMap((_, from) =>
      hosts.flatMap((_, to) => (from < to ? [linkView(from, to, { health: from === 0 ? 'good' : 'unknown' })] : [])),
    );
    const scene = sceneOf(look(hosts, links), new Map(), all);
    assert.deepEqual([scene.pairs.length, scene.quietPairs], [79, links.length - 79]);
  });

  it('shows the links of hosts that the filter finds', () => {
    const scene = sceneOf(look(three, [linkView(0, 1), linkView(1, 2)]), new Map(), parseFilter('h1'));
    assert.deepEqual(
      scene.pairs.map(({ isShown }) => isShown),
      [true, false],
    );
  });
});
