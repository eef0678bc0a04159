import assert from 'node:assert/strict';
import { test } from 'node:test';
import { retryNow, sleep } from './backoff.ts';

const HOUR_MS = 3_600_000;

test('a wait ends at once when the network has changed, and so do all others', async () => {
  const { signal } = new AbortController();
  const waits = [sleep(HOUR_MS, signal), sleep(HOUR_MS, signal)];
  retryNow();
  await Promise.all(waits);
});

test('a wait that begins later is not touched, and ends with the reason of its signal', async () => {
  const abort = new AbortController();
  retryNow();
  const wait = sleep(HOUR_MS, abort.signal);
  abort.abort(new Error('enough'));
  await assert.rejects(wait, /enough/);
  await assert.rejects(sleep(0, abort.signal), /enough/);
});

test('a wait lasts as long as it is told', async () => {
  await sleep(1, new AbortController().signal);
});
