import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FAKE_IDENTITY_HOST, openedBackend } from '../../test/fakes/backends.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { parseNetConf } from '../config/net-conf.ts';
import { describeAddress, describeRoute } from '../desired/state.ts';
import { formatAddr, formatPrefix, type IpAddr, type IpPrefix } from '../ip/address.ts';
import { perFamily, present } from '../ip/family.ts';
import { formatIpv4, type Ipv4Addr, parseIpv4 } from '../ip/ipv4.ts';
import { type Ipv6Addr, parseIpv6 } from '../ip/ipv6.ts';
import { formatPrefix4, parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import type { JsonValue, Lease } from '../lease/lease.ts';
import { type Backend, type ExternalInterface, isSkipped, type PeerPart, type SkippedPeer } from './backend.ts';
import { backendKind, configuredBackend, identifyBackend, openBackend } from './registry.ts';

const ip = (text: string): Ipv4Addr => parseIpv4(text)!;
const ip6 = (text: string): Ipv6Addr => parseIpv6(text)!;
const external: ExternalInterface = {
  name: 'eth0',
  mtuBytes: 1500,
  addresses: addresses('192.168.77.1'),
  publicAddresses: addresses('203.0.113.9'),
  onLink: [],
};

function lease(subnet: string, publicIp: string | undefined, backendType = ''): Lease {
  return {
    subnets: { ipv4: parsePrefix4(subnet), ipv6: undefined },
    attrs: {
      publicAddresses: { ipv4: publicIp === undefined ? undefined : ip(publicIp), ipv6: undefined },
      backendType,
      backendData: { ipv4: undefined, ipv6: undefined },
    },
    expiresAtMs: undefined,
  };
}

const OWN = lease('10.244.5.0/24', '203.0.113.9');
const backendFor = (netConf: string): Promise<Backend> => openedBackend(netConf, external);

test('wants what flannel sets: base address as /32, one route for the whole network, MTU less 28', async () => {
  const backend = await backendFor('{"Network":"10.244.0.0/16"}');
  const { kernel, forwarder } = backend.host(OWN);
  assert.deepEqual(kernel.links, [
    { kind: 'tun', name: 'flannel0', alias: 'weft:10.244.0.0/16', mtuBytes: 1472, queuePackets: 2_000 },
  ]);
  assert.deepEqual(
    kernel.addresses.map((address) => [address.link, formatIpv4(address.addr as Ipv4Addr), address.prefixLength]),
    [['flannel0', '10.244.5.0', 32]],
  );
  assert.equal(kernel.routes.length, 1);
  assert.equal(backend.mtuBytes, 1472);
  assert.equal(formatIpv4(forwarder!.addresses.ipv4!), '10.244.5.0');
});

test('publishes the external address with an empty type, listens on the interface address', async () => {
  const backend = await backendFor('{"Network":"10.244.0.0/16","Backend":{"Type":"udp","Port":9000,"MTU":1400}}');
  assert.equal(backend.attrs.backendType, '');
  assert.equal(backend.attrs.publicAddresses.ipv4, ip('203.0.113.9'));
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
    const { subnets, publicAddresses, port } = part.forward;
    return [formatPrefix4(subnets.ipv4!), formatIpv4(publicAddresses.ipv4!), port];
  });
  assert.deepEqual(ways, [['10.244.6.0/24', '192.168.77.2', 9000], undefined, ['10.244.8.0/25', '192.168.77.3', 9000]]);
});

const IPV6_EXTERNAL: ExternalInterface = {
  ...external,
  addresses: addresses('192.168.77.1', 'fd77::1'),
  publicAddresses: addresses('203.0.113.9', 'fd77::1'),
};
const DUAL = '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10:244::/48","Backend":{"Type":"udp"}}';
const ALONE = '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd10:244::/48","Backend":{"Type":"udp"}}';
const TAKES_IPV6 = { PayloadVersions: [4, 6] };

function dualLease(host: number, data: JsonValue | undefined, families: 'dual' | 'ipv6' = 'dual'): Lease {
  const v4 = lease(`10.244.${host}.0/24`, `192.168.77.${host}`);
  return {
    ...v4,
    subnets: { ipv4: families === 'dual' ? v4.subnets.ipv4 : undefined, ipv6: parsePrefix6(`fd10:244:0:${host}::/64`) },
    attrs: {
      ...v4.attrs,
      publicAddresses: {
        ipv4: families === 'dual' ? v4.attrs.publicAddresses.ipv4 : undefined,
        ipv6: ip6(`fd77::${host}`),
      },
      backendData: { ...v4.attrs.backendData, ipv6: data },
    },
  };
}

