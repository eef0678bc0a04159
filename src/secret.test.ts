import assert from 'node:assert/strict';
import { it } from 'node:test';
import { inspect, isDeepStrictEqual } from 'node:util';
import { Secret } from './secret.ts';

it('a secret shows in no form of text, and is equal to one of the same text alone', () => {
  const key = new Secret('YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=');
  for (const shown of [String(key), `${key}`, JSON.stringify({ key }), inspect(key), inspect({ a: [key] })]) {
    assert.match(shown, /\[secret\]/);
    assert.doesNotMatch(shown, /YAnz5/);
  }
  assert.equal(key.reveal(), 'YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=');
  const [same, other] = [new Secret(key.reveal()), new Secret('xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=')];
  assert.deepEqual([key.equals(same), isDeepStrictEqual(key, same)], [true, true]);
  assert.deepEqual([key.equals(other), isDeepStrictEqual(key, other)], [false, false]);
});
