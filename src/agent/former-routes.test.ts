import assert from 'node:assert/strict';
import { it } from 'node:test';
import { type ActualRoute, describeRoute } from '../desired/state.ts';
import { type IpPrefix, isPrefix4, parseAddr, parsePrefix } from '../ip/address.ts';
import { parseSubnetEnv } from '../node-files/subnet-env.ts';
import { formerRoutes } from './former-routes.ts';

const prefix = (text: string): IpPrefix => parsePrefix(text) ?? assert.fail(text);
const EXTERNAL = { name: 'eth0', onLink: [prefix('192.168.77.0/24'), prefix('fd77::/64')] };
const SUBNET_ENV = parseSubnetEnv(
  [
    'FLANNEL_NETWORK=10.244.0.0/16',
    'FLANNEL_SUBNET=10.244.1.1/24',
    'FLANNEL_IPV6_NETWORK=fd10:244::/48',
    'FLANNEL_IPV6_SUBNET=fd10:244:0:1::1/64',
  ].join('\n'),
  'subnet.env',
);

function route(dst: string, via: string | undefined, change: Partial<ActualRoute> = {}): ActualRoute {
  return {
    ...{ type: 'unicast', dst: prefix(dst), metric: isPrefix4(prefix(dst)) ? 0 : 1024, dev: 'eth0' },
    ...{ via: via === undefined ? undefined : parseAddr(via), onlink: false, scope: 'global' },
    ...{ protocol: 3, elaborate: false, ...change },
  };
}

function found(...routes: readonly ActualRoute[]): string[] {
  return formerRoutes(routes, SUBNET_ENV, EXTERNAL).map(describeRoute);
}

it('routes to the subnets of other hosts are flanneld’s where all of them is as it makes them', () => {
  assert.deepEqual(
    found(
      route('10.244.2.0/24', '192.168.77.2'),
      route('10.244.9.0/24', '192.168.77.9', { onlink: true }),
      route('fd10:244:0:2::/64', 'fd77::2'),
    ),
    [
      '10.244.2.0/24 via 192.168.77.2 dev eth0',
      '10.244.9.0/24 via 192.168.77.9 dev eth0 onlink',
      'fd10:244:0:2::/64 via fd77::2 dev eth0',
    ],
  );
});

it('routes that differ in anything are somebody else’s', () => {
  const others: readonly ActualRoute[] = [
    route('10.245.2.0/24', '192.168.77.2'),
    route('10.244.2.0/25', '192.168.77.2'),
    route('10.244.0.0/16', '192.168.77.2'),
    route('10.244.1.0/24', '192.168.77.2'),
    route('10.244.2.0/24', undefined),
    route('10.244.2.0/24', '10.99.0.2'),
    route('10.244.2.0/24', '192.168.77.2', { dev: 'eth1' }),
    route('10.244.2.0/24', '192.168.77.2', { metric: 50 }),
    route('10.244.2.0/24', '192.168.77.2', { protocol: 4 }),
    route('10.244.2.0/24', '192.168.77.2', { protocol: 241 }),
    route('10.244.2.0/24', '192.168.77.2', { elaborate: true }),
    route('10.244.2.0/24', '192.168.77.2', { type: 'other' }),
    route('fd10:244:0:2::/64', 'fd77::2', { metric: 50 }),
  ];
  for (const one of others) assert.deepEqual(found(one), [], describeRoute(one));
});
