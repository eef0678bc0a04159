import assert from 'node:assert/strict';
import { it } from 'node:test';
import { containsAddr, formatAddr, formatPrefix, isUnicast, parseAddr, parsePrefix } from './address.ts';

it('reads and writes addresses and prefixes of both families', () => {
  for (const text of ['0.0.0.0', '10.244.1.0', '255.255.255.255', '::', '::1', 'fd10:244::', 'fe80::1']) {
    assert.equal(formatAddr(parseAddr(text)!), text);
  }
  for (const text of ['0.0.0.0/0', '10.244.0.0/16', '::/0', 'fd10:244::/56']) {
    assert.equal(formatPrefix(parsePrefix(text)!), text);
  }
  for (const text of ['', '10.1.1', 'fd00::/64', 'default']) assert.equal(parseAddr(text), undefined);
  for (const text of ['', '10.1.1.1', '10.0.0.0/33', '::/129']) assert.equal(parsePrefix(text), undefined);
});

it('never finds an address in a prefix of the other family', () => {
  assert.equal(containsAddr(parsePrefix('0.0.0.0/0')!, parseAddr('::')!), false);
  assert.equal(containsAddr(parsePrefix('::/0')!, parseAddr('0.0.0.0')!), false);
  assert.equal(containsAddr(parsePrefix('10.244.0.0/16')!, parseAddr('10.244.3.1')!), true);
  assert.equal(containsAddr(parsePrefix('fd10::/56')!, parseAddr('fd11::1')!), false);
});

it('knows an address that one host can have', () => {
  for (const text of ['10.0.0.1', '1.0.0.0', '223.255.255.255', 'fd00::1', '2001:db8::', '::2'])
    assert.equal(isUnicast(parseAddr(text)!), true, text);
  for (const text of ['0.0.0.0', '0.1.2.3', '127.0.0.1', '224.0.0.1', '239.255.255.255', '255.255.255.255'])
    assert.equal(isUnicast(parseAddr(text)!), false, text);
  for (const text of ['::', '::1', 'ff02::1', '::ffff:192.0.2.1'])
    assert.equal(isUnicast(parseAddr(text)!), false, text);
});
