// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of commands look like placeholders
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { expandVariables } from './host-command.ts';

const VALUES: ReadonlyMap<string, string> = new Map([
  ['SUBNET', '10.1.2.0/24'],
  ['A', 'x y; $B `c`'],
  ['1', 'first'],
]);
const expand = (text: string): string => expandVariables(text, (name) => VALUES.get(name));

describe('variables in the words of a command', () => {
  it('are replaced with and without braces, and once', () => {
    assert.equal(expand('--routes=$SUBNET,${SUBNET}'), '--routes=10.1.2.0/24,10.1.2.0/24');
    assert.equal(expand('${A}'), 'x y; $B `c`');
    assert.equal(expand('$SUBNET.x $A-b'), '10.1.2.0/24.x x y; $B `c`-b');
  });

  it('are nothing where they are not known', () => {
    assert.equal(expand('[$NOBODY]${NOBODY}'), '[]');
    assert.equal(expand('$SUBNETS'), '');
  });

  it('may have the one-character names of a shell', () => {
    assert.equal(expand('$1|$12|${1}|$?|$$'), 'first|first2|first||');
  });

  it('leave a dollar sign that has no name, and lose braces that have none', () => {
    assert.equal(expand('5$ $ $. "$"'), '5$ $ $. "$"');
    assert.equal(expand('a${}b${A'), 'abA');
  });

  it('are not looked for in text without a dollar sign', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 50 }), (text) => {
        const plain = text.replaceAll('$', '');
        assert.equal(expand(plain), plain);
      }),
    );
  });
});
