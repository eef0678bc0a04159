import assert from 'node:assert/strict';
import { it } from 'node:test';
import { requiredVersion } from './go-module.ts';

it('finds the version of exactly that module, in a block and on a line of its own', () => {
  const goMod = 'module m\n\nrequire example.com/a v1.2.3\n\nrequire (\n\texample.com/b/v2 v2.0.1 // indirect\n)\n';
  assert.equal(requiredVersion(goMod, 'example.com/a'), 'v1.2.3');
  assert.equal(requiredVersion(goMod, 'example.com/b/v2'), 'v2.0.1');
  assert.throws(() => requiredVersion(goMod, 'example.com/b'), /does not require example.com\/b$/);
});
