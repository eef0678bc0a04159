import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { run } from './linux/run.ts';
import { collectGarbage, RUNTIME_FLAGS } from './runtime-flags.ts';

test('bin/flanneld starts Node.js with the same flags', () => {
  const script = readFileSync(new URL('../bin/flanneld', import.meta.url), 'utf8');
  const words = /^flags="(.*)"$/m.exec(script)?.[1]?.split(' ');
  assert.deepEqual(words, RUNTIME_FLAGS);
  assert.match(script, /^exec "\$node" \$flags /m);
});

test('code that was compiled without the flags, as that of Node.js itself, is accepted with them', async () => {
  const node = async (flags: readonly string[], code: string): Promise<string> =>
    (await run([process.execPath, ...flags, '-p', code])).stdout.trim();
  const script = (options: string): string => `new (require('vm').Script)('1 + 1', ${options})`;
  const compiled = await node([], `${script('{}')}.createCachedData().toString('base64')`);
  const rejected = (flags: readonly string[]): Promise<string> =>
    node(flags, `${script(`{ cachedData: Buffer.from('${compiled}', 'base64') }`)}.cachedDataRejected`);
  assert.equal(await rejected(RUNTIME_FLAGS), 'false');
  assert.equal(await rejected(['--expose-gc']), 'true', 'a flag that V8 counts is noticed');
});

test('garbage is collected, in a process that was not started with a way to', async () => {
  assert.equal(globalThis.gc, undefined);
  const reference = new WeakRef({});
  // What a WeakRef was made for lives until the end of the turn.
  await delay(0);
  collectGarbage();
  assert.equal(reference.deref(), undefined);
  assert.equal(globalThis.gc, undefined);
});
