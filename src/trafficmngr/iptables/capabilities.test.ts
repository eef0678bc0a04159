import assert from 'node:assert/strict';
import { it } from 'node:test';
import { iptablesCapabilities } from './capabilities.ts';

it('knows what came with iptables 1.6.2', () => {
  const answers: readonly [string, boolean][] = [
    ['iptables v1.8.9 (nf_tables)', true],
    ['iptables v1.6.2', true],
    ['iptables v1.6.1', false],
    ['iptables v1.6', false],
    ['iptables v1.4.21', false],
    ['iptables v2.0', true],
    ['something else', true],
  ];
  for (const [text, since162] of answers) assert.equal(iptablesCapabilities(text).since162, since162, text);
});

it('knows in whose tables its rules are', () => {
  assert.equal(iptablesCapabilities('iptables v1.8.9 (nf_tables)').isNft, true);
  for (const text of ['iptables v1.8.9 (legacy)', 'iptables v1.6.2', 'something else']) {
    assert.equal(iptablesCapabilities(text).isNft, false, text);
  }
});
