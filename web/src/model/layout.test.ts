import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { hostAt, placeHosts } from './layout.ts';

describe('places on the map', () => {
  it('are inside of it and apart, for any number of hosts', () => {
    for (const count of [1, 2, 3, 12, 13, 40, 41, 500]) {
      const { points, style } = placeHosts(count, 1000, 700);
      assert.equal(points.length, count);
      const closest = { card: 54, label: 12, dot: 5 }[style];
      points.forEach((a, i) => {
        assert.ok(a.x >= 0 && a.x <= 1000 && a.y >= 0 && a.y <= 700, `${count}: ${JSON.stringify(a)}`);
        for (const b of points.slice(i + 1)) assert.ok(Math.hypot(a.x - b.x, a.y - b.y) > closest, `${count} hosts`);
      });
    }
  });

  it('fill the area, also where a circle of so few hosts is not in its middle', () => {
    for (const count of [3, 5, 12, 20]) {
      const { points, style } = placeHosts(count, 1000, 700);
      const [x, y] = [points.map((point) => point.x), points.map((point) => point.y)];
      const margin = style === 'card' ? [90, 51] : [72, 36];
      const edges = [Math.min(...x), 1000 - Math.max(...x), Math.min(...y), 700 - Math.max(...y)].map(Math.round);
      assert.deepEqual(edges, [margin[0], margin[0], margin[1], margin[1]], `${count} hosts`);
    }
  });

  it('put the hub into the middle', () => {
    const { points } = placeHosts(200, 800, 600, 7);
    assert.deepEqual(points[7], { x: 400, y: 300 });
    assert.equal(points.length, 200);
  });

  it('are found again, and nothing where no host is', () => {
    const placement = placeHosts(500, 1000, 700);
    placement.points.forEach(({ x, y }, index) => {
      assert.equal(hostAt(placement, x + 1, y), index);
    });
    assert.equal(hostAt(placement, 0, 0), undefined);
    const cards = placeHosts(3, 1000, 700);
    assert.equal(hostAt(cards, cards.points[1]!.x + 60, cards.points[1]!.y + 20), 1);
    assert.equal(hostAt(cards, cards.points[1]!.x + 80, cards.points[1]!.y), undefined);
  });
});
