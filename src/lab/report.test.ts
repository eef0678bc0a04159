import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import type { LabResult } from './lab-result.ts';
import { renderReport, renderStage, WIDE_COLUMNS } from './report.ts';
import { paint } from './text.ts';
import type { Hop, Walk } from './walk.ts';

const packet = (source: string, destination: string, ttl: number) => ({
  source,
  destination,
  protocol: 'udp' as const,
  sourcePort: 40000,
  destinationPort: 9,
  ttl,
  lengthBytes: 46,
  id: 1,
  dontFragment: true,
});
const inner = packet('10.244.100.2', '10.244.200.2', 62);
const outer = { ...packet('192.168.77.1', '192.168.77.2', 64), sourcePort: 8285, destinationPort: 8285 };
const captured = (node: string, place: string, extra: Partial<Hop>): Hop => ({
  node,
  place,
  space: 'kernel',
  captured: true,
  direction: 'out',
  atUs: 1.5,
  ...extra,
});
const app = (node: string): Hop => ({
  node,
  place: 'application',
  space: 'user',
  captured: false,
  note: 'a note that is long enough to be broken into more than one line of a column',
});

const walk: Walk = {
  title: 'container to container, flannel0',
  probe: '"token"',
  from: 'h1c1',
  to: 'h2c1',
  durationUs: 1234.5,
  forwarderUs: 567.8,
  hops: [
    app('h1c1'),
    captured('h1c1', 'eth0', { packet: inner }),
    { ...app('h1'), place: 'flanneld' },
    captured('h1', 'eth0', { packet: outer, inner }),
    captured('underlay', 'port1', { packet: outer, inner, space: 'physical', direction: 'in' }),
    captured('h2', 'eth0', { packet: outer, inner, direction: 'in' }),
    app('h2c1'),
  ],
};
const nativeWalk: Walk = {
  ...walk,
  title: 'host to host, native socket',
  from: 'h1',
  to: 'h2',
  forwarderUs: 0,
  hops: [
    app('h1'),
    captured('h1', 'eth0', { packet: outer }),
    captured('underlay', 'port1', { packet: outer, space: 'physical', direction: 'in' }),
    captured('h2', 'eth0', { packet: outer, direction: 'in' }),
    app('h2'),
  ],
};

function resultOf(hostCount: number, change: Partial<LabResult> = {}): LabResult {
  const hosts = Array.from({ length: hostCount }, (_, i) => ({
    name: `h${i + 1}`,
    namespace: `weft-x-h${i + 1}`,
    address: `192.168.77.${i + 1}`,
    subnet: `10.244.${i + 1}.0/24`,
    mtuBytes: 1472,
    agent: { pid: 100 + i, readyMs: 900, memoryMiB: 60, logPath: `/run/weft-lab/x/h${i + 1}/flanneld.log` },
    containers: [{ name: `h${i + 1}c1`, namespace: `weft-x-h${i + 1}c1`, address: `10.244.${i + 1}.2` }],
  }));
  const pairs = hosts.flatMap((a, i) =>
    hosts.flatMap((b, j) =>
      a === b
        ? []
        : [
            {
              from: `${a.name}c1`,
              to: `${b.name}c1`,
              sent: 1,
              received: 1,
              rttMs: { min: 0.2, median: 0.2 + (i + j) / 100, max: 1 },
            },
          ],
    ),
  );
  return {
    ok: true,
    id: 'x',
    subnetManager: 'local',
    store: { kind: 'local', endpoint: '/run/weft-lab/abc123/subnets.db', version: null, commands: [] },
    backend: 'udp',
    overlay: { device: 'flannel0', kind: 'tun' },
    network: '10.244.0.0/16',
    kernel: '6.1',
    node: 'v26.0.0',
    hosts,
    stages: [],
    pings: { sent: pairs.length, received: pairs.length, rttMs: { min: 0.2, p50: 0.3, p99: 0.4, max: 1 }, pairs },
    mtuPing: { packetBytes: 1472, pairs: [], largerRefused: true },
    throughputGbps: 5.25,
    throughput: { from: 'h1c1', to: 'h2c1', seconds: 3, gbps: 5.25, retransmits: 7, intervalsGbps: [1, 5, 10] },
    fileHashOk: true,
    file: null,
    leases: hosts.map((host) => ({
      host: host.name,
      subnet: host.subnet,
      publicIp: host.address,
      expiresAt: '2026-01-02T03:04:05.678Z',
    })),
    routes: hosts.map((host) => ({
      host: host.name,
      routes: [{ destination: '10.244.0.0/16', gateway: null, device: 'flannel0', protocol: '241', source: null }],
    })),
    walk,
    nativeWalk,
    failures: [],
    durationMs: 7000,
    page: null,
    kept: false,
    ...change,
  };
}

const plain = (result: LabResult, width = WIDE_COLUMNS) => renderReport(result, { colour: false, width });