/** What a part says of a peer, in text. */
function wayTo(part: PeerPart | SkippedPeer): string {
  if (isSkipped(part)) return `skipped: ${part.skipped}`;
  const { port, ...forward } = part.forward!;
  const subnets = present<IpPrefix>(forward.subnets).map(formatPrefix);
  const hosts = present<IpAddr>(forward.publicAddresses).map(formatAddr);
  return `${subnets.join(' ')} by ${hosts.join(' ')} port ${port}${part.lacks === undefined ? '' : `, but ${part.lacks}`}`;
}

test('dual stack: publishes that it takes IPv6, and has both families on one device, over IPv4', async () => {
  const backend = await openedBackend(DUAL, IPV6_EXTERNAL);
  assert.deepEqual(backend.attrs, {
    publicAddresses: { ipv4: ip('203.0.113.9'), ipv6: ip6('fd77::1') },
    backendType: '',
    backendData: { ipv4: TAKES_IPV6, ipv6: TAKES_IPV6 },
  });
  assert.equal(backend.usesPeerData, true);
  assert.equal(backend.underlay?.listenAddress, ip('192.168.77.1'));
  assert.equal(backend.mtuBytes, 1472);
  const { kernel, forwarder } = backend.host(dualLease(1, undefined));
  assert.deepEqual(kernel.addresses.map(describeAddress), [
    '10.244.1.0/32 dev flannel0',
    'fd10:244:0:1::/128 dev flannel0',
  ]);
  assert.deepEqual(kernel.routes.map(describeRoute), [
    '10.244.0.0/16 dev flannel0 metric 100',
    'fd10:244::/48 dev flannel0',
  ]);
  assert.deepEqual(forwarder, {
    addresses: { ipv4: ip('10.244.1.0'), ipv6: ip6('fd10:244:0:1::') },
    table: {
      ipv4: { network: parsePrefix4('10.244.0.0/16'), own: parsePrefix4('10.244.1.0/24') },
      ipv6: { network: parsePrefix6('fd10:244::/48'), own: parsePrefix6('fd10:244:0:1::/64') },
      mtu: 1472,
    },
  });
});

test('IPv4 alone: publishes no data, as flannel, and looks at none', async () => {
  const backend = await openedBackend('{"Network":"10.244.0.0/16"}', IPV6_EXTERNAL);
  assert.equal(backend.attrs.backendData.ipv6, undefined);
  assert.equal(backend.usesPeerData, false);
  const way = wayTo(backend.peer(OWN, dualLease(2, TAKES_IPV6)));
  assert.equal(way, '10.244.2.0/24 by 192.168.77.2 port 8285');
});

test('dual stack: IPv6 goes to hosts that say they take it, and to no others, with a word why', async () => {
  const backend = await openedBackend(DUAL, IPV6_EXTERNAL);
  const own = dualLease(1, undefined);
  const says = 'no IPv6 packet is sent to it: nothing in its lease says that its udp backend takes them, and flannel’s and that of earlier versions of weft do not'; // biome-ignore format: one line
  const by4 = '10.244.2.0/24 by 192.168.77.2 fd77::2 port 8285';
  for (const data of [
    undefined,
    null,
    6,
    'IPv6',
    [6],
    {},
    { PayloadVersions: 6 },
    { PayloadVersions: [4] },
    { VNI: 1 },
  ]) {
    assert.equal(wayTo(backend.peer(own, dualLease(2, data))), `${by4}, but ${says}`, JSON.stringify(data));
  }
  for (const data of [TAKES_IPV6, { PayloadVersions: [6, 9], More: true }]) {
    const way = wayTo(backend.peer(own, dualLease(2, data)));
    assert.equal(way, '10.244.2.0/24 fd10:244:0:2::/64 by 192.168.77.2 fd77::2 port 8285');
  }
  const flannel = lease('10.244.2.0/24', '192.168.77.2');
  assert.equal(wayTo(backend.peer(own, flannel)), '10.244.2.0/24 by 192.168.77.2 port 8285, but it has no IPv6 subnet');
  const dual = dualLease(2, TAKES_IPV6);
  const without4 = { ...dual, subnets: { ...dual.subnets, ipv4: undefined } };
  assert.equal(
    wayTo(backend.peer(own, without4)),
    'fd10:244:0:2::/64 by 192.168.77.2 fd77::2 port 8285, but it has no IPv4 subnet',
  );
  const unreachable = dualLease(2, TAKES_IPV6);
  assert.match(
    wayTo(
      backend.peer(own, {
        ...unreachable,
        attrs: { ...unreachable.attrs, publicAddresses: { ...unreachable.attrs.publicAddresses, ipv4: undefined } },
      }),
    ),
    /^skipped: it has no public IPv4 address/,
  );
});

