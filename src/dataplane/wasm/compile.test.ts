import assert from 'node:assert/strict';
import { it } from 'node:test';
import { compileSum16 } from './compile.ts';
import { SUM16_MODULE } from './sum16-module.ts';

it('the checked-in module is what its source compiles to', async () => {
  const fresh = await compileSum16();
  assert.equal(Buffer.from(fresh).toString('base64'), SUM16_MODULE);
});
