import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LineParser, ListParser } from './list-parser.ts';

/** Feeds `text` in pieces cut at `cuts` (fractions of its length). */
function feed(text: string, cuts: readonly number[], push: (chunk: Buffer) => void): void {
  const bytes = Buffer.from(text, 'utf8');
  const at = [0, ...cuts.map((cut) => Math.floor(cut * bytes.length)).sort((a, b) => a - b), bytes.length];
  for (let i = 0; i + 1 < at.length; i++) push(bytes.subarray(at[i], at[i + 1]));
}

const cuts = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });
const object = fc.dictionary(fc.string(), fc.jsonValue());

test('any list, cut anywhere, gives its items and its metadata', () => {
  const list = fc.record({
    items: fc.array(object, { maxLength: 8 }),
    extra: object,
    resourceVersion: fc.nat().map(String),
    continueToken: fc.string(),
    itemsFirst: fc.boolean(),
    indent: fc.constantFrom(0, 2),
  });
  fc.assert(
    fc.property(list, cuts, ({ items, extra, resourceVersion, continueToken, itemsFirst, indent }, at) => {
      const metadata = { metadata: { items: [{}], extra, resourceVersion, continue: continueToken } };
      const document = { kind: 'List', extra, ...(itemsFirst ? { items, ...metadata } : { ...metadata, items }) };
      const seen: unknown[] = [];
      const parser = new ListParser((json) => seen.push(JSON.parse(json)));
      feed(`${JSON.stringify(document, undefined, indent)}\n`, at, (chunk) => parser.push(chunk));
      assert.deepEqual(parser.end(), { resourceVersion, continueToken });
      assert.deepEqual(seen, JSON.parse(JSON.stringify(items)));
    }),
  );
});

test('a list without items, or with null for them', () => {
  for (const items of ['', ',"items":[]', ',"items":null', ',"items": [ ]']) {
    const parser = new ListParser(() => assert.fail('an item'));
    parser.push(Buffer.from(`{"metadata":{"resourceVersion":"7"}${items}}`));
    assert.deepEqual(parser.end(), { resourceVersion: '7', continueToken: '' });
  }
});

test('a list that was cut short is an error, wherever it was cut', () => {
  const text = JSON.stringify({ metadata: { resourceVersion: '7' }, items: [{ a: 'x"y\\' }, { b: [1, { c: '}' }] }] });
  for (let length = 0; length < text.length; length++) {
    const parser = new ListParser(() => {});
    parser.push(Buffer.from(text.slice(0, length)));
    assert.throws(() => parser.end());
  }
});

test('what is no list is an error', () => {
  for (const text of ['[]', '"text"', '{"kind":"Status","metadata":{}}', 'null']) {
    const parser = new ListParser(() => {});
    parser.push(Buffer.from(text));
    assert.throws(() => parser.end(), /not a list/);
  }
});

test('an object without end does not fill the memory', () => {
  const parser = new ListParser(() => {});
  parser.push(Buffer.from('{"items":[{"a":"'));
  const piece = Buffer.alloc(1 << 20, 0x61);
  assert.throws(() => {
    for (let i = 0; i < 32; i++) parser.push(piece);
  }, /larger than/);
  const lines = new LineParser();
  assert.throws(() => {
    for (let i = 0; i < 32; i++) lines.push(piece);
  }, /larger than/);
});

test('lines, cut anywhere', () => {
  const line = fc.string().map((text) => text.replaceAll(/[\n]/g, '') || 'x');
  fc.assert(
    fc.property(fc.array(line), cuts, (lines, at) => {
      const parser = new LineParser();
      const seen: string[] = [];
      feed(lines.map((one) => `${one}\n`).join(''), at, (chunk) => seen.push(...parser.push(chunk)));
      assert.deepEqual(seen, lines);
    }),
  );
});
