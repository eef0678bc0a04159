import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parseMac } from './mac.ts';

it('reads link-layer addresses', () => {
  assert.equal(parseMac('72:4F:d0:84:69:9f'), '72:4f:d0:84:69:9f');
  assert.equal(parseMac('72:4f:d0:84:69'), undefined);
  assert.equal(parseMac('72-4f-d0-84-69-9f'), undefined);
});
