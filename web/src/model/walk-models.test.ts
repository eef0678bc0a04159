import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PEER_PATHS, type PeerPath } from '../../../src/api/peer-path.ts';
import type { LabResult } from '../../../src/lab/lab-result.ts';
import type { Hop, Walk } from '../../../src/lab/walk.ts';
import { capturedFlow } from './captured-walk.ts';
import { pathWords } from './hosts.ts';
import { hostView, linkView, look } from './overview.fixture.ts';
import { chooseWalk } from './walk-choice.ts';
import { bytesOf, crossingsOf, FLOW_KINDS, flowOf, overheadOf, timeTo } from './walk-flows.ts';
import { layOut, pathThrough, placeAlong } from './walk-picture.ts';

describe('the ways of a packet', () => {
  it('begin and end at an application, and cross the wire once', () => {
    for (const kind of FLOW_KINDS) {
      const { hops } = flowOf(kind);
      assert.deepEqual([hops[0]!.place, hops.at(-1)!.place], ['application', 'application'], kind);
      assert.equal(hops.filter(({ layer }) => layer === 'physical').length, 1, kind);
      assert.equal(
        bytesOf(hops[0]!.headers),
        bytesOf(hops.at(-1)!.headers),
        `${kind}: the data arrives as it was sent`,
      );
    }
  });

  it('differ in what makes one slower: crossings into user space, and bytes', () => {
    const figures = FLOW_KINDS.map((kind) => [kind, crossingsOf(flowOf(kind)), overheadOf(flowOf(kind))]);
    assert.deepEqual(figures, [
      ['forwarder', 6, 28],
      ['fast-path', 2, 28],
      ['vxlan', 2, 50],
      ['direct', 2, 0],
      ['ipip', 2, 20],
      // Of a message that is filled up by two bytes.
      ['wireguard', 2, 62],
      ['ipsec', 2, 54],
      ['native', 2, 0],
    ]);
  });

  it('are there for every path on which packets leave by a backend of weft itself', () => {
    const notWeft: readonly string[] = ['command', 'others', 'skipped'];
    for (const path of Object.keys(PEER_PATHS)) {
      const { inUse, notDrawn } = chooseWalk(
        look([hostView('h1'), hostView('h2')], [linkView(0, 1, { path: path as PeerPath })]),
        undefined,
        { from: undefined, to: undefined },
      )!;
      if (!notWeft.includes(path)) assert.deepEqual([inUse, notDrawn], [path, undefined]);
      else {
        assert.equal(inUse, undefined);
        assert.equal(notDrawn, `The path in use (${pathWords(path as PeerPath)}) is not drawn.`);
      }
    }
  });

  it('are named where no agent says which is in use', () => {
    const { inUse, notDrawn } = chooseWalk(look([hostView('h1'), hostView('h2')], []), undefined, {
      from: undefined,
      to: undefined,
    })!;
    assert.deepEqual([inUse, notDrawn], [undefined, 'The path that this pair uses is unknown.']);
  });

  it('are drawn with user space above the kernel above the wire, from left to right', () => {
    for (const kind of FLOW_KINDS) {
      const flow = flowOf(kind);
      const { layers, spots, hosts } = layOut(flow, 1240, 372);
      spots.forEach(({ x, y }, index) => {
        const [top, bottom] = layers[flow.hops[index]!.layer];
        assert.ok(y > top && y < bottom, `${kind} hop ${index}`);
        if (index > 0) assert.ok(x > spots[index - 1]!.x);
      });
      assert.ok(hosts[0][1] < hosts[1][0]);
    }
  });
});

describe('a packet on its way', () => {
  const spots = [
    { x: 0, y: 0 },
    { x: 100, y: 0 },
    { x: 100, y: 50 },
  ];

  it('is at its hops, between them, and never beyond', () => {
    assert.deepEqual(placeAlong(spots, -1), spots[0]);
    assert.deepEqual(placeAlong(spots, 0.5), { x: 50, y: 0 });
    assert.deepEqual(placeAlong(spots, 2), spots[2]);
    assert.deepEqual(placeAlong(spots, 9), spots[2]);
  });

  it('follows a line with round corners', () => {
    assert.equal(pathThrough(spots, 10), 'M0 0L90 0Q100 0 100 10L100 50');
  });
});

