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
  for (const [text, since162] of answers) assert.deepEqual(iptablesCapabilities(text), { since162 }, text);
});
