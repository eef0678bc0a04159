import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses, networkInterface } from '../../test/fakes/host-networks.ts';
import { formatPrefix } from '../ip/address.ts';
import type { ChosenInterface } from '../underlay/interface-choice.ts';
import { externalOf } from './external-interface.ts';

function networksOn(...texts: string[]): string[] {
  const chosen: ChosenInterface = {
    ...{ found: true, byDefault: true, interface: networkInterface('eth0', texts) },
    ...{ addresses: addresses(), publicAddresses: addresses() },
    ...{ why: '', failures: [], rejected: [] },
  };
  return externalOf(chosen).onLink.map(formatPrefix);
}

describe('the networks on the link of the external interface', () => {
  const usual = networksOn('192.168.77.1', 'fd77::1', 'fe80::1');

  it('are those of its addresses, without link-local ones', () => {
    assert.deepEqual(usual, ['192.168.77.0/24', 'fd77::/64']);
  });

  it('are the same whatever floats in them, and in whichever order addresses stand', () => {
    assert.deepEqual(networksOn('fd77::9', '192.168.77.100', 'fd77::1', '192.168.77.1'), usual);
  });

  it('have no part in an address that stands alone', () => {
    const alone = networkInterface('eth0', ['192.168.77.1', '192.168.77.100']);
    const addresses = alone.addresses.map((one, i) => (i === 1 ? { ...one, prefixLength: 32 } : one));
    const chosen = { interface: { ...alone, addresses } } as unknown as ChosenInterface;
    assert.deepEqual(externalOf(chosen).onLink.map(formatPrefix), ['192.168.77.0/24']);
  });
});
