import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { jsonValueOf, parseGoJson } from '../lease/go-json.ts';
import { type GoValue, marshalGo } from './go-marshal.ts';

const reparse = (text: string): unknown => {
  const parsed = parseGoJson(text);
  assert.ok(parsed.ok, text);
  return jsonValueOf(parsed.node);
};

describe("JSON in Go's form", () => {
  it('has sorted keys at every depth, the keys of a Map in their order, and no spaces', () => {
    assert.equal(
      marshalGo({ b: [{ z: 1, a: null }], a: true, '10': 2, '9': '' }),
      '{"10":2,"9":"","a":true,"b":[{"a":null,"z":1}]}',
    );
    assert.equal(
      marshalGo(
        new Map<string, GoValue>([
          ['z', { y: 1, x: 2 }],
          ['a', []],
        ]),
      ),
      '{"z":{"x":2,"y":1},"a":[]}',
    );
  });

  it('sorts keys by bytes, not by UTF-16 units', () => {
    // U+FF5E is the larger unit beside the first half of U+1F600, and the smaller code point.
    assert.equal(marshalGo({ '\u{1f600}': 1, '\uff5e': 2, aa: 3, a: 4 }), '{"a":4,"aa":3,"\uff5e":2,"\u{1f600}":1}');
  });

  it('escapes what matters to HTML and to JavaScript, and control characters', () => {
    assert.equal(
      marshalGo('<a href="x">&\u2028\u2029/\n\t\r\b\f\u0001\u007f\u00fc'),
      '"\\u003ca href=\\"x\\"\\u003e\\u0026\\u2028\\u2029/\\n\\t\\r\\b\\f\\u0001\u007f\u00fc"',
    );
  });

  it('formats numbers as Go formats a float64', () => {
    assert.equal(
      marshalGo([0, -0, 1472, -1.5, 1e20, 1e21, 1e-6, 1e-7, 2 ** 53]),
      '[0,-0,1472,-1.5,100000000000000000000,1e+21,0.000001,1e-7,9007199254740992]',
    );
    assert.throws(() => marshalGo({ a: Number.POSITIVE_INFINITY }), /too large/);
  });

  it('indents as MarshalIndent does', () => {
    assert.equal(
      marshalGo({ b: [1, {}], a: [], c: { d: 'e' } }, '    '),
      '{\n    "a": [],\n    "b": [\n        1,\n        {}\n    ],\n    "c": {\n        "d": "e"\n    }\n}',
    );
  });

  it('keeps a key that JavaScript treats apart', () => {
    assert.equal(
      marshalGo(JSON.parse('{"__proto__":{"a":1},"constructor":2}') as GoValue),
      '{"__proto__":{"a":1},"constructor":2}',
    );
  });

  it('loses nothing, minus zero included (property)', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom('', '    '), (value, indent) => {
        assert.deepEqual(reparse(marshalGo(value as GoValue, indent)), value);
      }),
    );
  });
});
