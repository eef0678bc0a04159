import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { FAKE_IDENTITY_HOST, FAKE_PUBLIC_KEY, openedBackend } from '../../test/fakes/backends.ts';
import { golden } from '../../test/fakes/golden.ts';
import { addresses } from '../../test/fakes/host-networks.ts';
import { describeAddress, describeRoute } from '../desired/state.ts';
import { formatAddr, parseAddr } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import { type JsonValue, type Lease, leaseKey } from '../lease/lease.ts';
import { type ExternalInterface, isSkipped } from './backend.ts';

/**
 * The first of three hosts that real flannelds ran on, with the leases that they published: what a backend wants of the
 * kernel is what flanneld left there.
 */

const EXTERNAL: ExternalInterface = {
  name: 'eth0',
  mtuBytes: 1500,
  addresses: addresses('10.98.0.11', 'fd98::11'),
  publicAddresses: addresses('10.98.0.11', 'fd98::11'),
  onLink: [parsePrefix4('10.98.0.0/24')!, parsePrefix6('fd98::/64')!],
};

/** Routes, neighbours and forwarding entries of flannel's, as iproute2 prints them, in any order. */
function recorded(scenario: string): { routes: string[]; neighbours: string[]; fdb: string[]; links: string[] } {
  const text = golden(scenario, '20-net-h1');
  // Pods have sections of their own; the forwarding database is at the end.
  const [before, host = before!] = text.split('##### netns');
  const lines = host.split('\n');
  const unique = (found: string[]) => [...new Set(found)].sort();
  const plain = (line: string) =>
    line
      .trim()
      .replace(/ pref medium$/, '')
      .replace(/ metric 1024\b/, '');
  const words = lines.map(plain);
  return {
    routes: unique(words.filter((line) => /^[\da-f.:]+\/\d+ (?:via |dev flannel\S+ scope link)/.test(line))),
    neighbours: unique(words.filter((line) => line.endsWith(' PERMANENT'))),
    fdb: unique(
      text
        .split('\n')
        .map(plain)
        .filter((line) => / dst .* self permanent$/.test(line)),
    ),
    links: unique(
      lines.flatMap((line) => /^\d+: (flannel\S*?)[@:].* mtu (\d+)/.exec(line)?.slice(1, 3).join(' ') ?? []),
    ),
  };
}

async function wanted(
  netConf: string,
  own: Lease,
  peers: readonly Lease[],
): Promise<ReturnType<typeof recorded> & { addresses: string[] }> {
  const data = (lease: Lease) => lease.attrs.backendData;
  const backend = await openedBackend(netConf, EXTERNAL, { before: data(own) });
  assert.deepEqual(backend.attrs, own.attrs, 'this host publishes what flanneld published there');
  const { kernel } = backend.host(own);
  const parts = peers.map((peer) => {
    const part = backend.peer(own, peer);
    assert(!isSkipped(part), `${leaseKey(peer)}: ${isSkipped(part) && part.skipped}`);
    return part.kernel;
  });
  return {
    routes: [kernel, ...parts].flatMap(({ routes }) => routes.map((route) => describeRoute(route))).sort(),
    neighbours: parts
      .flatMap(({ neighbours }) =>
        neighbours.map(({ addr, link, mac }) => `${formatAddr(addr)} dev ${link} lladdr ${mac} PERMANENT`),
      )
      .sort(),
    fdb: parts
      .flatMap(({ fdb }) => fdb.map(({ mac, link, dst }) => `${mac} dev ${link} dst ${formatAddr(dst)} self permanent`))
      .sort(),
    links: kernel.links.flatMap((link) => (link.kind === 'external' ? [] : `${link.name} ${link.mtuBytes}`)).sort(),
    addresses: kernel.addresses.map(describeAddress),
  };
}

interface NodeJson {
  readonly podCIDRs: readonly string[];
  readonly annotations: { readonly [key: string]: string };
}

