import assert from 'node:assert/strict';
import shared from 'node:console';
import { it } from 'node:test';
import { consoleInto } from './console.ts';

it('what packages tell the console is in the log, and nowhere else', () => {
  const lines: string[] = [];
  const say =
    (level: string) =>
    (text: string): void =>
      void lines.push(`${level} ${text}`);
  const before = { ...shared };
  {
    using _ = consoleInto({
      warn: say('warn'),
      error: say('error'),
      verbose: (level, text) => void lines.push(`v${level} ${text}`),
    });
    shared.error('E %s:', 'no way', new Error('gone').message);
    shared.warn({ a: 1 });
    shared.info('The user aborted a request.');
    shared.log('x', 1);
    shared.debug('y');
  }
  assert.deepEqual(lines, [
    'error E no way: gone',
    'warn { a: 1 }',
    'v2 The user aborted a request.',
    'v2 x 1',
    'v2 y',
  ]);
  assert.deepEqual({ ...shared }, before);
});
