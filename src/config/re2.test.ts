import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { compileRe2 } from './re2.ts';

describe('RE2 patterns', () => {
  const cases: [string, string, boolean][] = [
    ['eth', 'veth0', true],
    ['^eth[0-9]+$', 'eth12', true],
    ['^eth[0-9]+$', 'eth12x', false],
    ['10\\.98\\.', '10.98.0.11', true],
    ['(?i)ETH', 'eth0', true],
    ['ETH', 'eth0', false],
    ['\\Aeth\\d\\z', 'eth0', true],
    ['\\Aeth\\d\\z', 'eth01', false],
    ['^en[[:alpha:]][[:digit:]]$', 'enp0', true],
    ['^en[[:alpha:]]$', 'en1', false],
    ['^[^[:digit:]]+$', 'lo', true],
    ['\\Q10.0.0.\\E\\d', '10.0.0.7', true],
    ['\\Q10.0.0.', '10x0.0.7', false],
    ['(?P<name>eth)\\d', 'eth0', true],
    ['\\\\A', 'x\\A', true],
    ['', 'anything', true],
  ];
  for (const [pattern, text, matches] of cases) {
    it(`${JSON.stringify(pattern)} ${matches ? 'matches' : 'does not match'} ${text}`, () => {
      assert.equal(compileRe2(pattern)?.test(text), matches);
    });
  }

  it('says what is no pattern', () => {
    for (const pattern of ['(', '[a', '*', 'a**', '[[:^alpha:]]'])
      assert.equal(compileRe2(pattern), undefined, pattern);
  });
});
