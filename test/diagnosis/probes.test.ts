import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Answer, Endpoint } from '../../src/api/schema.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { Overlay } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';

const signal = AbortSignal.timeout(400_000);
const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));

/** Values of a metric of that host’s agent, by its labels. */
async function metric(overlay: Overlay, host: LabHost, name: string): Promise<Map<string, number>> {
  const text = await overlay.ask(host, '/metrics');
  const rows = text.matchAll(new RegExp(`^${name}(?:\\{(.*)\\})? (\\S+)$`, 'gm'));
  return new Map(Array.from(rows, ([, labels = '', value]) => [labels, Number(value)]));
}

/** What that host’s probes say of the others, by their subnets; waits until `fits`. */
async function faults(
  overlay: Overlay,
  host: LabHost,
  fits: (faults: Record<string, string>) => boolean,
): Promise<void> {
  let last: Record<string, string> = {};
  await eventually(`faults of ${host.name} that fit`, async () => {
    const found = [...(await metric(overlay, host, 'weft_probe_fault')).keys()].map((labels) => {
      const [, peer = '', fault = ''] = /peer="(.*?)",fault="(.*?)"/.exec(labels) ?? [];
      return [peer, fault] as const;
    });
    last = Object.fromEntries(found);
    return fits(last) || undefined;
  }).catch((error: unknown) => {
    throw new Error(`${(error as Error).message}; they are ${JSON.stringify(last)}`);
  });
}

