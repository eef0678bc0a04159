import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeReadiness } from './readiness.ts';

test('not ready without a word until started, with a reason while start-up waits', () => {
  const readiness = new NodeReadiness();
  assert.deepEqual(readiness.read(), { ready: false });
  readiness.waiting('no network configuration');
  assert.deepEqual(readiness.read(), { ready: false, reason: 'no network configuration' });
  readiness.started();
  assert.deepEqual(readiness.read(), { ready: true });
  readiness.waiting('waiting for a subnet lease');
  assert.deepEqual(readiness.read(), { ready: false, reason: 'waiting for a subnet lease' });
  readiness.started();
  assert.deepEqual(readiness.read(), { ready: true });
});

test('a part that breaks makes it not ready, for as long as it is broken and watched', () => {
  const readiness = new NodeReadiness();
  let broken: string | undefined;
  const watch = readiness.watch('forwarder', {
    get failure() {
      return broken;
    },
  });
  readiness.started();
  broken = 'the TUN device is gone';
  assert.deepEqual(readiness.read(), { ready: false, reason: 'the TUN device is gone' });
  broken = undefined;
  assert.deepEqual(readiness.read(), { ready: true });
  broken = 'again';
  watch[Symbol.dispose]();
  assert.deepEqual(readiness.read(), { ready: true });
});

test('every part that fails is named, in one answer', () => {
  const readiness = new NodeReadiness();
  using _kernel = readiness.watch('kernel', { failure: 'the route is taken' });
  using _rules = readiness.watch('rules', { failure: undefined });
  using _cni = readiness.watch('cni-conf', { failure: 'no room' });
  assert.deepEqual(readiness.failing(), [
    { part: 'kernel', reason: 'the route is taken' },
    { part: 'cni-conf', reason: 'no room' },
  ]);
  assert.deepEqual(readiness.parts(), { kernel: true, rules: false, 'cni-conf': true });
  readiness.started();
  assert.deepEqual(readiness.read(), { ready: false, reason: 'the route is taken; no room' });
});
