import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { foldKey, jsonValueOf, parseGoJson } from './go-json.ts';

/** What JSON.parse makes of a text, in the terms of parseGoJson. */
function reference(text: string): { ok: boolean; value?: unknown } {
  try {
    return { ok: true, value: JSON.parse(text) };
  } catch {
    return { ok: false };
  }
}

function agreesWithJsonParse(text: string): void {
  const expected = reference(text);
  const result = parseGoJson(text);
  assert.equal(result.ok, expected.ok, text);
  // Escaped surrogates may be unpaired, which Go replaces and JSON.parse keeps.
  if (result.ok && !/\\ud/i.test(text)) assert.deepEqual(jsonValueOf(result.node), expected.value);
}

describe('Go JSON', () => {
  it('accepts what JSON.parse accepts, with the same value', () => {
    fc.assert(fc.property(fc.json(), agreesWithJsonParse));
    const odd = fc.string({ unit: fc.constantFrom(...'{}[]",:\\/ \n\tubtrfalsn0123.eE+-ſ') });
    fc.assert(fc.property(odd, agreesWithJsonParse), { numRuns: 2000 });
  });

  it('sees every damaged character as JSON.parse does', () => {
    const damaged = fc.tuple(fc.json(), fc.nat(), fc.string({ maxLength: 2 })).map(([text, at, insert]) => {
      const where = at % (text.length + 1);
      return text.slice(0, where) + insert + text.slice(where + 1);
    });
    fc.assert(fc.property(damaged, agreesWithJsonParse), { numRuns: 1000 });
  });

  // As encoding/json of Go 1.26 prints them.
  const messages: [string, string][] = [
    ['', 'unexpected end of JSON input'],
    ['{"a":1', 'unexpected end of JSON input'],
    ['{"a":1,}', "invalid character '}' looking for beginning of object key string"],
    ['{"a":01}', "invalid character '1' after object key:value pair"],
    ['{"a":1}x', "invalid character 'x' after top-level value"],
    ["{'a':1}", "invalid character '\\'' looking for beginning of object key string"],
    ['{"a":"\\q"}', "invalid character 'q' in string escape code"],
    ['{"a":tru}', "invalid character '}' in literal true (expecting 'e')"],
    ['{"a" 1}', "invalid character '1' after object key"],
    ['{"a":1.}', "invalid character '}' after decimal point in numeric literal"],
    ['{"a":-}', "invalid character '}' in numeric literal"],
    ['[1 2]', "invalid character '2' after array element"],
    ['// c\n{}', "invalid character '/' looking for beginning of value"],
  ];
  for (const [text, message] of messages) {
    it(`says of ${JSON.stringify(text)}: ${message}`, () => {
      const result = parseGoJson(text);
      assert.ok(!result.ok);
      assert.equal(result.message, message);
    });
  }

  it('says where', () => {
    const result = parseGoJson('{\n "a": 1,\n "b": ?\n}');
    assert.ok(!result.ok);
    assert.deepEqual([result.line, result.column], [3, 7]);
  });

  it('keeps repeated keys in order', () => {
    const result = parseGoJson('{"a":1,"A":2,"a":3}');
    assert.ok(result.ok && result.node.kind === 'object');
    assert.deepEqual(
      result.node.members.map(({ key }) => key),
      ['a', 'A', 'a'],
    );
  });

  it('gives up on deep nesting before the stack is exhausted', () => {
    const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);
    assert.ok(parseGoJson(nested(500)).ok);
    for (const depth of [501, 1_000_000]) {
      const tooDeep = parseGoJson(nested(depth));
      assert.ok(!tooDeep.ok && tooDeep.message === 'exceeded max depth');
    }
  });

  it('replaces unpaired surrogates, as Go does', () => {
    const result = parseGoJson('"a\\ud800b\\ud83d\\ude00"');
    assert.ok(result.ok);
    assert.equal(jsonValueOf(result.node), 'a\ufffdb\u{1f600}');
  });

  it('folds the letters Go folds', () => {
    assert.equal(foldKey('\u017fubnet\u212aEY'), 'subnetkey');
  });
});