const seen = (node: string, place: string, atUs: number, isWrapped: boolean): Hop => ({
  node,
  place,
  space: node === 'underlay' ? 'physical' : 'kernel',
  captured: true,
  direction: 'out',
  atUs,
  packet: {
    source: '10.244.1.2',
    destination: '10.244.2.2',
    protocol: 'udp',
    sourcePort: 40_000,
    destinationPort: 9,
    ttl: 64,
    lengthBytes: isWrapped ? 74 : 46,
    id: 1,
    dontFragment: true,
    ...(place.startsWith('flannel') ? {} : { ethernet: { source: 'a', destination: 'b' } }),
  },
  ...(isWrapped && {
    inner: {
      source: '10.244.1.2',
      destination: '10.244.2.2',
      protocol: 'udp',
      sourcePort: 40_000,
      destinationPort: 9,
      ttl: 63,
      lengthBytes: 46,
      id: 1,
      dontFragment: true,
    },
  }),
});
const concluded = (node: string, place: string, space: Hop['space']): Hop => ({
  node,
  place,
  space,
  captured: false,
  note: place,
});

const walk: Walk = {
  title: 'container to container, flannel0',
  probe: '"weft-walk"',
  from: 'h1c1',
  to: 'h2c1',
  durationUs: 80,
  forwarderUs: 40,
  hops: [
    concluded('h1c1', 'application', 'user'),
    concluded('h1c1', 'socket · UDP · IP', 'kernel'),
    seen('h1c1', 'eth0', 0, false),
    seen('h1', 'flannel0', 10, false),
    concluded('h1', 'flanneld', 'user'),
    concluded('h1', 'socket · UDP · IP', 'kernel'),
    seen('h1', 'eth0', 30, true),
    seen('underlay', 'port1', 35, true),
    seen('underlay', 'port2', 38, true),
    seen('h2', 'eth0', 40, true),
    concluded('h2', 'IP · UDP · socket', 'kernel'),
    concluded('h2', 'flanneld', 'user'),
    seen('h2', 'flannel0', 70, false),
    seen('h2c1', 'eth0', 80, false),
    concluded('h2c1', 'IP · UDP · socket', 'kernel'),
    concluded('h2c1', 'application', 'user'),
  ],
};

describe('a captured walk', () => {
  const flow = capturedFlow(walk, 'forwarder');

  it('has the hops and the times of the capture', () => {
    assert.deepEqual(
      flow.hops.map(({ place, side, atUs }) => [place, side, atUs]),
      [
        ['application', 'from', undefined],
        ['socket', 'from', undefined],
        ['veth', 'from', 0],
        ['flannel0', 'from', 10],
        ['flanneld', 'from', undefined],
        ['UDP socket', 'from', undefined],
        ['eth0', 'from', 30],
        ['port 1', 'wire', 35],
        ['port 2', 'wire', 38],
        ['eth0', 'to', 40],
        ['UDP socket', 'to', undefined],
        ['flanneld', 'to', undefined],
        ['flannel0', 'to', 70],
        ['veth', 'to', 80],
        ['socket', 'to', undefined],
        ['application', 'to', undefined],
      ],
    );
    assert.equal(flow.durationUs, 80);
  });

  it('says how long it took to each hop that was captured', () => {
    assert.deepEqual(
      flow.hops.map((_, index) => timeTo(flow, index)?.us),
      // Of those in between nothing is known; the next one says what they took together.
      [...Array(3), 10, undefined, undefined, 20, 5, 3, 2, undefined, undefined, 30, 10, undefined, undefined],
    );
    assert.equal(timeTo(flow, 6)?.from, 'flannel0');
    assert.equal(timeTo(flowOf('vxlan'), 6), undefined);
  });

  it('has headers that grow and shrink as they were captured', () => {
    assert.deepEqual(
      flow.hops.map(({ headers }) => bytesOf(headers)),
      [18, 46, 60, 46, 46, 74, 88, 88, 88, 88, 46, 46, 46, 60, 46, 18],
    );
    assert.equal(overheadOf(flow), overheadOf(flowOf('forwarder')));
    assert.equal(crossingsOf(flow), crossingsOf(flowOf('forwarder')));
  });

  it('shows addresses, TTL and length of both headers', () => {
    assert.deepEqual(flow.hops[6]!.seen, [
      '10.244.1.2:40000 → 10.244.2.2:9  ttl 64  len 74',
      '10.244.1.2:40000 → 10.244.2.2:9  ttl 63  len 46',
    ]);
  });
});

