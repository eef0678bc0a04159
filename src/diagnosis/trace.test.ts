import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address, udpPacket } from '../../test/fakes/packets.ts';
import { address6, ipv6Packet, udp6Packet } from '../../test/fakes/packets6.ts';
import { parseAddr } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import {
  headersOf,
  hopsOf,
  judgeTrace,
  type TraceDrop,
  type TraceFacts,
  type TracePlace,
  type TraceSighting,
} from './trace.ts';
import { matchIp, type TraceIdentity } from './trace-match.ts';

const FAR = '192.168.77.2';
const here: TracePlace = { host: 'this host', name: 'host', isSource: true, isTarget: false };
const farHost: TracePlace = { host: FAR, name: 'host', isSource: false, isTarget: false };
const target: TracePlace = { host: FAR, name: 'c1', isSource: false, isTarget: true };
const identity: TraceIdentity = { protocol: 'udp', destination: ipv4Of(address('10.244.2.2')), mark: 4_000, port: 53 };
const [A, B] = [address('10.244.1.2'), address('10.244.2.2')];
const payload = Buffer.from('weft-trace');
const request = udpPacket({ ip: { source: A, destination: B }, sourcePort: 4_000, destinationPort: 53, payload });
const answer = udpPacket({ ip: { source: B, destination: A }, sourcePort: 53, destinationPort: 4_000, payload });
const tunnel = { source: address('192.168.77.1'), destination: address(FAR) };
const ports = { sourcePort: 8_285, destinationPort: 8_285 };
const wrapped = udpPacket({ ip: tunnel, ...ports, payload: request });
const back = { source: tunnel.destination, destination: tunnel.source };
const wrappedAnswer = udpPacket({ ip: back, ...ports, payload: answer });

function seen(
  place: TracePlace,
  device: string,
  direction: 'in' | 'out',
  bytes: Uint8Array,
  at: number,
): TraceSighting {
  return { place, device, direction, timeNs: BigInt(at), match: matchIp(identity, bytes)! };
}

function dropped(place: TracePlace, device: string, reason: string, bytes: Uint8Array, func?: string): TraceDrop {
  return { place, device, reason, function: func, timeNs: 9n, match: matchIp(identity, bytes)! };
}

const SENT = [seen(here, 'flannel0', 'out', request, 1_000), seen(here, 'eth0', 'out', wrapped, 3_500)];

function verdictOf(facts: Partial<TraceFacts>) {
  const { text, ...rest } = judgeTrace({
    ...{
      protocol: 'udp',
      source: here,
      sightings: SENT,
      kernelDrops: [],
      agentDrops: [],
      copies: 10,
      sendError: undefined,
    },
    ...{ farHost: FAR, isFarSeen: true, hasFarAgentSeenMore: undefined, ...facts },
  });
  assert.ok(text.length > 10);
  return { ...rest, text };
}

function brief(facts: Partial<TraceFacts>): string {
  const { outcome, host, hop, reason } = verdictOf(facts);
  return [outcome, host, hop, reason].join(' | ');
}