/** The leases of the Nodes that flanneld annotated. */
function nodeLeases(scenario: string): Lease[] {
  const text = golden(scenario, '31-nodes-trimmed.json');
  const nodes = JSON.parse(`[${text.replaceAll(/^\}\n\{/gm, '},{')}]`) as NodeJson[];
  return nodes.map(({ podCIDRs, annotations }) => {
    const annotation = (name: string) => annotations[`flannel.alpha.coreos.com/${name}`];
    const json = (name: string): JsonValue | undefined => JSON.parse(annotation(name) ?? 'null') ?? undefined;
    return {
      subnets: {
        ipv4: podCIDRs.map(parsePrefix4).find((prefix) => prefix !== undefined),
        ipv6: podCIDRs.map(parsePrefix6).find((prefix) => prefix !== undefined),
      },
      attrs: {
        publicAddresses: {
          ipv4: parseIpv4(annotation('public-ip') ?? ''),
          ipv6: parseIpv6(annotation('public-ipv6') ?? ''),
        },
        backendType: annotation('backend-type') ?? '',
        backendData: { ipv4: json('backend-data'), ipv6: json('backend-v6-data') },
      },
      expiresAtMs: undefined,
    };
  });
}

/** The leases that flanneld wrote into etcd: key and value on a line each. */
function etcdLeases(scenario: string): Lease[] {
  const lines = golden(scenario, '50-etcd').split('\n');
  return lines.flatMap((line, i): Lease[] => {
    const key = /\/subnets\/([\d.]+)-(\d+)$/.exec(line);
    if (key === null) return [];
    const value = JSON.parse(lines[i + 1] ?? '') as { PublicIP: string; BackendType: string; BackendData?: JsonValue };
    return [
      {
        subnets: { ipv4: parsePrefix4(`${key[1]}/${key[2]}`), ipv6: undefined },
        attrs: {
          publicAddresses: { ipv4: parseIpv4(value.PublicIP), ipv6: undefined },
          backendType: value.BackendType,
          backendData: { ipv4: value.BackendData, ipv6: undefined },
        },
        expiresAtMs: undefined,
      },
    ];
  });
}

const isOwn = (lease: Lease): boolean => lease.attrs.publicAddresses.ipv4 === EXTERNAL.publicAddresses.ipv4;

/** A key cannot be had from what its owner publishes: this host has the key of the fake host instead. */
function withOwnKey(lease: Lease): Lease {
  const data = { ...(lease.attrs.backendData.ipv4 as object), PublicKey: FAKE_PUBLIC_KEY };
  return { ...lease, attrs: { ...lease.attrs, backendData: { ...lease.attrs.backendData, ipv4: data } } };
}

/** The leases of the host itself and of those peers that flanneld still had when the recording was made. */
function hostAndPeers(leases: readonly Lease[], routes: readonly string[]): { own: Lease; peers: Lease[] } {
  const own = leases.find(isOwn);
  assert(own !== undefined);
  const peers = leases.filter(
    (lease) =>
      !isOwn(lease) && routes.some((route) => route.startsWith(leaseKey(lease).split('&')[0]!.replace('-', '/'))),
  );
  assert(peers.length > 0);
  return { own, peers };
}

