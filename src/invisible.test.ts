import assert from 'node:assert/strict';
import { it } from 'node:test';
import fc from 'fast-check';
import { firstInvisible, nameOfInvisible, showInvisible } from './invisible.ts';

it('names what cannot be seen, and typographic quotation marks', () => {
  assert.equal(nameOfInvisible('\ufeff'), 'U+FEFF (byte order mark)');
  assert.equal(nameOfInvisible('\u00a0'), 'U+00A0 (no-break space)');
  assert.equal(nameOfInvisible('\u2003'), 'U+2003 (space of a fixed width)');
  assert.equal(nameOfInvisible('\u2066'), 'U+2066 (invisible)');
  assert.equal(nameOfInvisible('\u201d'), 'U+201D (right double quotation mark)');
  for (const character of [' ', '"', 'a', 'ä', '漢', '', 'ab', '\u00a0\u00a0']) {
    assert.equal(nameOfInvisible(character), undefined, character);
  }
  assert.equal(showInvisible('eth0\u00a0'), 'eth0<U+00A0 (no-break space)>');
});

it('says where the first one is', () => {
  assert.equal(firstInvisible('a\nb "c"'), undefined);
  assert.equal(firstInvisible('\ufeffa'), 'line 1, column 1 has U+FEFF (byte order mark)');
  assert.equal(firstInvisible('a\nb:\u00a0\u200bc'), 'line 2, column 3 has U+00A0 (no-break space)');
});

it('leaves nothing invisible, and every other text as it is', () => {
  const character = fc.constantFrom('a', ' ', '"', 'é', '\u00a0', '\ufeff', '\u200b', '\u2060');
  fc.assert(
    fc.property(fc.string({ unit: fc.oneof(character, fc.string({ unit: 'binary', maxLength: 1 })) }), (text) => {
      const shown = showInvisible(text);
      assert.ok(![...shown].some((one) => nameOfInvisible(one) !== undefined));
      if (![...text].some((one) => nameOfInvisible(one) !== undefined)) assert.equal(shown, text);
    }),
  );
});