describe('the frames of a trace', () => {
  it('are the packet, its answer, and both inside a tunnel, and no others', () => {
    assert.equal(matchIp(identity, request)?.leg, 'request');
    assert.equal(matchIp(identity, answer)?.leg, 'answer');
    assert.equal(matchIp(identity, wrapped)?.inner?.ip.destination, B);
    assert.equal(matchIp({ ...identity, mark: 4_001 }, request), undefined);
    assert.equal(matchIp({ ...identity, port: 54 }, wrapped), undefined);
    assert.equal(matchIp(identity, request.subarray(0, 10)), undefined);
  });

  it('are the same in IPv6, with the ICMP errors about it', () => {
    const [from, to] = [address6('fd10::1:2'), address6('fd10::2:2')];
    const destination = parseAddr('fd10::2:2')!;
    const sent = udp6Packet({ ip: { source: from, destination: to }, sourcePort: 4_000, destinationPort: 53, payload });
    const match = matchIp({ ...identity, destination }, sent);
    assert.equal(match?.leg, 'request');
    assert.match(headersOf(match.packet).text, /^\[fd10::1:2\]:4000 > \[fd10::2:2\]:53 udp ttl 64 len \d+$/);
    for (const [type, code, reason] of [
      [1, 0, 'no-route'],
      [1, 1, 'netfilter'],
      [1, 4, 'no-listener'],
      [2, 0, 'too-big'],
      [3, 0, 'ttl'],
    ] as const) {
      const error = ipv6Packet(
        { source: to, destination: from, nextHeader: 58 },
        Uint8Array.of(type, code, ...new Uint8Array(6), ...sent),
      );
      const told = matchIp({ ...identity, destination }, error);
      assert.equal(told?.leg, 'error');
      const sightings = [
        ...SENT,
        { place: here, device: 'eth0', direction: 'in', timeNs: 9_000n, match: told } as const,
      ];
      assert.equal(verdictOf({ sightings }).reason, reason);
    }
  });

  it('follow the path where a packet has one time on two devices, as the fast path leaves it', () => {
    const way = [
      seen(farHost, 'eth0', 'in', wrapped, 7),
      seen(farHost, 'flannel0', 'in', request, 7),
      seen(farHost, 'flannel0', 'out', answer, 8),
      seen(farHost, 'eth0', 'out', wrappedAnswer, 8),
    ];
    for (const sightings of [way, way.toReversed()]) {
      const hops = hopsOf({ sightings } as unknown as TraceFacts);
      assert.deepEqual(
        hops.map(({ device, direction }) => `${device} ${direction}`),
        ['eth0 in', 'flannel0 in', 'flannel0 out', 'eth0 out'],
      );
    }
  });

  it('are those of the answer after those of the packet, though a clock was set back meanwhile', () => {
    const sightings = [
      ...SENT,
      seen(here, 'eth0', 'in', wrappedAnswer, 2_000),
      seen(here, 'flannel0', 'in', answer, 900),
    ];
    const hops = hopsOf({ sightings } as unknown as TraceFacts);
    assert.deepEqual(
      hops.map(({ device, leg }) => `${device} ${leg}`),
      ['flannel0 request', 'eth0 request', 'flannel0 answer', 'eth0 answer'],
    );
  });

  it('become hops in the order of time, each once', () => {
    const again = seen(here, 'eth0', 'out', wrapped, 9_000);
    const facts = { sightings: [again, ...SENT.toReversed()] } as unknown as TraceFacts;
    const hops = hopsOf(facts);
    assert.deepEqual(
      hops.map(({ device, atUs, inner }) => [device, atUs, inner?.text]),
      [
        ['flannel0', 0, undefined],
        ['eth0', 2.5, '10.244.1.2:4000 > 10.244.2.2:53 udp ttl 64 len 38'],
      ],
    );
  });
});

