import assert from 'node:assert/strict';
import { it } from 'node:test';
import { compilePackets } from './compile.ts';
import { PACKETS_MODULE } from './packets-module.ts';

it('the checked-in module is what its source compiles to', async () => {
  const fresh = await compilePackets();
  assert.equal(Buffer.from(fresh).toString('base64'), PACKETS_MODULE);
});
