import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { compareRules, type Keyed } from './compare-rules.ts';

const rule = (key: string): Keyed => ({ key, text: `rule ${key}` });
const rules = fc.array(fc.constantFrom('a', 'b', 'c', 'd'), { maxLength: 6 }).map((keys) => keys.map(rule));

function problems(wanted: string, actual: string): string[] {
  return compareRules([...wanted].map(rule), [...actual].map(rule)).map(({ problem, text }) => `${problem} ${text}`);
}

describe('compareRules', () => {
  it('names what differs', () => {
    assert.deepEqual(problems('abc', 'abc'), []);
    assert.deepEqual(problems('abc', 'ac'), ['missing rule b']);
    assert.deepEqual(problems('abc', 'abcb'), ['duplicate rule b']);
    assert.deepEqual(problems('abc', 'xabc'), ['unexpected rule x']);
    assert.deepEqual(problems('abc', 'acb'), ['order rule c']);
    assert.deepEqual(problems('aab', 'ab'), ['missing rule a']);
    assert.deepEqual(problems('abc', ''), ['missing rule a', 'missing rule b', 'missing rule c']);
  });

  it('is empty exactly for the same sequence', () => {
    fc.assert(
      fc.property(rules, rules, (wanted, actual) => {
        const same = wanted.length === actual.length && wanted.every(({ key }, i) => key === actual[i]?.key);
        assert.equal(compareRules(wanted, actual).length === 0, same);
      }),
    );
  });
});
