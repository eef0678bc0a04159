import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNetConf } from '../../config/net-conf.ts';
import { PeerSlots } from '../../dataplane/peer-slots.ts';
import { formatIpv4, type Ipv4Addr, parseIpv4 } from '../../ip/ipv4.ts';
import { formatPrefix4, parsePrefix4 } from '../../ip/prefix.ts';
import type { Lease } from '../../lease/lease.ts';
import type { ExternalInterface } from '../backend.ts';
import { udpBackend } from './udp-backend.ts';

const ip = (text: string): Ipv4Addr => parseIpv4(text)!;
const external: ExternalInterface = {
  name: 'eth0',
  mtuBytes: 1500,
  address: ip('192.168.77.1'),
  addressV6: undefined,
  publicIp: ip('203.0.113.9'),
  publicIpv6: undefined,
};

function lease(subnet: string, publicIp: string | undefined, backendType = ''): Lease {
  return {
    subnet: parsePrefix4(subnet),
    ipv6Subnet: undefined,
    attrs: {
      publicIp: publicIp === undefined ? undefined : ip(publicIp),
      publicIpv6: undefined,
      backendType,
      backendData: undefined,
      backendV6Data: undefined,
    },
    expiresAtMs: undefined,
  };
}

function backendFor(netConf: string): ReturnType<typeof udpBackend> {
  const config = parseNetConf(netConf, { source: 'test', validation: 'full' });
  return udpBackend({ config, external }, { slots: new PeerSlots(100), onSlotReused: () => {} });
}

test('wants what flannel sets: base address as /32, one route for the whole network, MTU less 28', () => {
  const backend = backendFor('{"Network":"10.244.0.0/16"}');
  const state = backend.wantedState(lease('10.244.5.0/24', '203.0.113.9'), []);
  assert.deepEqual(state.links, [{ kind: 'tun', name: 'flannel0', mtuBytes: 1472 }]);
  assert.deepEqual(
    state.addresses.map((address) => [address.link, formatIpv4(address.addr as Ipv4Addr), address.prefixLength]),
    [['flannel0', '10.244.5.0', 32]],
  );
  assert.equal(state.routes.length, 1);
  assert.equal(backend.mtuBytes, 1472);
});

test('publishes the external address with an empty type, listens on the interface address', () => {
  const backend = backendFor('{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":9000,"MTU":1400}}');
  assert.equal(backend.leaseAttrs.backendType, '');
  assert.equal(backend.leaseAttrs.publicIp, ip('203.0.113.9'));
  assert.equal(backend.userSpace?.listenAddress, ip('192.168.77.1'));
  assert.equal(backend.userSpace?.listenPort, 9000);
  assert.equal(backend.mtuBytes, 1372);
});

test('sends to every lease with a public address whatever its type, on its own port', () => {
  const backend = backendFor('{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":9000}}');
  const table = backend.userSpace!.peerTable(lease('10.244.5.0/24', '203.0.113.9'), [
    lease('10.244.6.0/24', '192.168.77.2', 'vxlan'),
    lease('10.244.7.0/24', undefined),
    lease('10.244.8.0/25', '192.168.77.3'),
  ]);
  assert.deepEqual(
    table.peers.map((peer) => [peer.slot, formatPrefix4(peer.subnet), formatIpv4(peer.publicIp), peer.port]),
    [
      [1, '10.244.6.0/24', '192.168.77.2', 9000],
      [2, '10.244.8.0/25', '192.168.77.3', 9000],
    ],
  );
});

test('refuses a network without IPv4', () => {
  assert.throws(
    () => backendFor('{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"udp"}}'),
    { code: 'WEFT_CONFIG_INVALID' },
  );
});