describe('a captured walk of another tunnel', () => {
  const ends = (between: readonly Hop[]): Walk => ({
    ...walk,
    hops: [
      concluded('h1c1', 'application', 'user'),
      seen('h1c1', 'eth0', 0, false),
      ...between,
      seen('h2c1', 'eth0', 80, false),
      concluded('h2c1', 'application', 'user'),
    ],
  });
  const inIp = (node: string, place: string, atUs: number): Hop => {
    const { inner, ...hop } = seen(node, place, atUs, true);
    const { sourcePort: _from, destinationPort: _to, ...outer } = hop.packet!;
    return { ...hop, packet: { ...outer, protocol: 'other', lengthBytes: 66 }, inner: inner! };
  };

  it('of ipip has its second IP header', () => {
    const flow = capturedFlow(
      ends([
        seen('h1', 'flannel.ipip', 10, false),
        concluded('h1', 'IP in IP', 'kernel'),
        inIp('h1', 'eth0', 20),
        inIp('underlay', 'port1', 30),
        inIp('h2', 'eth0', 40),
        concluded('h2', 'IP in IP', 'kernel'),
        seen('h2', 'flannel.ipip', 50, false),
      ]),
      'ipip',
    );
    assert.deepEqual(
      flow.hops.map(({ place, headers }) => [place, bytesOf(headers)]),
      [
        ['application', 18],
        ['veth', 60],
        ['flannel.ipip', 46],
        ['IP in IP', 66],
        ['eth0', 80],
        ['port 1', 80],
        ['eth0', 80],
        ['IP in IP', 46],
        ['flannel.ipip', 46],
        ['veth', 60],
        ['application', 18],
      ],
    );
    assert.equal(overheadOf(flow), overheadOf(flowOf('ipip')));
  });

  it('of wireguard has the devices at both ends, and between them what is always so, without a time', () => {
    const flow = capturedFlow(
      ends([
        seen('h1', 'flannel-wg', 10, false),
        concluded('underlay', 'wireguard tunnel', 'physical'),
        seen('h2', 'flannel-wg', 50, false),
      ]),
      'wireguard',
    );
    assert.deepEqual(
      flow.hops.map(({ place, side, atUs }) => [place, side, atUs]),
      [
        ['application', 'from', undefined],
        ['veth', 'from', 0],
        ['flannel-wg', 'from', 10],
        ['eth0', 'from', undefined],
        ['wire', 'wire', undefined],
        ['eth0', 'to', undefined],
        ['flannel-wg', 'to', 50],
        ['veth', 'to', 80],
        ['application', 'to', undefined],
      ],
    );
    assert.equal(overheadOf(flow), overheadOf(flowOf('wireguard')));
  });
});

describe('the choice of a walk', () => {
  const overview = look([hostView('h1'), hostView('h2')], [linkView(0, 1, { path: 'forwarder' })]);
  const containers = (host: string) =>
    [1, 2].map((n) => ({ name: `${host}c${n}`, namespace: '', address: `10.244.1.${n}` }));
  const lab = {
    hosts: ['h1', 'h2'].map((name) => ({ name, containers: containers(name) })),
    overlay: { device: 'flannel0', kind: 'tun' },
    walk,
    nativeWalk: null,
  } as unknown as LabResult;

  it('is the captured one of a lab, with its times', () => {
    const choice = chooseWalk(overview, lab, { from: undefined, to: undefined });
    assert.deepEqual([choice?.from.id, choice?.to.id, choice?.inUse], ['h1c1', 'h2c1', 'forwarder']);
    assert.equal(choice?.flows.get('forwarder')?.durationUs, 80);
    assert.equal(choice?.flows.get('vxlan')?.durationUs, undefined);
  });

  it('is the captured one with every device that the lab has', () => {
    for (const [device, kind] of [
      ['vxlan', 'vxlan'],
      ['direct', 'direct'],
      ['ipip', 'ipip'],
      ['wireguard', 'wireguard'],
    ] as const) {
      const other = { ...lab, overlay: { device: 'any', kind: device } } as unknown as LabResult;
      const choice = chooseWalk(overview, other, { from: undefined, to: undefined });
      assert.equal(choice?.flows.get(kind)?.durationUs, 80, device);
      assert.equal(choice?.flows.get('forwarder')?.durationUs, undefined, device);
    }
  });

  it('is of two hosts that differ, without times where nothing was captured', () => {
    const choice = chooseWalk(overview, lab, { from: 'h2c2', to: 'h2c1' });
    assert.deepEqual([choice?.from.id, choice?.to.host], ['h2c2', 'h1']);
    assert.equal(choice?.flows.get('forwarder')?.durationUs, undefined);
    assert.deepEqual(choice?.captured, { from: 'h1c1', to: 'h2c1' });
  });

  it('is of hosts where there is no lab, and of nothing with one host', () => {
    const choice = chooseWalk(overview, undefined, { from: 'nobody', to: 'h2' });
    assert.deepEqual([choice?.from.id, choice?.to.id], ['h1', 'h2']);
    assert.equal(chooseWalk(look([hostView('h1')], []), undefined, { from: undefined, to: undefined }), undefined);
  });
});