describe('what became of a packet', () => {
  const arrived = [...SENT, seen(target, 'eth0', 'in', request, 5_000)];
  const cases: readonly (readonly [string, Partial<TraceFacts>, string])[] = [
    [
      'the answer is home',
      { sightings: [...arrived, seen(here, 'flannel0', 'in', answer, 6_000)] },
      'answered | this host | host flannel0 | arrived',
    ],
    [
      'the answer is home, and refused there',
      {
        sightings: [...arrived, seen(here, 'flannel0', 'in', answer, 6_000)],
        kernelDrops: [dropped(here, 'flannel0', 'NETFILTER_DROP', answer)],
      },
      'lost | this host | host flannel0 | netfilter',
    ],
    ['a datagram without an answer', { sightings: arrived }, `delivered | ${FAR} | c1 eth0 | arrived`],
    ['an echo without an answer', { sightings: arrived, protocol: 'icmp' }, `lost | ${FAR} | c1 eth0 | silent`],
    ['the kernel refuses to send', { sendError: 'ENETUNREACH' }, 'lost | this host | host socket | no-route'],
    ['too long to be sent', { sendError: 'EMSGSIZE' }, 'lost | this host | host socket | too-big'],
    [
      'a firewall of the far host',
      { kernelDrops: [dropped(farHost, 'eth0', 'NETFILTER_DROP', wrapped, 'nf_hook_slow')] },
      `lost | ${FAR} | host eth0 | netfilter`,
    ],
    [
      'nobody listens, in the container',
      { kernelDrops: [dropped(target, 'eth0', 'NO_SOCKET', request)] },
      `refused | ${FAR} | c1 eth0 | no-listener`,
    ],
    [
      'nobody takes the tunnel’s datagrams',
      { kernelDrops: [dropped(farHost, 'eth0', 'NO_SOCKET', wrapped)] },
      `lost | ${FAR} | host eth0 | no-agent`,
    ],
    [
      'a function that gives no reason',
      { kernelDrops: [dropped(farHost, 'flannel0', 'NOT_SPECIFIED', request, 'ip_forward')] },
      `lost | ${FAR} | host flannel0 | too-big`,
    ],
    [
      'the program there does not read',
      { sightings: arrived, kernelDrops: [dropped(target, 'eth0', 'SOCKET_RCVBUFF', request)] },
      `lost | ${FAR} | c1 eth0 | socket-buffer`,
    ],
    [
      'the program there is busy with its socket',
      { sightings: arrived, kernelDrops: [dropped(target, '', 'SOCKET_BACKLOG', request)] },
      `lost | ${FAR} | c1 | socket-buffer`,
    ],
    [
      'the queue of this host’s tunnel is full',
      { sightings: SENT.slice(0, 1), kernelDrops: [dropped(here, 'flannel0', 'FULL_RING', request)] },
      'lost | this host | host flannel0 | queue-full',
    ],
    [
      'the queue of the underlay is full',
      { kernelDrops: [dropped(here, 'eth0', 'QDISC_DROP', wrapped)] },
      'lost | this host | host eth0 | queue-full',
    ],
    [
      'the way back leads elsewhere',
      { kernelDrops: [dropped(farHost, 'flannel0', 'IP_RPFILTER', request)] },
      `lost | ${FAR} | host flannel0 | rp-filter`,
    ],
    [
      'nobody has the address of the next hop',
      { kernelDrops: [dropped(here, 'eth0', 'NEIGH_FAILED', wrapped)] },
      'lost | this host | host eth0 | no-neighbour',
    ],
    [
      'a filter of tc on the way in',
      { kernelDrops: [dropped(farHost, 'eth0', 'TC_INGRESS', wrapped)] },
      `lost | ${FAR} | host eth0 | tc`,
    ],
    [
      'a filter of tc on the way out',
      { kernelDrops: [dropped(here, 'eth0', 'TC_EGRESS', wrapped)] },
      'lost | this host | host eth0 | tc',
    ],
    [
      'a reason that has no text',
      { kernelDrops: [dropped(farHost, 'eth0', 'IP_CSUM', wrapped)] },
      `lost | ${FAR} | host eth0 | kernel:IP_CSUM`,
    ],
    [
      'a copy that a bridge made',
      { kernelDrops: [dropped(farHost, 'eth0', 'OTHERHOST', wrapped)] },
      'lost | this host | host eth0 | unseen',
    ],
    [
      'the far agent refuses it',
      {
        sightings: [...SENT, seen(farHost, 'eth0', 'in', wrapped, 4_000)],
        agentDrops: [
          { host: 'this host', side: 'tx', reason: 'ttl-exceeded', packets: 1 },
          { host: FAR, side: 'rx', reason: 'spoofed-source', packets: 1 },
        ],
      },
      `lost | ${FAR} | agent | agent:spoofed-source`,
    ],
    [
      'this host’s agent refuses it',
      {
        sightings: SENT.slice(0, 1),
        agentDrops: [{ host: 'this host', side: 'tx', reason: 'no-route', packets: 2 }],
      },
      'lost | this host | agent | agent:no-route',
    ],
    [
      'the far host, which only its agent tells of, drops it',
      { isFarSeen: false, agentDrops: [{ host: FAR, side: 'kernel', reason: 'filtered-in', packets: 10 }] },
      `lost | ${FAR} | host | host:filtered-in`,
    ],
    [
      'the far host drops what was encrypted',
      {
        sightings: SENT.slice(0, 1),
        agentDrops: [
          { host: 'this host', side: 'kernel', reason: 'no-route', packets: 10 },
          { host: FAR, side: 'kernel', reason: 'filtered-in', packets: 10 },
        ],
      },
      `lost | ${FAR} | host | host:filtered-in`,
    ],
    [
      'the far host drops what is not this packet, which was seen on its way',
      { agentDrops: [{ host: FAR, side: 'kernel', reason: 'filtered-in', packets: 10 }] },
      'lost | this host | host eth0 | unseen',
    ],
    ['nothing knows more', {}, 'lost | this host | host eth0 | unseen'],
    ['it was never on a device', { sightings: [] }, 'lost | this host | host socket | unseen'],
  ];
  for (const [what, facts, expected] of cases) it(`${what}: ${expected}`, () => assert.equal(brief(facts), expected));

  it('says how much is known of the far host', () => {
    const textOf = (facts: Partial<TraceFacts>): string => verdictOf(facts).text;
    assert.match(textOf({}), /the network between the hosts lost it/);
    assert.match(textOf({ isFarSeen: false }), /could not be asked/);
    assert.match(textOf({ isFarSeen: false, hasFarAgentSeenMore: true }), /look for it on that host/);
    assert.match(textOf({ isFarSeen: false, hasFarAgentSeenMore: 'unclear' }), /too many other packets/);
    assert.match(textOf({ isFarSeen: false, hasFarAgentSeenMore: false }), /has received none of its copies/);
  });
});
