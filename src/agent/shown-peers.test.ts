import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addresses } from '../../test/fakes/host-networks.ts';
import { parseWireguardKey } from '../backend/wireguard-key.ts';
import type { ActualWireguard, ActualWireguardPeer } from '../desired/state.ts';
import type { IpPrefix } from '../ip/address.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import { type Lease, leaseKey } from '../lease/lease.ts';
import type { DirectionFigures } from '../metrics/snapshot.ts';
import type { PeerWay } from './peer-way.ts';
import { ShownPeers, type ShownPeersParts } from './shown-peers.ts';
import { totalsOf } from './shown-traffic.ts';

function leaseOf(host: number): Lease {
  return {
    subnets: { ipv4: parsePrefix4(`10.244.${host}.0/24`), ipv6: undefined },
    attrs: {
      publicAddresses: addresses(`192.168.77.${host}`),
      ...{ backendType: '', backendData: { ipv4: undefined, ipv6: undefined } },
    },
    expiresAtMs: undefined,
    origin: { holder: `node${host}`, since: undefined },
  };
}

const counted = (packets: number, drops: Record<string, number> = {}): DirectionFigures => ({
  tx: { packets, bytes: packets * 100, drops },
  rx: { packets, bytes: packets * 100, drops: {} },
});

const [A, B, C] = [leaseOf(2), leaseOf(3), leaseOf(4)];
const WAY: PeerWay = { path: 'forwarder', device: 'flannel0' };

const keyOf = (byte: number) => parseWireguardKey(Buffer.alloc(32, byte).toString('base64'))!;

/** Two peers that the forwarder serves, and one that is skipped. The first is on the fast path. */
const FIGURES: ShownPeersParts['figures'] = {
  session: { table: { peers: [A, B, C] } },
  forwarder: {
    traffic: (slot) => (slot === 1 ? counted(7, { 'no-route': 2, 'too-big': 0 }) : counted(0)),
    isFast: (address) => address === A.attrs.publicAddresses.ipv4,
  },
  fastPath: { isOpen: true },
  slots: {
    of: (key) =>
      new Map<string, number>([
        [leaseKey(A), 1],
        [leaseKey(B), 2],
      ]).get(key),
  },
  probes: undefined,
};
const PLANE = {
  ways: new Map([
    [leaseKey(A), WAY],
    [leaseKey(B), WAY],
    [leaseKey(C), { path: 'skipped', device: undefined } satisfies PeerWay],
  ]),
  ike: undefined,
  skipped: { reasonOf: (key: string) => (key === leaseKey(C) ? 'it has no public address' : undefined) },
  reconciler: { stats: () => ({ wireguard: [] }) },
} as unknown as ReturnType<ShownPeersParts['view']>['plane'];

