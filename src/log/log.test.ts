import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog, klogLine } from './log.ts';

test('text lines have the header that klog readers parse', () => {
  const lines: string[] = [];
  const log = createLog({ format: 'text', verbosity: 0, write: (line) => lines.push(line) });
  log.warn('Error renewing lease', { subnet: '10.244.1.0/24' });
  assert.match(
    lines[0] ?? '',
    /^W\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ log\.test\.ts:\d+\] Error renewing lease subnet="10\.244\.1\.0\/24"\n$/,
  );
});

test('the header of a known moment', () => {
  const time = new Date(2026, 10, 3, 4, 5, 6, 78);
  assert.equal(
    klogLine('I', time, 42, 'main.ts:7', 'ready', undefined),
    'I1103 04:05:06.078000      42 main.ts:7] ready\n',
  );
});

test('JSON lines carry level, message, fields and caller', () => {
  const lines: string[] = [];
  const log = createLog({ format: 'json', verbosity: 0, write: (line) => lines.push(line) });
  log.error('broken', { peer: 3 });
  const entry = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
  assert.equal(entry.level, 'error');
  assert.equal(entry.message, 'broken');
  assert.equal(entry.peer, 3);
  assert.match(String(entry.caller), /^log\.test\.ts:\d+$/);
});

test('verbose lines appear from their level on', () => {
  const lines: string[] = [];
  const log = createLog({ format: 'text', verbosity: 2, write: (line) => lines.push(line) });
  log.verbose(3, 'too much');
  log.verbose(2, 'enough');
  assert.equal(lines.length, 1);
});
