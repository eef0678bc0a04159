import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { redact } from './redact.ts';

describe('what is left out of a report', () => {
  const KEY = 'yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=';
  const SECRETS: readonly (readonly [string, string])[] = [
    ['"PSK": "canary"', '"PSK": "[redacted]"'],
    ['AccessKeySecret=canary', 'AccessKeySecret=[redacted]'],
    ['--etcd-password=canary other', '--etcd-password=[redacted] other'],
    ['etcdPassword:canary kubeApiUrl:', 'etcdPassword:[redacted] kubeApiUrl:'],
    ['https://user:canary@host:2379/x', 'https://[redacted]host:2379/x'],
    ['Authorization: Bearer canary-12345', 'Authorization: Bearer [redacted]'],
    ['Weft-Api-Token: canary', 'Weft-Api-Token: [redacted]'],
    [`peer: ${KEY}`, 'peer: [redacted]'],
    ['-----BEGIN EC PRIVATE KEY-----\ncanary\n-----END EC PRIVATE KEY-----', '[redacted]'],
    ['jwt eyJhbGciOiJSUzI1.eyJpc3MiOiJr.c2lnbmF0dXJl end', 'jwt [redacted] end'],
  ];
  for (const [text, shown] of SECRETS) it(`${shown}`, () => assert.equal(redact(text), shown));

  it('nothing else', () => {
    for (const text of [
      '10.244.0.0/16 dev flannel0 proto 241 scope link',
      '"etcdPassword": "<redacted>", "PSK": "[secret]"',
      'sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae',
      'link/ether 02:42:ac:11:00:02 brd ff:ff:ff:ff:ff:ff',
    ])
      assert.equal(redact(text), text);
  });
});
