import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { decodeIp } from '../capture/decode.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { overlaySteps } from './overlay.ts';
import { buildWalk, isProbe, type PacketForm, type Probe, type Sighting, type Step, sight } from './walk.ts';

const probe: Probe = {
  kind: 'udp',
  source: parseIpv4('10.244.1.2')!,
  destination: parseIpv4('10.244.2.2')!,
  port: 9000,
  token: 'token-1',
};

function ipv4(source: string, destination: string, ttl: number, protocol: number, body: Uint8Array): Buffer {
  const bytes = Buffer.alloc(20 + body.length);
  bytes[0] = 0x45;
  bytes.writeUInt16BE(bytes.length, 2);
  bytes[8] = ttl;
  bytes[9] = protocol;
  bytes.writeUInt32BE(parseIpv4(source)!, 12);
  bytes.writeUInt32BE(parseIpv4(destination)!, 16);
  bytes.set(body, 20);
  return bytes;
}

function udp(source: string, destination: string, ttl: number, ports: [number, number], payload: Uint8Array): Buffer {
  const body = Buffer.alloc(8 + payload.length);
  body.writeUInt16BE(ports[0], 0);
  body.writeUInt16BE(ports[1], 2);
  body.writeUInt16BE(body.length, 4);
  body.set(payload, 8);
  return ipv4(source, destination, ttl, 17, body);
}

const bare = (ttl: number, token = 'token-1') =>
  udp('10.244.1.2', '10.244.2.2', ttl, [40000, 9000], Buffer.from(token));
const wrapped = (ttl: number) => udp('192.168.77.1', '192.168.77.2', 64, [8285, 8285], bare(ttl));
const seen = (bytes: Uint8Array, timeNs: bigint): Sighting =>
  sight(probe, { linkType: 'raw', timeNs, originalBytes: bytes.length, bytes })!;

const captured = (node: string, device: string, form: PacketForm = 'bare'): Step => ({
  kind: 'captured',
  node,
  device,
  space: 'kernel',
  direction: 'out',
  form,
});

const steps: Step[] = [
  { kind: 'inferred', node: 'h1c1', space: 'user', place: 'application', evidence: 'sent' },
  { kind: 'inferred', node: 'h1c1', space: 'kernel', place: 'TCP/IP', evidence: 'headers-added' },
  captured('h1c1', 'eth0'),
  { kind: 'inferred', node: 'h1', space: 'kernel', place: 'routing', evidence: 'forwarded' },
  captured('h1', 'flannel0'),
  { kind: 'inferred', node: 'h1', space: 'user', place: 'flanneld', evidence: 'encapsulated' },
  captured('h1', 'eth0', 'wrapped'),
  { kind: 'inferred', node: 'h2', space: 'user', place: 'flanneld', evidence: 'decapsulated' },
  captured('h2', 'flannel0'),
  { kind: 'inferred', node: 'h2', space: 'user', place: 'application', evidence: 'received' },
];

function sightings(): (Sighting | undefined)[] {
  const all: (Sighting | undefined)[] = new Array(steps.length).fill(undefined);
  all[2] = seen(bare(64), 1_000n);
  all[4] = seen(bare(63), 3_500n);
  all[6] = seen(wrapped(62), 40_000n);
  all[8] = seen(bare(61), 70_500n);
  return all;
}

const facts = { title: 'container to container', probe, from: 'h1c1', to: 'h2c1', steps, delivered: true };

describe('sight', () => {
  it('finds the probe bare and inside a datagram, and nothing else', () => {
    assert.equal(seen(wrapped(62), 0n).inner?.ip.ttl, 62);
    assert.equal(seen(bare(62), 0n).inner, undefined);
    assert.equal(seen(bare(62, 'token-2'), 0n), undefined);
    assert.equal(seen(udp('10.244.2.2', '10.244.1.2', 64, [40000, 9000], Buffer.from('token-1')), 0n), undefined);
    assert.equal(seen(udp('192.168.77.1', '192.168.77.2', 64, [8285, 8285], Buffer.from('rubbish')), 0n), undefined);
  });

  it('knows an echo request by id and sequence, and its reply not at all', () => {
    const echo: Probe = { kind: 'icmp', source: probe.source, destination: probe.destination, id: 7, sequence: 1 };
    const message = (type: number, id: number) =>
      decodeIp(ipv4('10.244.1.2', '10.244.2.2', 64, 1, Uint8Array.of(type, 0, 0, 0, 0, id, 0, 1)))!;
    assert.equal(isProbe(echo, message(8, 7)), true);
    assert.equal(isProbe(echo, message(8, 8)), false);
    assert.equal(isProbe(echo, message(0, 7)), false);
  });
});

const inVxlan = (ttl: number) => {
  const ethernet = Buffer.concat([Buffer.alloc(12, 2), Buffer.of(8, 0), bare(ttl)]);
  const header = Buffer.of(8, 0, 0, 0, 0, 0, 7, 0);
  return udp('192.168.77.1', '192.168.77.2', 64, [50000, 8472], Buffer.concat([header, ethernet]));
};

