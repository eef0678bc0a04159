import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address6 } from '../../test/fakes/packets6.ts';
import { type Ipv6Addr, ipv6Of, parseIpv6 } from '../ip/ipv6.ts';
import { LocalAddresses6 } from './local-addresses6.ts';

const of = (text: string): Ipv6Addr => parseIpv6(text)!;

function has(addresses: LocalAddresses6, text: string): boolean {
  return new LocalAddresses6(addresses.buffer).has(new DataView(address6(text).buffer), 0);
}

describe('LocalAddresses6', () => {
  it('has what it was given last, and nothing before', () => {
    const addresses = LocalAddresses6.allocate();
    assert.equal(has(addresses, 'fd00::1'), false);
    assert.equal(addresses.replace([of('fd00::1'), of('2001:db8::7'), of('fd00::1')]), 0);
    for (const text of ['fd00::1', '2001:db8::7']) assert.ok(has(addresses, text));
    for (const text of ['fd00::2', 'fd00:0:0:1::1', '::']) assert.equal(has(addresses, text), false);
    addresses.replace([of('2001:db8::7'), of('fd00::3')]);
    assert.deepEqual(
      ['fd00::1', '2001:db8::7', 'fd00::3'].map((text) => has(addresses, text)),
      [false, true, true],
    );
    addresses.replace([]);
    assert.equal(has(addresses, 'fd00::3'), false);
  });

  it('leaves out what nobody may reach from afar', () => {
    const addresses = LocalAddresses6.allocate();
    const near = ['::', '::1', '::ffff:10.0.0.1', '::10.0.0.1', 'fe80::1', 'febf:ffff::1', 'ff02::1'];
    assert.equal(addresses.replace(near.map(of)), 0);
    for (const text of near) assert.equal(has(addresses, text), false, text);
    const far = ['fec0::1', 'fe7f::1', '0:1::1', 'fd00::1', '64:ff9b::1'];
    addresses.replace(far.map(of));
    for (const text of far) assert.ok(has(addresses, text), text);
  });

  it('takes 512, and says how many found no room', () => {
    const addresses = LocalAddresses6.allocate();
    const many = Array.from({ length: 600 }, (_, index) => ipv6Of(of('fd00::') + BigInt(index)));
    assert.equal(addresses.replace(many), 88);
    assert.ok(has(addresses, 'fd00::1ff'));
    assert.equal(has(addresses, 'fd00::200'), false);
  });
});