// Side by side: most of it is waiting for probes.
describe('background probes', { concurrency: true }, () => {
  for (const type of ['udp', 'vxlan']) {
    describe(`with ${type}`, { concurrency: 1 }, () => {
      let overlay: Overlay;
      before(async () => {
        const netConf = `{"Network":"10.244.0.0/16","Backend":{"Type":"${type}"}}`;
        overlay = await Overlay.create({ hosts: 3, containersPerHost: 1, underlay: 'wire', netConf }, signal);
      });
      after(async () => {
        await overlay?.[Symbol.asyncDispose]();
      });
      const host = (i: number): LabHost => overlay.topology.hosts[i]!;
      const subnet = (i: number): string => formatPrefix4(host(i).network!.subnet);
      const sh = (at: LabHost, command: string) => overlay.topology.exec(at, ['sh', '-c', command]);
      const healthy = () =>
        Promise.all([0, 1, 2].map((i) => faults(overlay, host(i), (found) => Object.keys(found).length === 0)));
      const api = async <E extends Endpoint>(at: LabHost, endpoint: E): Promise<Answer<E>> => {
        const argv = ['socat', '-t', '5', 'STDIO', `UNIX-CONNECT:${join(at.stateDirectory, 'weft.sock')}`];
        const stdin = `GET /api/v1${endpoint} HTTP/1.0\r\nHost: localhost\r\n\r\n`;
        const answer = (await overlay.topology.exec(at, argv, { stdin })).stdout;
        return JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))) as Answer<E>;
      };
      /** What the events of that host say of the path to the other, in order: faults, and `well`. */
      const pathEvents = async (at: LabHost, peer: string): Promise<string[]> => {
        const { events } = await api(at, '/events');
        const about = events.filter(({ kind, subject }) => kind.startsWith('path-') && subject === peer);
        return about.map(({ kind, text }) => (kind === 'path-fault' ? text.split(': ').at(-1)! : 'well'));
      };
      const mtu = type === 'udp' ? 1_472 : 1_450;

      it('measure every peer and find nothing wrong, and no packet of theirs is refused', async () => {
        for (const at of overlay.topology.hosts) {
          await eventually('all peers are measured', async () => {
            const rtt = await metric(overlay, at, 'weft_probe_rtt_seconds');
            const found = await metric(overlay, at, 'weft_probe_path_mtu_bytes');
            return rtt.size === 4 && found.size === 2 ? [rtt, found] : undefined;
          }).then(([rtt, found]) => {
            for (const value of rtt!.values()) assert.ok(value > 0 && value < 5);
            assert.deepEqual([...found!.values()], [mtu, mtu]);
          });
        }
        await healthy();
        const { peers } = await api(host(0), '/peers');
        assert.equal(peers.length, 2);
        for (const { probe } of peers) {
          assert.ok(probe!.rttMs! > 0 && probe!.lossRatio !== 1 && probe!.problem === undefined, JSON.stringify(probe));
          assert.ok(Math.abs(Date.now() - probe!.lastAnswerAtMs!) < 60_000);
        }
        for (const at of overlay.topology.hosts) {
          assert.deepEqual(await metric(overlay, at, 'weft_refused_senders'), new Map());
          const dropped = await metric(overlay, at, 'weft_dropped_packets_total');
          assert.deepEqual(
            [...dropped.keys()].filter((labels) => !labels.includes('none')),
            [],
          );
        }
      });

      it('tell a silent middlebox, with what passes', async () => {
        await sh(
          host(1),
          'nft add table netdev t && nft "add chain netdev t c { type filter hook ingress device eth0 priority 0; }" && nft add rule netdev t c meta length gt 1314 drop',
        );
        await faults(
          overlay,
          host(0),
          (found) => found[subnet(1)] === 'mtu-blackhole' && found[subnet(2)] === undefined,
        );
        const found = await eventually('what passes is found', async () => {
          const value = (await metric(overlay, host(0), 'weft_probe_path_mtu_bytes')).get(`peer="${subnet(1)}"`);
          return value !== undefined && value < mtu ? value : undefined;
        });
        // The frame, without its Ethernet header, in front of the inner packet 20 + 8, and with VXLAN 8 + 14 more.
        const passes = 1_300 - (type === 'udp' ? 28 : 50);
        assert.ok(found >= passes - 2 && found <= passes + 14, `${found} for ${passes}`);
        await sh(host(1), 'nft delete table netdev t');
        await healthy();
      });

      it('tell checksums that a device spoils', async () => {
        const port = type === 'udp' ? 8285 : 8472;
        // In the inner UDP header: after the outer one, with VXLAN its header and Ethernet, an IPv4 header, and three fields.
        const bits = 8 * (8 + (type === 'udp' ? 0 : 8 + 14) + 20 + 6);
        const inner = 8 * (8 + (type === 'udp' ? 0 : 8 + 14) + 9);
        await sh(
          host(0),
          `nft add table netdev t && nft "add chain netdev t c { type filter hook egress device eth0 priority 0; }" && nft add rule netdev t c ip daddr ${formatIpv4(host(1).address)} udp dport ${port} @th,${inner},8 17 @th,${bits},16 != 0 @th,${bits},16 set 0xdead`,
        );
        await faults(
          overlay,
          host(0),
          (found) => found[subnet(1)] === 'checksum-offload' && found[subnet(2)] === undefined,
        );
        await sh(host(0), 'nft delete table netdev t');
        await healthy();
      });

      it('tell a firewall that is closed in one direction from a host that is away', async () => {
        await sh(
          host(1),
          `nft add table inet t && nft "add chain inet t c { type filter hook input priority 0; }" && nft add rule inet t c ip saddr ${formatIpv4(host(0).address)} udp dport { 8285, 8472 } drop`,
        );
        await faults(overlay, host(0), (found) => found[subnet(1)] === 'one-way' && found[subnet(2)] === undefined);
        await faults(
          overlay,
          host(1),
          (found) => found[subnet(0)] === 'tunnel-blocked' && found[subnet(2)] === undefined,
        );
        await sh(host(1), 'nft delete table inet t');
        await healthy();
        await sh(host(2), 'ip link set eth0 down');
        await faults(
          overlay,
          host(0),
          (found) => found[subnet(2)] === 'peer-unreachable' && found[subnet(1)] === undefined,
        );
        await sh(host(2), 'ip link set eth0 up; ip route replace default via 192.168.77.254');
        await healthy();
        // What was lost in an outage is no loss of a path that is well again, and no fault of packets of a kind.
        const told = await pathEvents(host(0), subnet(2));
        assert.equal(told.at(-1), 'well', told.join());
        const outage = told.slice(told.lastIndexOf('well', -2) + 1, -1);
        assert.ok(outage.includes('peer-unreachable'), told.join());
        assert.ok(
          outage.every((fault) => /^(?:peer-unreachable|tunnel-blocked|one-way|no-route|rejected)$/.test(fault)),
          told.join(),
        );
        const [cli, socket] = [WEFT, join(host(0).stateDirectory, 'weft.sock')];
        await overlay.topology.exec(host(0), [process.execPath, '--no-warnings', cli, 'status', '--socket', socket]);
      });

      it('are not sent with --probe=off, and peers without an agent that probes are measured all the same', async () => {
        await overlay.agents[2]!.child[Symbol.asyncDispose]();
        await overlay.startAgent(host(2), signal, ['--probe=off']);
        assert.deepEqual(await metric(overlay, host(2), 'weft_probes_total'), new Map());
        await eventually('the others measure it', async () =>
          (await metric(overlay, host(0), 'weft_probe_rtt_seconds')).size === 4 ? true : undefined,
        );
        await healthy();
      });
    });
  }
});
