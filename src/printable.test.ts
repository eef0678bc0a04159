import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { printable, printableLines, printableValue } from './printable.ts';

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

test('every text in a value, and every name, can be shown; the rest of it stays', () => {
  assert.deepEqual(
    printableValue({ 'a\x1b': ['b\x07', 1, null, true, { c: 'two\n  lines\nor not' }], d: 'as it is' }),
    {
      'a\\x1b': ['b\\x07', 1, null, true, { c: 'two\n  lines\\nor not' }],
      d: 'as it is',
    },
  );
  const named = printableValue(JSON.parse('{"__proto__": {"x": "\\u001b"}}')) as object;
  assert.deepEqual(Object.getOwnPropertyNames(named), ['__proto__']);
  assert.equal((named as { readonly x?: string }).x, undefined);
  fc.assert(
    fc.property(fc.json({ stringUnit: 'binary' }), (text) => {
      JSON.parse(JSON.stringify(printableValue(JSON.parse(text))), (name, value: unknown) => {
        for (const each of [name, value]) {
          if (typeof each !== 'string') continue;
          assert.doesNotMatch(each.replaceAll('\n  ', ''), /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u);
        }
        return value;
      });
    }),
  );
});