test('IPv6 also goes to hosts with another backend: none of them is a flannel in udp mode', async () => {
  const withType = (lease: Lease, backendType: string): Lease => ({ ...lease, attrs: { ...lease.attrs, backendType } });
  const data = { VNI: 1, VtepMAC: '0a:00:00:00:00:02' };
  const dual = await openedBackend(DUAL, IPV6_EXTERNAL);
  for (const [type, said] of [
    ['vxlan', data],
    ['host-gw', null],
  ] as const) {
    const way = wayTo(dual.peer(dualLease(1, undefined), withType(dualLease(2, said), type)));
    assert.equal(way, '10.244.2.0/24 fd10:244:0:2::/64 by 192.168.77.2 fd77::2 port 8285', type);
  }
  const only6 = { ...external, addresses: addresses('fd77::1'), publicAddresses: addresses('fd77::1') };
  const alone = await openedBackend(ALONE, only6);
  const way = wayTo(alone.peer(dualLease(1, undefined, 'ipv6'), withType(dualLease(2, data, 'ipv6'), 'vxlan')));
  assert.equal(way, 'fd10:244:0:2::/64 by fd77::2 port 8285');
  const named = dual.peer(dualLease(1, undefined), withType(dualLease(2, undefined), 'udp'));
  assert.match(
    wayTo(named),
    /^10\.244\.2\.0\/24 by 192\.168\.77\.2 fd77::2 port 8285, but no IPv6 packet is sent to it/,
  );
});

test('IPv6 alone: it is between the hosts, too, and takes 48 bytes', async () => {
  const backend = await openedBackend(ALONE, {
    ...external,
    addresses: addresses('fd77::1'),
    publicAddresses: addresses('fd77::1'),
  });
  assert.equal(backend.underlay?.listenAddress, ip6('fd77::1'));
  assert.equal(backend.mtuBytes, 1452);
  const own = dualLease(1, undefined, 'ipv6');
  const { kernel, forwarder } = backend.host(own);
  assert.deepEqual(kernel.links, [
    { kind: 'tun', name: 'flannel0', alias: 'weft:fd10:244::/48', mtuBytes: 1452, queuePackets: 2_000 },
  ]);
  assert.deepEqual(kernel.routes.map(describeRoute), ['fd10:244::/48 dev flannel0']);
  assert.deepEqual(forwarder?.addresses, { ipv4: undefined, ipv6: ip6('fd10:244:0:1::') });
  assert.equal(forwarder.table.ipv4, undefined);
  const way = wayTo(backend.peer(own, dualLease(2, TAKES_IPV6, 'ipv6')));
  assert.equal(way, 'fd10:244:0:2::/64 by fd77::2 port 8285');
  assert.match(wayTo(backend.peer(own, dualLease(2, undefined, 'ipv6'))), /^skipped: no IPv6 packet is sent to it/);
});

test('needs an address of the family that is between the hosts, and room for IPv6', async () => {
  await assert.rejects(openedBackend(ALONE, external), { code: 'WEFT_INTERFACE_NOT_FOUND', message: /IPv6 address/ });
  const narrow = { ...IPV6_EXTERNAL, mtuBytes: 1307 };
  await assert.rejects(openedBackend(DUAL, narrow), {
    code: 'WEFT_CONFIG_INVALID',
    message: /packets could have 1279 bytes, and IPv6 needs 1280/,
  });
  assert.equal((await openedBackend(DUAL, { ...narrow, mtuBytes: 1308 })).mtuBytes, 1280);
});

test('refuses an IPv6 network that contains an address of this host', async () => {
  const inside = { ...IPV6_EXTERNAL, addresses: addresses('192.168.77.1', 'fd10:244::77') };
  await assert.rejects(openedBackend(DUAL, inside), {
    code: 'WEFT_CONFIG_INVALID',
    message: /fd10:244::77 in it is the address of this host \(eth0\)/,
  });
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
    return openBackend(setup, config, {
      ...external,
      addresses: addresses(address),
      publicAddresses: addresses(address),
    });
  };
  for (const free of ['10.1.0.7', '10.9.255.255', '10.99.16.0', '10.255.0.1', '192.168.77.1']) await on(free);
  for (const leasable of ['10.10.0.0', '10.50.1.1', '10.99.15.255']) {
    await assert.rejects(on(leasable), {
      code: 'WEFT_CONFIG_INVALID',
      message: /given out from 10\.10\.0\.0 to 10\.99\.15\.255/,
    });
  }
});