describe('peers as the API shows them', () => {
  it('have the way that packets take, what was counted, and why there is none', () => {
    using peers = new ShownPeers({ figures: FIGURES, view: () => ({ plane: PLANE, peers: [] }) });
    const { list } = peers.look();
    assert.deepEqual(
      list.map(({ id, path, device, reason }) => [id, path, device, reason]),
      [
        ['10.244.2.0/24', 'fast-path', 'flannel0', undefined],
        ['10.244.3.0/24', 'forwarder', 'flannel0', undefined],
        ['10.244.4.0/24', 'skipped', undefined, 'it has no public address'],
      ],
    );
    const [fast, silent, skipped] = list;
    assert.deepEqual(fast?.tx, { packets: 7, bytes: 700, drops: { 'no-route': 2 } });
    assert.equal(typeof fast?.lastSeenAtMs, 'number');
    assert.equal(silent?.lastSeenAtMs, undefined, 'nothing has come from it');
    assert.equal(skipped?.tx, undefined, 'nobody counts its packets');
    assert.equal(fast?.holder, 'node2');
    assert.deepEqual(totalsOf(list).totals?.tx, { packets: 7, bytes: 700, drops: { 'no-route': 2 } });
  });

  it('are on the fast path also where their hosts have IPv6 alone', () => {
    const publicAddresses = { ipv4: undefined, ipv6: parseIpv6('fd77::2') };
    const figures: ShownPeersParts['figures'] = {
      ...FIGURES,
      session: { table: { peers: [{ ...A, attrs: { ...A.attrs, publicAddresses } }, B] } },
      forwarder: { ...FIGURES.forwarder!, isFast: (address) => address === publicAddresses.ipv6 },
    };
    using peers = new ShownPeers({ figures, view: () => ({ plane: PLANE, peers: [] }) });
    assert.deepEqual(
      peers.look().list.map(({ path }) => path),
      ['fast-path', 'forwarder'],
    );
  });

  it('are those of an earlier run until there is a session, and reached by others until there is a way', () => {
    const figures = { ...FIGURES, session: undefined, forwarder: undefined };
    using peers = new ShownPeers({ figures, view: () => ({ plane: undefined, peers: [B] }) });
    const { list } = peers.look();
    assert.deepEqual(
      list.map(({ id, path, tx }) => [id, path, tx]),
      [['10.244.3.0/24', 'others', undefined]],
    );
    assert.deepEqual(totalsOf(list), {});
  });

  it('have what passed their WireGuard tunnels, of both families, and the last handshake', () => {
    const [ipv4, ipv6] = [parsePrefix4('10.244.5.0/24')!, parsePrefix6('fd10:0:0:5::/64')!];
    const dual = { ...leaseOf(5), subnets: { ipv4, ipv6 } };
    const device = (link: string, ...peers: ActualWireguardPeer[]): ActualWireguard => {
      return { ...{ link, peers, listenPort: 51_820 }, publicKey: keyOf(1) };
    };
    const peer = (allowedIps: readonly IpPrefix[], lastHandshakeAtMs: number | undefined, bytes: number) => ({
      ...{ link: 'flannel-wg', publicKey: keyOf(bytes), endpoint: undefined, allowedIps },
      ...{
        presharedKey: undefined,
        keepaliveSeconds: 0,
        lastHandshakeAtMs,
        sentBytes: bytes,
        receivedBytes: 2 * bytes,
      },
    });
    const show = (devices: readonly ActualWireguard[]) => {
      const figures = { ...FIGURES, session: { table: { peers: [A, dual] } }, forwarder: undefined };
      const plane = { ...PLANE!, reconciler: { stats: () => ({ wireguard: devices }) } };
      using peers = new ShownPeers({ figures, view: () => ({ plane, peers: [] }) });
      return peers.look().list.map(({ tunnel, lastSeenAtMs }) => [tunnel, lastSeenAtMs]);
    };
    const silent = peer([A.subnets.ipv4!], undefined, 4);
    assert.deepEqual(
      show([device('flannel-wg', silent, peer([ipv4], 7_000, 10)), device('flannel-wg-v6', peer([ipv6], 9_000, 30))]),
      [
        [{ sentBytes: 4, receivedBytes: 8 }, undefined],
        [{ sentBytes: 40, receivedBytes: 80, lastHandshakeAtMs: 9_000 }, 9_000],
      ],
    );
    assert.deepEqual(show([device('flannel-wg', peer([ipv4, ipv6], 7_000, 10))]), [
      [undefined, undefined],
      [{ sentBytes: 10, receivedBytes: 20, lastHandshakeAtMs: 7_000 }, 7_000],
    ]);
  });

  it('have what passed their IPsec tunnel, which has no handshake', () => {
    const tunnel = { isUp: true, isIdle: false, sentBytes: 7, receivedBytes: 5, problem: undefined };
    const plane = { ...PLANE!, ike: { tunnel: () => tunnel } } as unknown as typeof PLANE;
    using peers = new ShownPeers({ figures: FIGURES, view: () => ({ plane, peers: [] }) });
    assert.deepEqual(peers.look().list[0]?.tunnel, { sentBytes: 7, receivedBytes: 5 });
  });

  it('are looked at once for several readers', () => {
    let looks = 0;
    using peers = new ShownPeers({
      figures: FIGURES,
      view: () => {
        looks++;
        return { plane: PLANE, peers: [] };
      },
    });
    assert.equal(peers.look(), peers.look());
    assert.equal(looks, 1);
  });

  it('are seen by the answers to probes where nobody counts their packets', () => {
    const probed = { measuredAtMs: performance.now(), lastAnswerAtMs: performance.now() - 5_000 };
    const path = { rttMs: { median: 3, p99: 4 }, passes: { small: 'yes' }, ...probed };
    const probes = { result: () => path } as unknown as ShownPeersParts['figures']['probes'];
    const figures = { ...FIGURES, forwarder: undefined, probes };
    using peers = new ShownPeers({ figures, view: () => ({ plane: PLANE, peers: [] }) });
    const { list, atMs } = peers.look();
    for (const { tx, lastSeenAtMs } of list) {
      assert.equal(tx, undefined);
      assert.ok(atMs - lastSeenAtMs! >= 4_900, `${lastSeenAtMs}`);
    }
  });

  it('are looked at anew when a path breaks', () => {
    const probes = { result: () => undefined, changes: 0 };
    using peers = new ShownPeers({ figures: { ...FIGURES, probes }, view: () => ({ plane: PLANE, peers: [] }) });
    const before = peers.look();
    assert.equal(peers.look(), before);
    probes.changes++;
    assert.notEqual(peers.look(), before);
  });

  it('show what probes found, and nothing before they found something', () => {
    const fault = { cause: 'mtu', fault: 'large packets are lost', remedy: 'lower the MTU' };
    const path = { rttMs: { median: 3, p99: 4 }, passes: { small: 'yes' }, measuredAtMs: performance.now() };
    const results = new Map<string, unknown>([
      ['10.244.2.0/24', { ...path, diagnosis: fault }],
      ['10.244.3.0/24', { ...path, passes: { small: 'no' } }],
      ['10.244.4.0/24', { passes: { small: 'unknown' }, measuredAtMs: undefined }],
    ]);
    using peers = new ShownPeers({ figures: probed(results), view: () => ({ plane: PLANE, peers: [] }) });
    const [faulty, silent, unmeasured] = peers.look().list;
    assert.deepEqual(
      [faulty?.probe?.problem, faulty?.probe?.remedy, faulty?.probe?.rttMs, faulty?.probe?.family],
      ['mtu', 'lower the MTU', 3, 'IPv4'],
    );
    assert.deepEqual([silent?.probe?.problem, silent?.probe?.rttMs], [undefined, undefined]);
    assert.equal(unmeasured?.probe, undefined);
    assert.equal(faulty?.probes, undefined, 'it has one family alone');
  });

  it('show each family that is measured, and by itself the one that fares worse', () => {
    const subnets = { ipv4: A.subnets.ipv4, ipv6: parsePrefix6('fd00:2::/64') };
    const now = performance.now();
    const well = { rttMs: { median: 3, p99: 4 }, passes: { small: 'yes' }, measuredAtMs: now, lastAnswerAtMs: now };
    const lossy = { ...well, diagnosis: { cause: 'lossy', fault: 'lossy', remedy: 'look' } };
    const silent = { passes: { small: 'no' }, measuredAtMs: now, lastAnswerAtMs: now - 90_000 };
    const look = (four: unknown, six: unknown) => {
      const results = new Map([
        ['10.244.2.0/24', four],
        ['fd00:2::/64', six],
      ]);
      const figures = { ...probed(results), session: { table: { peers: [{ ...A, subnets }] } }, forwarder: undefined };
      using peers = new ShownPeers({ figures, view: () => ({ plane: PLANE, peers: [] }) });
      const [peer] = peers.look().list;
      return { ...peer!, brief: [peer?.probe?.family, peer?.probes?.map(({ family, rttMs }) => [family, rttMs])] };
    };
    const both = [
      ['IPv4', 3],
      ['IPv6', undefined],
    ];
    assert.deepEqual(look(lossy, silent).brief, ['IPv6', both]);
    assert.deepEqual(look(well, silent).brief, ['IPv6', both]);
    assert.deepEqual(look(lossy, well).brief[0], 'IPv4');
    assert.deepEqual(look(well, lossy).brief[0], 'IPv6');
    assert.deepEqual(look(well, well).brief[0], 'IPv4');
    assert.deepEqual(look(well, undefined).brief, ['IPv4', [['IPv4', 3]]]);
    assert.equal(look(undefined, undefined).probes, undefined);
    assert.ok(Date.now() - look(well, silent).lastSeenAtMs! < 60_000, 'something of it has just come');
  });
});

/** With probes that have these results, by subnet. */
function probed(results: ReadonlyMap<string, unknown>): ShownPeersParts['figures'] {
  const probes = { result: (subnet: string) => results.get(subnet) } as ShownPeersParts['figures']['probes'];
  return { ...FIGURES, probes };
}
