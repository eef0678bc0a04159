import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { judgeWay, type WayToHost } from './way-to-host.ts';

const found = { kind: 'found', device: 'eth0', nextHop: '192.168.77.2' } as const;
const way = (fields: Partial<WayToHost>): WayToHost => ({
  ...{ address: '192.168.77.2', route: found, neighbour: undefined },
  ...fields,
});
const mac = '02:00:00:00:00:99';

describe('the way to the host of a peer that is not reached', () => {
  for (const [name, fields, expected] of [
    ['a route and no neighbour', {}, undefined],
    ['a neighbour that was found', { neighbour: { states: ['REACHABLE'], mac } }, undefined],
    ['a neighbour that does not answer', { neighbour: { states: ['FAILED'], mac: undefined } }, undefined],
    ['a neighbour that was set by hand', { neighbour: { states: ['PERMANENT'], mac } }, /^underlay-neighbour: .*02:00/],
    [
      'no route',
      { route: { kind: 'none', reason: 'No route to host' } },
      /^underlay-route: .*192\.168\.77\.2.*No route to host/,
    ],
    ['a route by another device', { route: { ...found, device: 'wg0' } }, /^underlay-route: .*wg0.*eth0/],
  ] as const) {
    it(`is judged with ${name}`, () => {
      const finding = judgeWay(way(fields), 'eth0');
      if (expected === undefined) assert.equal(finding, undefined);
      else assert.match(`${finding?.fault}: ${finding?.cause}`, expected);
      assert.ok(finding === undefined || finding.remedy.length > 10);
    });
  }
});
