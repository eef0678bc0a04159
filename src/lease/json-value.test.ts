import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { ENTRY_BOUNDS, jsonValueOf, parseGoJson } from './go-json.ts';
import { equalJson, JsonBoundsError, parseJsonWithin, textWithin } from './json-value.ts';
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

describe('one text of a document that is not parsed', () => {
  const PATH = ['metadata', 'name'];

  it('is that which stands at the path, and no other', () => {
    for (const [text, found] of [
      ['{"kind":"Node","metadata":{"labels":{"name":"no"},"name":"yes"},"name":"no"}', 'yes'],
      ['{ "metadata" : { "name" : "a\\"\\u0062" } }', 'a"b'],
      ['{"status":{"metadata":{"name":"no"}},"list":["metadata",{"metadata":{"name":"no"}}]}', undefined],
      ['{"metadata":{"uid":"1"},"name":"no"}', undefined],
      ['{"metadata":"name","x":{"name":"no"}}', undefined],
      ['{"metadata":["name","no"]}', undefined],
      ['{"metadata":{"name":7}}', undefined],
      ['{"metadata":{"x":"name","name":"yes"}}', 'yes'],
      [`{"metadata":{"name":"${'x'.repeat(100_000)}"}}`, undefined],
      ['{"metadata":{"name":"cut o', undefined],
      ['', undefined],
    ] as const) {
      assert.equal(textWithin(text, PATH), found, text.slice(0, 100));
    }
    assert.equal(textWithin(`{"deep":${nested(1_000_000)},"metadata":{"name":"yes"}}`, PATH), 'yes');
  });

  it('is what a parser finds there', () => {
    const key = fc.constantFrom('metadata', 'name', 'x');
    const tree = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom('metadata', 'name', 'a"b\\', '', 7, null),
        fc.dictionary(key, tie('value'), { maxKeys: 3 }),
        fc.array(tie('value'), { maxLength: 3 }),
      ),
    })).value;
    const isObject = (value: unknown): value is Record<string, unknown> =>
      typeof value === 'object' && value !== null && !Array.isArray(value);
    fc.assert(
      fc.property(tree, fc.constantFrom(0, 2), (value, indent) => {
        const metadata = isObject(value) && Object.hasOwn(value, 'metadata') ? value.metadata : undefined;
        const name = isObject(metadata) && Object.hasOwn(metadata, 'name') ? metadata.name : undefined;
        const expected = typeof name === 'string' ? name : undefined;
        assert.equal(textWithin(JSON.stringify(value, undefined, indent), PATH), expected);
      }),
      { numRuns: 2_000 },
    );
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
