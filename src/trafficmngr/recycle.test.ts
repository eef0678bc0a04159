import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parsePrefix } from '../ip/address.ts';
import { recycleMessage } from './recycle.ts';

const state = (network: string, subnet: string) => ({ network: parsePrefix(network), subnet: parsePrefix(subnet) });
const NONE = { network: undefined, subnet: undefined };

it('says flannel’s line when network or subnet are other ones', () => {
  const current = state('10.244.0.0/16', '10.244.1.0/24');
  assert.equal(recycleMessage(4, current, current), undefined);
  assert.equal(
    recycleMessage(4, current, NONE),
    'Current network or subnet (10.244.0.0/16, 10.244.1.0/24) is not equal to previous one (0.0.0.0/0, 0.0.0.0/0), trying to recycle old iptables rules',
  );
  assert.match(
    recycleMessage(4, current, state('10.244.0.0/16', '10.244.7.0/24')) ?? '',
    /\(10\.244\.0\.0\/16, 10\.244\.7\.0\/24\)/,
  );
  assert.match(
    recycleMessage(6, state('fd00::/48', 'fd00::/64'), NONE) ?? '',
    /\(fd00::\/48, fd00::\/64\).*\(::\/0, ::\/0\)/,
  );
});
