import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { describePolicy } from '../desired/state.ts';
import { parseIpsecPolicies } from './ipsec-policies.ts';

/** As `ip -o xfrm policy list` of iproute2 6.1 prints them. */
const LISTED = String.raw`src 10.244.2.7/32 dst 10.244.1.0/24 \	dir fwd priority 0 ptype main \
src 0.0.0.0/0 dst 10.244.0.0/16 \	dir out action block priority 2412 ptype main \
src 10.244.2.0/24 dst 10.244.1.0/24 \	dir in priority 2410 ptype main \	tmpl src 192.168.0.2 dst 192.168.0.1\		proto esp reqid 11 mode tunnel\
src 10.244.1.0/24 dst 10.244.2.0/24 \	dir out priority 2410 ptype main \	tmpl src 192.168.0.1 dst 192.168.0.2\		proto esp reqid 12 mode tunnel\
src 10.244.1.0/24 dst 10.244.3.0/24 \	dir out priority 2410 ptype main \	tmpl src 192.168.0.1 dst 192.168.0.2\		proto esp reqid 11 mode tunnel\	tmpl src 192.168.0.1 dst 192.168.0.2\		proto ah reqid 11 mode tunnel\
src 10.244.1.0/24 dst 10.244.4.0/24 proto tcp dport 80 \	dir out priority 2410 ptype main \
src 10.244.1.0/24 dst 10.244.5.0/24 \	dir out priority 2410 ptype main \	mark 0x1/0x1 \
src 0.0.0.0/0 dst 0.0.0.0/0 \	socket in priority 0 ptype main \
src fd00::/64 dst fd01::/64 \	dir out priority 0 ptype main \
`;

describe('ip xfrm policy', () => {
  it('is read for policies by two prefixes, of which weft’s tunnels are known', () => {
    assert.deepEqual(
      parseIpsecPolicies(LISTED).map((policy) => `${describePolicy(policy)} ${policy.priority}`),
      [
        'fwd 10.244.2.7/32 to 10.244.1.0/24 allow 0',
        'out 0.0.0.0/0 to 10.244.0.0/16 block 2412',
        'in 10.244.2.0/24 to 10.244.1.0/24 tunnel 192.168.0.2 to 192.168.0.1 2410',
        'out 10.244.1.0/24 to 10.244.2.0/24 other 2410',
        'out 10.244.1.0/24 to 10.244.3.0/24 other 2410',
        'out fd00::/64 to fd01::/64 allow 0',
      ],
    );
    assert.deepEqual(parseIpsecPolicies(''), []);
  });
});
