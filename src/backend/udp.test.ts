import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAKE_IDENTITY_HOST, openedBackend } from '../../test/fakes/backends.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { perFamily } from '../ip/family.ts';
import { formatIpv4, type Ipv4Addr, parseIpv4 } from '../ip/ipv4.ts';
import { formatPrefix4, parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { type Backend, type ExternalInterface, isSkipped } from './backend.ts';
import { backendKind, configuredBackend, identifyBackend, openBackend } from './registry.ts';

const ip = (text: string): Ipv4Addr => parseIpv4(text)!;
const external: ExternalInterface = {
  name: 'eth0',
  mtuBytes: 1500,
  address: ip('192.168.77.1'),
  addressV6: undefined,
  publicIp: ip('203.0.113.9'),
  publicIpv6: undefined,
  onLink: [],
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

const OWN = lease('10.244.5.0/24', '203.0.113.9');
const backendFor = (netConf: string): Promise<Backend> => openedBackend(netConf, external);

test('wants what flannel sets: base address as /32, one route for the whole network, MTU less 28', async () => {
  const backend = await backendFor('{"Network":"10.244.0.0/16"}');
  const { kernel, forwarder } = backend.host(OWN);
  assert.deepEqual(kernel.links, [{ kind: 'tun', name: 'flannel0', alias: 'weft:10.244.0.0/16', mtuBytes: 1472 }]);
  assert.deepEqual(
    kernel.addresses.map((address) => [address.link, formatIpv4(address.addr as Ipv4Addr), address.prefixLength]),
    [['flannel0', '10.244.5.0', 32]],
  );
  assert.equal(kernel.routes.length, 1);
  assert.equal(backend.mtuBytes, 1472);
  assert.equal(formatIpv4(forwarder!.ownAddress), '10.244.5.0');
});

test('publishes the external address with an empty type, listens on the interface address', async () => {
  const backend = await backendFor('{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":9000,"MTU":1400}}');
  assert.equal(backend.attrs.backendType, '');
  assert.equal(backend.attrs.publicIp, ip('203.0.113.9'));
  assert.equal(backend.underlay?.listenAddress, ip('192.168.77.1'));
  assert.equal(backend.underlay?.listenPort, 9000);
  assert.equal(backend.mtuBytes, 1372);
});

test("listens on flannel's port 8285 unless another is given", async () => {
  const backend = await backendFor('{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}');
  assert.equal(backend.underlay?.listenPort, 8285);
});

test('sends to every lease with a public address whatever its type, on its own port', async () => {
  const backend = await backendFor('{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":9000}}');
  const ways = [
    lease('10.244.6.0/24', '192.168.77.2', 'vxlan'),
    lease('10.244.7.0/24', undefined),
    lease('10.244.8.0/25', '192.168.77.3'),
  ].map((peer) => {
    const part = backend.peer(OWN, peer);
    if (isSkipped(part) || part.forward === undefined) return undefined;
    const { subnet, publicIp, port } = part.forward;
    return [formatPrefix4(subnet), formatIpv4(publicIp), port];
  });
  assert.deepEqual(ways, [['10.244.6.0/24', '192.168.77.2', 9000], undefined, ['10.244.8.0/25', '192.168.77.3', 9000]]);
});

test('refuses a network without IPv4', async () => {
  await assert.rejects(
    openedBackend(
      '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"udp"}}',
      external,
    ),
    { code: 'WEFT_CONFIG_INVALID' },
  );
});

test('refuses a network that contains an address of this host', async () => {
  await assert.rejects(backendFor('{"Network":"192.168.0.0/16"}'), {
    code: 'WEFT_CONFIG_INVALID',
    message: /overlaps the underlay: .* 192\.168\.77\.1 in it is the address of this host \(eth0\)/,
  });
});

test("takes flannel's own sample, in which hosts have addresses of the network that are not given out", async () => {
  const sample =
    '{"Network":"10.0.0.0/8","SubnetLen":20,"SubnetMin":"10.10.0.0","SubnetMax":"10.99.0.0","Backend":{"Type":"udp","Port":7890}}';
  const config = parseNetConf(sample, { source: 'test', validation: 'full', backends: backendKind });
  const { signal } = new AbortController();
  const on = async (address: string): Promise<Backend> => {
    const setup = await identifyBackend(
      configuredBackend(config),
      config,
      { published: perFamily(() => undefined), networks: [] },
      FAKE_IDENTITY_HOST,
      signal,
    );
    return openBackend(setup, config, { ...external, address: ip(address), publicIp: ip(address) });
  };
  for (const free of ['10.1.0.7', '10.9.255.255', '10.99.16.0', '10.255.0.1', '192.168.77.1']) await on(free);
  for (const leasable of ['10.10.0.0', '10.50.1.1', '10.99.15.255']) {
    await assert.rejects(on(leasable), {
      code: 'WEFT_CONFIG_INVALID',
      message: /given out from 10\.10\.0\.0 to 10\.99\.15\.255/,
    });
  }
});