describe('buildWalk through tunnels of the kernel', () => {
  const under = (form: PacketForm): Step[] => [captured('underlay', 'port1', form)];
  const walkOf = (kind: string, frames: readonly Uint8Array[]) => {
    const tunnel = overlaySteps('h1', 'h2', { device: 'flannel.7', kind }, under);
    const all: Step[] = [captured('h1', 'cni0'), ...tunnel, captured('h2', 'cni0')];
    const queue = [...frames];
    const seenAt = all.map((step, i) =>
      step.kind === 'captured' ? seen(queue.shift()!, BigInt(i * 1_000)) : undefined,
    );
    return buildWalk({ ...facts, steps: all, sightings: seenAt });
  };

  it('names the headers of VXLAN and of IP in IP', () => {
    const vxlan = walkOf('vxlan', [bare(64), bare(63), inVxlan(63), bare(63), bare(62)]);
    assert.ok(vxlan.ok, JSON.stringify(vxlan));
    const notes = vxlan.walk.hops.flatMap(({ note }) => note ?? []);
    assert.deepEqual(notes, [
      'routes it to the next device, TTL 64 → 63',
      'puts Ethernet, VXLAN (VNI 7), UDP and IP headers before it, to 192.168.77.2 on port 8472',
      'takes Ethernet, VXLAN (VNI 7), UDP and IP headers off that come from 192.168.77.1',
      'routes it to the next device, TTL 63 → 62',
    ]);
    assert.equal(vxlan.walk.forwarderUs, 0);
    const inIp = ipv4('192.168.77.1', '192.168.77.2', 64, 4, bare(63));
    const ipip = walkOf('ipip', [bare(64), bare(63), inIp, bare(63), bare(62)]);
    assert.ok(ipip.ok, JSON.stringify(ipip));
    assert.equal(ipip.walk.hops[3]?.note, 'puts an IP header before it, to 192.168.77.2');
  });

  it('says of a tunnel that nobody can look into no more than its ends show', () => {
    const wireguard = walkOf('wireguard', [bare(64), bare(63), bare(63), bare(62)]);
    assert.ok(wireguard.ok, JSON.stringify(wireguard));
    assert.deepEqual(
      wireguard.walk.hops.map(({ node, place }) => `${node} ${place}`),
      ['h1 cni0', 'h1 routing', 'h1 flannel.7', 'underlay wireguard tunnel', 'h2 flannel.7', 'h2 routing', 'h2 cni0'],
    );
  });

  it('fails when the tunnel has changed the TTL', () => {
    const result = walkOf('vxlan', [bare(64), bare(63), inVxlan(62), bare(62), bare(61)]);
    assert.ok(!result.ok);
    assert.match(result.problems.join('\n'), /h1 VXLAN · UDP · IP: .*TTL 63 → 62, but the same was expected/);
  });
});

describe('buildWalk', () => {
  it('gives every hop with headers, relative time and what proves the steps between', () => {
    const result = buildWalk({ ...facts, sightings: sightings() });
    assert.ok(result.ok);
    const { walk } = result;
    assert.equal(walk.hops.length, steps.length);
    assert.equal(walk.durationUs, 69.5);
    assert.equal(walk.forwarderUs, 67);
    assert.deepEqual(walk.hops[2], {
      node: 'h1c1',
      place: 'eth0',
      space: 'kernel',
      captured: true,
      direction: 'out',
      atUs: 0,
      packet: {
        source: '10.244.1.2',
        destination: '10.244.2.2',
        protocol: 'udp',
        sourcePort: 40000,
        destinationPort: 9000,
        ttl: 64,
        lengthBytes: 35,
        id: 0,
        dontFragment: false,
      },
    });
    assert.equal(walk.hops[6]?.packet?.destinationPort, 8285);
    assert.equal(walk.hops[6]?.inner?.ttl, 62);
    assert.match(walk.hops[3]?.note ?? '', /TTL 64 → 63/);
    assert.match(walk.hops[5]?.note ?? '', /inside a datagram to 192\.168\.77\.2, TTL 63 → 62/);
    assert.equal(walk.hops[5]?.captured, false);
  });

  it('names each hop that was not captured, and concludes nothing from it', () => {
    const partial = sightings();
    partial[4] = undefined;
    partial[8] = undefined;
    const result = buildWalk({ ...facts, sightings: partial });
    assert.deepEqual(result, {
      ok: false,
      problems: ['the packet was not captured on h1 flannel0', 'the packet was not captured on h2 flannel0'],
    });
  });

  it('fails when the forwarder did not count the TTL down, or the packet is not wrapped where it must be', () => {
    const all = sightings();
    all[6] = seen(wrapped(63), 40_000n);
    const ttl = buildWalk({ ...facts, sightings: all });
    assert.ok(!ttl.ok);
    assert.match(ttl.problems.join('\n'), /h1 flanneld: .*TTL 63 → 63, but one less was expected/);
    all[6] = seen(bare(62), 40_000n);
    const plain = buildWalk({ ...facts, sightings: all });
    assert.ok(!plain.ok);
    assert.match(plain.problems.join('\n'), /on h1 eth0 the packet was not inside a datagram/);
  });

  it('fails when the program at the end did not get the payload', () => {
    const result = buildWalk({ ...facts, sightings: sightings(), delivered: false });
    assert.ok(!result.ok);
    assert.match(result.problems.join('\n'), /h2 application/);
  });

  it('has no hops when nothing was captured', () => {
    const result = buildWalk({ ...facts, sightings: steps.map(() => undefined) });
    assert.ok(!result.ok);
    assert.equal(result.problems.length, 4);
  });
});
