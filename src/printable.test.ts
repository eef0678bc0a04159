import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { printable, printableLines } from './printable.ts';

test('what steers a terminal, makes lines or is not seen is written out', () => {
  assert.equal(
    printable('a\nE1126 00:00:00 fake] b\r\tc\x1b[2J\x9b31m\x7f\u202eevil\u2066\u2028\u200b\ufeff\u{e0041}'),
    'a\\nE1126 00:00:00 fake] b\\r\\tc\\x1b[2J\\x9b31m\\x7f\\u202eevil\\u2066\\u2028\\u200b\\ufeff\\u{e0041}',
  );
  assert.equal(printable('half \ud83d of one'), 'half \\ud83d of one');
});

test('text that can be shown stays as it is', () => {
  const text = 'Knoten „ä“ 10.244.1.0/24 \\n 日本語 😀 [WEFT_USAGE]';
  assert.equal(printable(text), text);
  assert.equal(printableLines(text, 1_000), text);
});

test('long text is cut, and says how much is missing', () => {
  assert.equal(printable('x'.repeat(250_000), 10), `${'x'.repeat(10)}… (249990 more)`);
  assert.equal(printableLines(`x\n  ${'y'.repeat(20)}`, 10), 'x\n  yyyyyy… (14 more)');
});

test('our own further lines stay lines; one that could be taken for a new line of the log does not', () => {
  assert.equal(
    printableLines('none will do\n  eth0: down\nE1126 fake\n  lo', 100),
    'none will do\n  eth0: down\\nE1126 fake\n  lo',
  );
});

test('never a control character, never much longer than the limit, whatever comes', () => {
  const anything = fc.oneof(fc.string({ unit: 'binary', maxLength: 200 }), fc.string({ unit: 'binary-ascii' }));
  fc.assert(
    fc.property(anything, fc.integer({ min: 0, max: 50 }), (text, limit) => {
      const shown = printable(text, limit);
      assert.doesNotMatch(shown, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
      assert.ok(shown.length <= limit * 9 + 20);
      assert.doesNotMatch(printableLines(text, limit).replaceAll('\n  ', ''), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
    }),
  );
});