describe('what backends want on a recorded host of flannel', () => {
  it('vxlan: device, neighbours, forwarding entries, routes', async () => {
    const left = recorded('vxlan');
    const { own, peers } = hostAndPeers(nodeLeases('vxlan'), left.routes);
    const { addresses, ...rest } = await wanted('{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}', own, peers);
    assert.deepEqual(rest, left);
    assert.deepEqual(addresses, ['10.244.0.0/32 dev flannel.1']);
  });

  it('vxlan in dual stack: the same for both families', async () => {
    const left = recorded('vxlan-dual');
    const { own, peers } = hostAndPeers(nodeLeases('vxlan-dual'), left.routes);
    const netConf = golden('vxlan-dual', '01-net-conf.json');
    const { addresses, ...rest } = await wanted(netConf, own, peers);
    assert.deepEqual(rest, left);
    assert.deepEqual(addresses, ['10.244.0.0/32 dev flannel.1', 'fd10:244::/128 dev flannel-v6.1']);
  });

  it('host-gw: routes', async () => {
    const left = recorded('host-gw');
    const { own, peers } = hostAndPeers(nodeLeases('host-gw'), left.routes);
    const { addresses, ...rest } = await wanted('{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}', own, peers);
    assert.deepEqual(rest, left);
    assert.deepEqual(addresses, []);
  });

  it('ipip: device and routes', async () => {
    const left = recorded('vm-ipip');
    const { own, peers } = hostAndPeers(etcdLeases('vm-ipip'), left.routes);
    const { addresses, ...rest } = await wanted('{"Network":"10.244.0.0/16","Backend":{"Type":"ipip"}}', own, peers);
    assert.deepEqual(rest, left);
    assert.deepEqual(addresses, [`${formatAddr(own.subnets.ipv4!.addr)}/32 dev flannel.ipip`]);
  });

  it('wireguard: device and route; and a route that lets nothing out in clear while they are away', async () => {
    const left = recorded('vm-wireguard');
    const leases = etcdLeases('vm-wireguard');
    const own = withOwnKey(leases.find(isOwn)!);
    const peers = leases.filter((lease) => !isOwn(lease));
    const netConf = '{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}';
    const { addresses, routes, ...rest } = await wanted(netConf, own, peers);
    // When that host was recorded, a route of the scenario before was still there: eth0 has no part in this one.
    const recordedRoutes = left.routes.filter((route) => route.includes('flannel'));
    assert.deepEqual({ ...rest, routes: [] }, { ...left, routes: [] });
    assert.deepEqual(
      routes.map((route) => route.replace(/dev flannel-wg$/, '$& scope link')),
      [...recordedRoutes, 'blackhole 10.244.0.0/16 metric 20000'],
    );
    assert.deepEqual(addresses, [`${formatAddr(own.subnets.ipv4!.addr)}/32 dev flannel-wg`]);
  });

  it('ipip with DirectRouting: straight routes, without the onlink flag that the kernel does not need', async () => {
    const left = recorded('vm-ipip-directrouting');
    const { own, peers } = hostAndPeers(etcdLeases('vm-ipip-directrouting'), left.routes);
    const netConf = '{"Network":"10.244.0.0/16","Backend":{"Type":"ipip","DirectRouting":true}}';
    const { routes, links } = await wanted(netConf, own, peers);
    assert.deepEqual(
      routes,
      left.routes.map((route) => route.replace(' onlink', '')),
    );
    assert.deepEqual(links, left.links);
  });
});

describe('vxlan', () => {
  const netConf = (extra: string) => `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"${extra}}}`;
  const [one, two] = nodeLeases('vxlan') as [Lease, Lease];

  it('reaches a peer on the link directly with DirectRouting, and only such a peer', async () => {
    const backend = await openedBackend(netConf(',"DirectRouting":true'), EXTERNAL);
    const near = backend.peer(one, two);
    assert(!isSkipped(near));
    assert.deepEqual(
      near.kernel.routes.map((route) => describeRoute(route)),
      ['10.244.1.0/24 via 10.98.0.12 dev eth0'],
    );
    assert.deepEqual([near.kernel.neighbours, near.kernel.fdb], [[], []]);
    const far = backend.peer(one, {
      ...two,
      attrs: { ...two.attrs, publicAddresses: { ...two.attrs.publicAddresses, ipv4: parseIpv4('192.0.2.7') } },
    });
    assert(!isSkipped(far));
    assert.deepEqual(
      far.kernel.routes.map((route) => describeRoute(route)),
      ['10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink'],
    );
  });

  it('leaves checksums to the device, or to no device, or has that found out, by TxChecksumOffload', async () => {
    const said = async (change: string) => {
      const { kernel, probeChecksums } = (await openedBackend(netConf(change), EXTERNAL)).host(one);
      const device = kernel.links.find((link) => link.kind === 'vxlan');
      return [device?.sumsBefore, probeChecksums];
    };
    assert.deepEqual(await said(''), [undefined, undefined]);
    assert.deepEqual(await said(',"TxChecksumOffload":"on"'), [undefined, undefined]);
    assert.deepEqual(await said(',"TxChecksumOffload":"off"'), [true, undefined]);
    assert.deepEqual(await said(',"TxChecksumOffload":"auto"'), [undefined, ['flannel.1']]);
    await assert.rejects(said(',"TxChecksumOffload":"never"'), /TxChecksumOffload.*want one of auto, on, off/);
  });

  it('names the device by the VNI, and hands on port, GBP, Learning and MTU', async () => {
    const backend = await openedBackend(
      netConf(',"VNI":4096,"Port":4789,"GBP":true,"Learning":true,"MTU":1400'),
      EXTERNAL,
    );
    const link = backend.host(one).kernel.links.find(({ kind }) => kind === 'vxlan');
    assert.deepEqual(link?.kind === 'vxlan' && [link.name, link.mtuBytes, link.settings], [
      'flannel.4096',
      1350,
      { vni: 4096, underlay: 'eth0', local: parseAddr('10.98.0.11'), port: 4789, learning: true, gbp: true },
    ]);
    assert.equal(backend.mtuBytes, 1350);
  });

  it('keeps the MAC address that was published, else that of the device, else takes a random one that may be used', async () => {
    const published = { ipv4: { VNI: 1, VtepMAC: '0a:00:00:00:00:01' }, ipv6: undefined };
    const device = {
      ...FAKE_IDENTITY_HOST,
      linkMac: async () => '0a:00:00:00:00:02',
      randomBytes: () => new Uint8Array(6).fill(0xff),
    };
    const none = { ...device, linkMac: async () => undefined };
    const macOf = async (identity: Parameters<typeof openedBackend>[2]) =>
      (await openedBackend(netConf(''), EXTERNAL, identity)).attrs.backendData.ipv4;
    assert.deepEqual(await macOf({ before: published, host: device }), { VNI: 1, VtepMAC: '0a:00:00:00:00:01' });
    assert.deepEqual(await macOf({ host: device }), { VNI: 1, VtepMAC: '0a:00:00:00:00:02' });
    assert.deepEqual(await macOf({ host: none }), { VNI: 1, VtepMAC: 'fe:ff:ff:ff:ff:ff' });
  });

  it('does not believe a group address, and says which data cannot be used', async () => {
    const backend = await openedBackend(netConf(''), EXTERNAL);
    for (const data of [
      undefined,
      null,
      'x',
      [],
      {},
      { VtepMAC: 7 },
      { VtepMAC: '01:00:5e:00:00:01' },
      { VtepMAC: 'zz' },
    ]) {
      const part = backend.peer(one, {
        ...two,
        attrs: { ...two.attrs, backendData: { ...two.attrs.backendData, ipv4: data } },
      });
      assert.deepEqual(part, { skipped: 'its IPv4 backend data has no usable VtepMAC' });
    }
  });

  it('leaves peers of another backend alone, and says so', async () => {
    const backend = await openedBackend(netConf(''), EXTERNAL);
    const part = backend.peer(one, { ...two, attrs: { ...two.attrs, backendType: 'host-gw' } });
    assert.deepEqual(part, { skipped: 'its backend is "host-gw", not vxlan' });
  });

  it('has room for the larger of the two overheads in dual stack', async () => {
    const dual = await openedBackend(golden('vxlan-dual', '01-net-conf.json'), EXTERNAL);
    assert.equal(dual.mtuBytes, 1430);
  });
});