describe('renderReport', () => {
  it('has no control characters when plain, and the same text when coloured', () => {
    const text = plain(resultOf(3));
    assert.equal(stripVTControlCharacters(text), text);
    const coloured = renderReport(resultOf(3), { colour: true, width: WIDE_COLUMNS });
    assert.notEqual(coloured, text);
    const trimmed = stripVTControlCharacters(coloured)
      .split('\n')
      .map((line) => line.trimEnd())
      .join('\n');
    assert.equal(trimmed, text);
  });

  it('shows the walks beside each other where there is room, one hop of both in a line', () => {
    const lines = plain(resultOf(2)).split('\n');
    assert.ok(lines.some((line) => /h1c1 → h2c1 .*h1 → h2 /.test(line)));
    assert.equal(lines.filter((line) => /eth0 ▸ out.*eth0 ▸ out/.test(line)).length, 1);
    assert.equal(lines.filter((line) => /port1 ◂ in.*port1 ◂ in/.test(line)).length, 1);
    assert.ok(
      lines.every((line) => [...line].length <= WIDE_COLUMNS),
      'nothing is wider than the terminal',
    );
  });

  it('shows them one after the other on a narrow terminal, every hop of both', () => {
    const text = plain(resultOf(2), 80);
    const count = (part: string) => text.split(part).length - 1;
    assert.equal(count('eth0 ▸ out'), 3);
    assert.equal(count('application'), 4);
    assert.equal(count('└ 10.244.100.2:40000 → 10.244.200.2:9 ttl 62'), 3);
    const walkLines = text.split('\n').filter((line) => line.includes('┃'));
    assert.ok(walkLines.every((line) => [...line].length <= 80));
  });

  it('marks lost packets between hosts, in numbers and in shades', () => {
    for (const hosts of [3, 20]) {
      const whole = resultOf(hosts);
      assert.doesNotMatch(plain(whole), / lost|!!/);
      const pairs = whole.pings!.pairs.map((pair, i) => (i === 1 ? { ...pair, received: 0, rttMs: null } : pair));
      assert.match(plain({ ...whole, pings: { ...whole.pings!, pairs } }), / lost|!!/);
    }
  });

  it('lists every failure, with all lines of a log', () => {
    const text = plain(
      resultOf(2, { ok: false, failures: ['agents: it ended\n    last words\n[WEFT_X]', 'pings: lost'] }),
    );
    assert.match(text, /2 failures/);
    for (const part of ['agents: it ended', 'last words', '[WEFT_X]', 'pings: lost'])
      assert.ok(text.includes(part), part);
    assert.doesNotMatch(text, /everything passed/);
  });

  it('shows what there is when the run ended early', () => {
    const nothing = {
      pings: null,
      mtuPing: null,
      throughput: null,
      throughputGbps: null,
      fileHashOk: null,
      leases: null,
    };
    const early = resultOf(2, {
      ...nothing,
      routes: null,
      walk: null,
      nativeWalk: null,
      ok: false,
      failures: ['x: y'],
    });
    assert.match(plain(early), /1 failure in 7\.0 s/);
  });

  it('prints commands for a kept lab, and how to remove it', () => {
    const text = plain(resultOf(2, { kept: true }));
    assert.match(text, /ip netns exec weft-x-h1c1 ping 10\.244\.2\.2/);
    assert.match(text, /weft lab down x/);
    assert.match(text, /tcpdump -ni flannel0/);
    assert.match(text, /route delete 10\.244\.0\.0\/16 dev flannel0/);
    assert.doesNotMatch(plain(resultOf(2)), /weft lab down/);
  });
});

describe('routes of a backend with one for each host', () => {
  it('are marked with whose containers they lead to, and can be tried', () => {
    const route = {
      destination: '10.244.2.0/24',
      gateway: '10.244.2.0',
      device: 'flannel.1',
      protocol: '241',
      source: null,
    };
    const local = { ...route, destination: '10.244.1.0/24', gateway: null, device: 'cni0', protocol: 'kernel' };
    const overlay = { device: 'flannel.1', kind: 'vxlan' };
    const text = plain(resultOf(2, { kept: true, overlay, routes: [{ host: 'h1', routes: [local, route] }] }));
    assert.match(text, /10\.244\.2\.0\/24 via 10\.244\.2\.0 dev flannel\.1 proto 241 +← the containers of h2/);
    assert.doesNotMatch(text, /dev cni0 proto kernel +←/);
    assert.match(text, /route delete 10\.244\.2\.0\/24 dev flannel\.1/);
  });
});

describe('renderStage', () => {
  it('is one line, whatever the message', () => {
    const stage = {
      name: 'agents',
      title: 'agents',
      ok: false,
      durationMs: 1234,
      summary: 'it ended\n  with a log',
    } as const;
    assert.equal(paint(renderStage(stage), false), '  ✘ agents                    1.23 s   it ended');
  });
});
