import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { formatRoute, parseRoute, SCREENS } from './routes.ts';

describe('addresses of the page', () => {
  it('lead to their screen, and what is no screen to the map', () => {
    for (const { id } of SCREENS) assert.equal(parseRoute(`/${id}`, '').screen, id);
    for (const path of ['/', '', '/nothing', '//map', '/%']) assert.equal(parseRoute(path, '').screen, 'map');
    assert.equal(parseRoute('/host/%zz', '').host, '%zz');
  });

  it('come back as they were, with any names', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'grapheme' }), fc.string({ minLength: 1 }), (host, value) => {
        const address = formatRoute('host', { a: value, nothing: undefined, empty: '' }, host);
        const url = new URL(address, 'http://page');
        // A URL takes dots out of a path, and no host is called that.
        if (/^\.{1,2}$/.test(host)) return;
        const route = parseRoute(url.pathname, url.search);
        assert.deepEqual(route, { screen: 'host', host, query: { a: value } });
      }),
    );
  });
});