describe('host-gw', () => {
  const netConf = '{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}';
  const [one, two] = nodeLeases('host-gw') as [Lease, Lease];

  it('names a peer that is not on the link', async () => {
    const backend = await openedBackend(netConf, EXTERNAL);
    const part = backend.peer(one, {
      ...two,
      attrs: { ...two.attrs, publicAddresses: { ...two.attrs.publicAddresses, ipv4: parseIpv4('192.0.2.7') } },
    });
    assert.deepEqual(part, {
      skipped: 'its address 192.0.2.7 is not on the link of eth0, so it cannot be reached without a gateway',
    });
  });

  it('reaches a peer whose address of one family is not on the link in the other, and says so', async () => {
    const netConf =
      '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"host-gw"}}';
    const backend = await openedBackend(netConf, EXTERNAL);
    const attrs = {
      ...two.attrs,
      publicAddresses: { ...two.attrs.publicAddresses, ipv6: parseIpv6('2001:db8:9::7') },
    };
    const part = backend.peer(one, {
      ...two,
      subnets: { ...two.subnets, ipv6: parsePrefix6('fd10:0:0:9::/64') },
      attrs,
    });
    assert(!isSkipped(part));
    assert.deepEqual(
      part.kernel.routes.map((route) => describeRoute(route)),
      ['10.244.1.0/24 via 10.98.0.12 dev eth0'],
    );
    assert.match(part.lacks ?? '', /^its address 2001:db8:9::7 is not on the link of eth0/);
  });

  it('refuses to publish another address than it has', async () => {
    await assert.rejects(
      openedBackend(netConf, { ...EXTERNAL, publicAddresses: addresses('203.0.113.9', 'fd98::11') }),
      {
        code: 'WEFT_CONFIG_INVALID',
        message: /^your PublicIP differs from interface IP, meaning that probably you're on a NAT/,
      },
    );
  });
});
