import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { Op } from '../desired/op.ts';
import type { ActualRoute, UnicastRoute } from '../desired/state.ts';
import { parseAddr, parsePrefix } from '../ip/address.ts';
import { parseMac } from '../ip/mac.ts';
import { commandOf } from './iproute2-commands.ts';

const addr = (text: string) => parseAddr(text) ?? assert.fail(text);
const prefix = (text: string) => parsePrefix(text) ?? assert.fail(text);
const mac = parseMac('72:4f:d0:84:69:9f') ?? assert.fail();

const route: UnicastRoute = {
  type: 'unicast',
  dst: prefix('10.244.0.0/16'),
  dev: 'flannel0',
  via: undefined,
  onlink: false,
  scope: 'global',
  metric: undefined,
};
const actual: ActualRoute = { ...route, metric: 0, protocol: 241, elaborate: false };
const address = {
  link: 'flannel0',
  addr: addr('10.244.1.0'),
  prefixLength: 32,
  scope: 'global',
  prefixRoute: true,
} as const;

const COMMANDS: readonly [string, Op][] = [
  ['link delete dev flannel.1', { type: 'link-delete', name: 'flannel.1' }],
  ['link set dev flannel0 mtu 1472 up', { type: 'link-set', name: 'flannel0', mtuBytes: 1472, up: true }],
  ['link set dev old down', { type: 'link-set', name: 'old', up: false }],
  ['link set dev old name flannel.1', { type: 'link-rename', name: 'old', to: 'flannel.1' }],
  ['link set dev flannel0 txqueuelen 2000', { type: 'link-set', name: 'flannel0', queuePackets: 2_000 }],
  ['link set dev flannel.1 address 72:4f:d0:84:69:9f', { type: 'link-set', name: 'flannel.1', mac }],
  [
    'link add name br0 mtu 1472 up type bridge',
    { type: 'link-add', link: { kind: 'bridge', name: 'br0', mtuBytes: 1472 } },
  ],
  [
    'link add name flannel-v6.1 address 72:4f:d0:84:69:9f up type vxlan id 1 dev eth0 local fd98::11 dstport 0 nolearning gbp',
    {
      type: 'link-add',
      link: {
        kind: 'vxlan',
        name: 'flannel-v6.1',
        mtuBytes: undefined,
        mac,
        settings: { vni: 1, underlay: 'eth0', local: addr('fd98::11'), port: undefined, learning: false, gbp: true },
      },
    },
  ],
  ['addr replace 10.244.1.0/32 dev flannel0 scope global', { type: 'address-add', address }],
  [
    'addr replace fd10::1/128 dev flannel0 nodad noprefixroute',
    { type: 'address-add', address: { ...address, addr: addr('fd10::1'), prefixLength: 128, prefixRoute: false } },
  ],
  ['addr delete 10.244.1.0/32 dev flannel0', { type: 'address-delete', address: { ...address, peer: undefined } }],
  [
    'addr delete 10.244.1.0 peer 10.244.9.9/32 dev flannel0',
    { type: 'address-delete', address: { ...address, peer: addr('10.244.9.9') } },
  ],
  ['route add 10.244.0.0/16 dev flannel0 scope global table main proto 241', { type: 'route-add', route }],
  [
    'route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink scope global metric 7 table main proto 241',
    {
      type: 'route-replace',
      route: {
        ...route,
        dst: prefix('10.244.2.0/24'),
        via: addr('10.244.2.0'),
        dev: 'flannel.1',
        onlink: true,
        metric: 7,
      },
    },
  ],
  [
    'route add blackhole fd10::/64 table main proto 241',
    { type: 'route-add', route: { type: 'blackhole', dst: prefix('fd10::/64'), metric: undefined } },
  ],
  // A deletion always names the protocol: it can never hit somebody else's route.
  [
    'route delete 10.244.0.0/16 dev flannel0 scope global metric 0 table main proto 241',
    { type: 'route-delete', route: actual },
  ],
  [
    'route delete fd10::/64 via fd10::9 dev flannel0 metric 1024 table main proto 241',
    { type: 'route-delete', route: { ...actual, dst: prefix('fd10::/64'), via: addr('fd10::9'), metric: 1024 } },
  ],
  [
    'neigh replace fd10::1 lladdr 72:4f:d0:84:69:9f dev flannel.1 nud permanent',
    { type: 'neighbour-replace', neighbour: { link: 'flannel.1', addr: addr('fd10::1'), mac } },
  ],
  [
    'fdb replace 72:4f:d0:84:69:9f dev flannel.1 dst 192.168.77.2 self permanent',
    { type: 'fdb-replace', entry: { link: 'flannel.1', mac, dst: addr('192.168.77.2') } },
  ],
];

for (const [command, op] of COMMANDS) {
  it(command, () => assert.equal(commandOf(op), command));
}
