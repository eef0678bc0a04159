import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { RUNTIME_FLAGS } from './runtime-flags.ts';

test('bin/flanneld starts Node.js with the same flags', () => {
  const script = readFileSync(new URL('../bin/flanneld', import.meta.url), 'utf8');
  const words = /^flags="(.*)"$/m.exec(script)?.[1]?.split(' ');
  assert.deepEqual(words, RUNTIME_FLAGS);
  assert.match(script, /^exec "\$node" \$flags /m);
});
