import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLog, klogLine, type LogFormat, type ModuleVerbosity } from './log.ts';

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

test('vmodule gives single files a level of their own, by name or pattern, the first that matches', () => {
  const shown = (vmodule: ModuleVerbosity[], verbosity = 0): number[] => {
    const lines: string[] = [];
    const log = createLog({ format: 'text', verbosity, vmodule, write: (line) => lines.push(line) });
    for (const level of [0, 1, 2, 3]) log.verbose(level, `level ${level}`);
    for (const line of lines) assert.match(line, /^I.* log\.test\.ts:\d+\] level \d\n$/);
    return lines.map((line) => Number(line.at(-2)));
  };
  const file = 'log.test';
  assert.deepEqual(shown([{ pattern: file, level: 2 }]), [0, 1, 2]);
  assert.deepEqual(shown([{ pattern: 'other', level: 3 }]), [0]);
  assert.deepEqual(shown([{ pattern: 'l?[a-g].*', level: 1 }]), [0, 1]);
  assert.deepEqual(
    shown([
      { pattern: 'log.*', level: 1 },
      { pattern: '*', level: 3 },
    ]),
    [0, 1],
  );
  assert.deepEqual(shown([{ pattern: file, level: 1 }], 2), [0, 1, 2]);
  assert.deepEqual(shown([{ pattern: '[', level: 3 }]), [0]);
});

test('log_backtrace_at adds the stack to the lines of one call', () => {
  const said = (format: LogFormat, backtraceAt: string): string => {
    let text = '';
    const log = createLog({ format, verbosity: 0, backtraceAt, write: (line) => (text += line) });
    log.info('here');
    log.info('there');
    return text;
  };
  const [at] = /log\.test\.ts:\d+/.exec(said('text', '')) ?? [''];
  assert.match(said('text', at), /\] here\n +at said .*\n(.*\n)* +at .*\nI.*\] there\n$/);
  const [first, second] = said('json', at)
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.match(String(first?.stack), /^ +at said /);
  assert.equal(second?.stack, undefined);
});

const HOSTILE = 'node "a\nE1126 10:00:00.000000       1 main.ts:1] all is lost\x1b[2J\u202e"';

for (const format of ['text', 'json'] as const) {
  test(`text from outside makes no line of its own and steers no terminal: ${format}`, () => {
    const lines: string[] = [];
    const log = createLog({ format, verbosity: 0, write: (line) => lines.push(line) });
    log.warn(HOSTILE, { subnet: HOSTILE });
    const [line = ''] = lines;
    assert.equal(lines.length, 1);
    assert.equal(line.indexOf('\n'), line.length - 1);
    assert.doesNotMatch(line.trimEnd(), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
    assert.match(line, /all is lost.*x1b\[2J.*u202e/);
  });

  test(`text from outside is cut: ${format}`, () => {
    const lines: string[] = [];
    const log = createLog({ format, verbosity: 0, write: (line) => lines.push(line) });
    log.error(`unreadable: ${'x'.repeat(250_000)}`, { key: 'y'.repeat(250_000) });
    assert.ok((lines[0]?.length ?? 0) < 8_000, `${lines[0]?.length}`);
    assert.match(lines[0] ?? '', /x… \(246012 more\)/);
  });

  test(`lines that cannot be written are dropped and counted, and the first that can be says so: ${format}`, () => {
    const lines: string[] = [];
    let isBroken = false;
    const log = createLog({ format, verbosity: 0, write: (line) => !isBroken && lines.push(line) > 0 });
    log.info('one');
    isBroken = true;
    for (let index = 0; index < 5; index++) log.info(`lost ${index}`);
    assert.equal(log.droppedLines, 5);
    isBroken = false;
    log.info('two');
    log.info('three');
    assert.equal(log.droppedLines, 5);
    const messages = lines.map((line) => (format === 'json' ? JSON.parse(line).message : line.split('] ')[1]?.trim()));
    assert.deepEqual(messages, [
      'one',
      '5 log lines before this one were lost because they could not be written',
      'two',
      'three',
    ]);
  });
}

test('further lines of our own messages stay lines', () => {
  const lines: string[] = [];
  const log = createLog({ format: 'text', verbosity: 0, write: (line) => lines.push(line) });
  log.error('no interface will do:\n  eth0: it is down\n  lo: it is loopback');
  assert.match(lines[0] ?? '', /no interface will do:\n {2}eth0: it is down\n {2}lo: it is loopback\n$/);
});
