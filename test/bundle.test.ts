import assert from 'node:assert/strict';
import { it } from 'node:test';
import { bundle } from '../scripts/packaging/bundle.ts';

it('all programs fit into one CommonJS file, without an await outside functions', async () => {
  const { program, worker, licences } = await bundle(AbortSignal.timeout(60_000));
  // esbuild has refused what does not fit; these are looked up while it runs, where nothing would be found.
  for (const text of [program, worker]) assert.doesNotMatch(text, /\bimport\.meta\b/);
  assert.match(licences, /^==== koffi@/m);
  assert.match(licences, /^==== @kubernetes\/client-node@/m);
});
