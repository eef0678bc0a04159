import assert from 'node:assert/strict';
import { describe, it, mock } from 'node:test';
import type { Op } from '../desired/op.ts';
import { parseAddr, parsePrefix } from '../ip/address.ts';
import { parseMac } from '../ip/mac.ts';
import { OwnEchoes } from './own-echoes.ts';

const addr = (text: string) => parseAddr(text) ?? assert.fail(text);
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text);
const mac = (text: string) => parseMac(text) ?? assert.fail(text);
const onlink = (dst: string, via: string) =>
  ({ type: 'unicast', dst: prefix(dst), dev: 'flannel.1', via: addr(via), onlink: true, scope: 'global' }) as const;

/** Operations, and what `ip -N monitor label` of iproute2 6.1 said of them on Linux 6.18. */
const SAID: readonly (readonly [Op, readonly string[]])[] = [
  [
    { type: 'route-add', route: { ...onlink('10.244.2.0/24', '10.244.2.0'), metric: undefined } },
    ['[ROUTE]10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 241 onlink '],
  ],
  [
    { type: 'route-add', route: { ...onlink('fd01:2::/64', 'fd01::2'), metric: undefined } },
    ['[ROUTE]fd01:2::/64 via fd01::2 dev flannel.1 proto 241 metric 1024 onlink pref medium'],
  ],
  [
    { type: 'route-add', route: { type: 'blackhole', dst: prefix('10.244.9.0/24'), metric: 10_000 } },
    ['[ROUTE]6 10.244.9.0/24 proto 241 metric 10000 '],
  ],
  [
    { type: 'route-add', route: { type: 'blackhole', dst: prefix('fd01:9::/64'), metric: 10_000 } },
    ['[ROUTE]6 fd01:9::/64 dev lo proto 241 metric 10000 pref medium'],
  ],
  [
    {
      type: 'route-delete',
      route: {
        ...{ type: 'unicast', dst: prefix('10.9.0.1/32'), dev: 'eth0', via: undefined, onlink: false, scope: 'link' },
        ...{ metric: 0, protocol: 241, elaborate: false },
      },
    },
    ['[ROUTE]Deleted 10.9.0.1 dev eth0 proto 241 scope 253 '],
  ],
  [
    {
      type: 'route-delete',
      route: { ...onlink('10.244.9.0/24', '10.244.9.0'), metric: 0, protocol: 3, elaborate: false },
    },
    ['[ROUTE]Deleted 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink '],
  ],
  [
    {
      type: 'neighbour-replace',
      neighbour: { link: 'flannel.1', addr: addr('fd01::2'), mac: mac('02:00:00:00:00:02') },
    },
    ['[NEIGH]fd01::2 dev flannel.1 lladdr 02:00:00:00:00:02 PERMANENT '],
  ],
  [
    {
      type: 'neighbour-delete',
      neighbour: { link: 'flannel.1', addr: addr('10.244.2.0'), mac: mac('02:00:00:00:00:02') },
    },
    ['[NEIGH]10.244.2.0 dev flannel.1 FAILED ', '[NEIGH]Deleted 10.244.2.0 dev flannel.1 FAILED '],
  ],
  [
    { type: 'fdb-replace', entry: { link: 'flannel.1', mac: mac('02:00:00:00:00:02'), dst: addr('10.0.0.2') } },
    ['[NEIGH]10.0.0.2 dev flannel.1 lladdr 02:00:00:00:00:02 NOARP PERMANENT '],
  ],
  [
    { type: 'fdb-delete', entry: { link: 'flannel.1', mac: mac('02:00:00:00:00:02'), dst: addr('10.0.0.3') } },
    ['[NEIGH]Deleted 10.0.0.3 dev flannel.1 lladdr 02:00:00:00:00:02 NOARP PERMANENT '],
  ],
];

describe('OwnEchoes', () => {
  it('knows what the monitor says of each operation, once', () => {
    const echoes = new OwnEchoes(() => assert.fail('overdue'));
    for (const [op, lines] of SAID) {
      for (const line of lines) assert.equal(echoes.take(line), false, `before: ${line}`);
      echoes.expect(op);
      for (const line of lines) assert.equal(echoes.take(line), true, line);
      for (const line of lines) assert.equal(echoes.take(line), false, `again: ${line}`);
    }
    echoes.done();
  });

  it('takes nothing else for it: another next hop, another number, a deletion', () => {
    const echoes = new OwnEchoes(() => {});
    const [op] = SAID[0]!;
    echoes.expect(op);
    for (const line of [
      '[ROUTE]10.244.2.0/24 via 10.244.2.1 dev flannel.1 proto 241 onlink ',
      '[ROUTE]10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 3 onlink ',
      '[ROUTE]Deleted 10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 241 onlink ',
    ]) {
      assert.equal(echoes.take(line), false, line);
    }
  });

  it('expects nothing of what failed', () => {
    const echoes = new OwnEchoes(() => {});
    const [op, [line]] = SAID[0]!;
    echoes.expect(op);
    echoes.withdraw(op);
    assert.equal(echoes.take(line!), false);
  });

  it('says when something was done of which nothing was said, and expects it no more', (t) => {
    mock.timers.enable({ apis: ['setTimeout'] });
    t.after(() => mock.timers.reset());
    let overdue = 0;
    const echoes = new OwnEchoes(() => overdue++);
    const [[first, [firstLine]], [second, [secondLine]]] = SAID as [(typeof SAID)[0], (typeof SAID)[0]];
    echoes.expect(first);
    echoes.expect(second);
    echoes.done();
    assert.equal(echoes.take(firstLine!), true);
    mock.timers.tick(60_000);
    assert.equal(overdue, 1);
    assert.equal(echoes.take(secondLine!), false);
    echoes.expect(first);
    echoes.done();
    assert.equal(echoes.take(firstLine!), true);
    mock.timers.tick(60_000);
    assert.equal(overdue, 1, 'all was said');
  });
});
