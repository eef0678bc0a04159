import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { ENTRY_BOUNDS, jsonValueOf, parseGoJson } from './go-json.ts';
import { equalJson, JsonBoundsError, parseJsonWithin } from './json-value.ts';
import type { JsonValue } from './lease.ts';

const WIDE = { depth: 100, length: 100_000, values: 10_000 };
const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);

describe('JSON within bounds', () => {
  it('is what JSON.parse makes of it, and what JSON.parse refuses is refused', () => {
    const odd = fc.string({ unit: fc.constantFrom(...'{}[]",:\\/ \n\tubtrfalsn0123.eE+-') });
    fc.assert(
      fc.property(fc.oneof(fc.json(), odd), (text) => {
        let expected: unknown;
        try {
          expected = JSON.parse(text);
        } catch {
          assert.throws(() => parseJsonWithin(text, WIDE));
          return;
        }
        assert.deepEqual(parseJsonWithin(text, WIDE), expected);
      }),
      { numRuns: 2_000 },
    );
  });

  it('stops at each bound, in both parsers, at the same depth', () => {
    const bounds = { depth: 5, length: 40, values: 6 };
    for (const [text, fits] of [
      [nested(5), true],
      [nested(6), false],
      ['[1,2,3,4,5]', true],
      ['[1,2,3,4,5,6]', false],
      [`"${'x'.repeat(38)}"`, true],
      [`"${'x'.repeat(39)}"`, false],
      ['["[[[[[[[[[,,,,,,\\"[[[[[["]', true],
    ] as const) {
      assert.equal(parseGoJson(text, bounds).ok, fits, text);
      if (fits) parseJsonWithin(text, bounds);
      else assert.throws(() => parseJsonWithin(text, bounds), JsonBoundsError);
    }
    assert.equal(parseGoJson(nested(3_000), ENTRY_BOUNDS).ok, false);
    assert.throws(() => parseJsonWithin(nested(1_000_000), { ...WIDE, length: 10_000_000 }), JsonBoundsError);
  });
});

describe('equality of JSON values', () => {
  it('is that of the values, whatever the order of keys', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
        const [left, right] = [a as JsonValue, b as JsonValue];
        assert.equal(equalJson(left, right), isDeepStrictEqual(left, right));
        const copy = parseGoJson(JSON.stringify(left));
        assert.ok(copy.ok);
        // JSON has one zero.
        if (!JSON.stringify(left).includes('0')) assert.ok(equalJson(left, jsonValueOf(copy.node)));
      }),
    );
    assert.ok(equalJson({ a: 1, b: [2, null] }, { b: [2, null], a: 1 }));
    assert.ok(!equalJson([], {}) && !equalJson(null, {}) && !equalJson(undefined, null) && !equalJson([1], [1, 2]));
    assert.ok(!equalJson(JSON.parse('{"__proto__":{"a":1}}'), JSON.parse('{"x":{"a":1}}')));
  });

  it('needs no stack', () => {
    const deep = (): JsonValue => {
      let value: JsonValue = [];
      for (let depth = 0; depth < 200_000; depth++) value = [value];
      return value;
    };
    assert.ok(equalJson(deep(), deep()));
  });
});
