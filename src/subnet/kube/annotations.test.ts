import assert from 'node:assert/strict';
import { test } from 'node:test';
import { annotationKeys } from './annotations.ts';

test('prefixes become key names by the rules of flannel', () => {
  for (const [prefix, key] of [
    ['flannel.alpha.coreos.com', 'flannel.alpha.coreos.com/backend-type'],
    ['org.com', 'org.com/backend-type'],
    ['org.com/', 'org.com/backend-type'],
    ['flannel.alpha.coreos.com/prefix', 'flannel.alpha.coreos.com/prefix-backend-type'],
    ['flannel.alpha.coreos.com/prefix-', 'flannel.alpha.coreos.com/prefix-backend-type'],
    ['a_b.com/3_x', 'a_b.com/3_x-backend-type'],
  ] as const) {
    assert.equal(annotationKeys(prefix).backendType, key);
  }
});

test('other prefixes are refused with the messages of flannel', () => {
  for (const prefix of ['org', 'org/', 'org/prefix', 'ORG.com', 'org.com/Prefix', '', '/', '.com', 'org.com/-x y']) {
    assert.throws(() => annotationKeys(prefix), {
      code: 'WEFT_USAGE',
      message: /^subnet\/kube: prefix must be in a format: fqdn\/\[0-9a-z-_\]\*/,
    });
  }
  assert.throws(() => annotationKeys('org.com/a/b'), {
    code: 'WEFT_USAGE',
    message: /^subnet\/kube: prefix can contain at most single slash/,
  });
});
