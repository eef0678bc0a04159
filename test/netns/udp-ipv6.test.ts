import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { LeaseStore } from '../../src/subnet/local/lease-store.ts';
import { payloadOf } from '../fakes/packets.ts';
import { address6, udp6Packet } from '../fakes/packets6.ts';
import { Flanneld, HEALTHZ_PORT } from './flanneld.ts';
import { ping } from './overlay.ts';
import {
  addressIn,
  attachStacked,
  carriedByFastPath,
  everyFamilyAnswers,
  type StackedContainer,
} from './stacked-overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

const NET_CONF = '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"udp"}}';
const START_MS = 150_000;
const PORT = 8285;
const LISTENER_PORT = 7000;
const FILE_BYTES = 8 * 1024 * 1024;

/**
 * Two hosts with real agents and containers of both families. The third is a flannel host as etcd has recorded it
 * (test/golden/etcd-udp): a lease of both families, as flannel takes one, without data; its port is read by this test.
 */
describe('udp with IPv6 inside', () => {
  let topology: Topology;
  let agents: Flanneld[];
  let containers: StackedContainer[];
  let flannel: LabHost;
  /** What comes for flannel, as socat shows it: the first byte of each datagram says which IP it is. */
  let forFlannel: LineFeed;

  /** By each agent until all were there: a probe that comes before flannel0 is up cannot be written to it. */
  let refusedAtFirst: readonly number[];

  /** Packets that each agent could not pass on for their form, or that its kernel did not take. */
  const refused = (): Promise<number[]> =>
    Promise.all(
      agents.map(async (agent) => {
        const { body } = await agent.get('/metrics');
        const reasons = 'reason="(?:unsupported-offload|tun-write-failed|malformed)"';
        const counts = body.matchAll(new RegExp(`^weft_dropped_packets_total\\{.*${reasons}\\} (\\d+)$`, 'gm'));
        return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
      }),
    );

  const hostAddress = (host: LabHost): string => `192.168.77.${host.index + 1}`;

  before(async () => {
    const { signal } = new AbortController();
    topology = await Topology.create({ hosts: 3, containersPerHost: 1, purpose: 'test' }, signal);
    const store = await openSubnetStore('local', topology, NET_CONF, signal);
    const [first, second, third] = topology.hosts as [LabHost, LabHost, LabHost];
    flannel = third;
    for (const host of topology.hosts) {
      await topology.ipBatch(host, `addr add fd77::${host.index + 1}/64 dev eth0 nodad\n`, signal);
      await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1'], { signal });
    }
    agents = [];
    for (const host of [first, second]) {
      const flags = [...store.agentFlags(host), '--iface=eth0', '--ip-masq', `--healthz-port=${HEALTHZ_PORT}`];
      const agent = await Flanneld.start(topology, host, { flags });
      await agent.logged(/^flannel is ready$/, 0, START_MS);
      agents.push(agent);
    }
    using leases = LeaseStore.open(join(topology.stateDirectory, 'subnets.db'));
    const value = `{"PublicIP":"${hostAddress(third)}","PublicIPv6":null}`;
    const key = '10.244.250.0-24&fd10:0:0:fa::-64';
    leases.transact((transaction) => transaction.put({ key, value, expiresAtMs: Date.now() + 86_400_000 }));
    const listen = `UDP4-RECV:${PORT},bind=${hostAddress(third)}`;
    const listener = await topology.start(third, ['socat', '-x', '-u', listen, '/dev/null'], { stderr: 'pipe' });
    forFlannel = new LineFeed(listener.stderr!);
    containers = [await attachStacked(topology, first, signal), await attachStacked(topology, second, signal)];
    await everyFamilyAnswers(topology, containers);
    refusedAtFirst = await refused();
  });
  after(() => topology?.[Symbol.asyncDispose]());

  const v4 = (container: StackedContainer): string => addressIn(4, container);
  const v6 = (container: StackedContainer): string => addressIn(6, container);
  const base6 = (container: StackedContainer): string => v6(container).replace(/2$/, '');

  /** How many packets agent 0 has dropped for that reason. */
  async function dropped(reason: string): Promise<number> {
    const { body } = await agents[0]!.get('/metrics');
    const counts = body.matchAll(
      new RegExp(`^weft_dropped_packets_total\\{[^}]*reason="${reason}"[^}]*\\} (\\d+)$`, 'gm'),
    );
    return [...counts].reduce((sum, [, count]) => sum + Number(count), 0);
  }

  it('lays both families on flannel0, and publishes that it takes IPv6', async () => {
    const { stdout: addresses } = await topology.exec(containers[0]!.host, ['ip', '-o', 'addr', 'show', 'dev', 'flannel0', 'scope', 'global']); // biome-ignore format: one line
    assert.match(addresses, new RegExp(`inet6 ${base6(containers[0]!)}/128`));
    const { stdout: routes } = await topology.exec(containers[0]!.host, [
      'ip',
      '-6',
      'route',
      'show',
      'dev',
      'flannel0',
    ]);
    assert.match(routes, /^fd10::\/48 proto 241 metric 1024/m);
    using leases = LeaseStore.open(join(topology.stateDirectory, 'subnets.db'));
    const own = leases.rows().find(({ value }) => value.includes(hostAddress(containers[0]!.host)));
    assert.match(
      own?.value ?? '',
      /"PublicIPv6":"fd77::1","BackendData":\{"PayloadVersions":\[4,6\]\},"BackendV6Data":\{"PayloadVersions":\[4,6\]\}\}$/,
    );
    const env = readFileSync(join(containers[0]!.host.stateDirectory, 'subnet.env'), 'utf8');
    assert.match(env, /^FLANNEL_IPV6_NETWORK=fd10::\/48$/m);
    assert.match(env, /^FLANNEL_MTU=1472$/m);
  });

  it('says in the log that packets take the fast path', async () => {
    await agents[0]!.logged(/^Packets take the fast path in the kernel through eth0, /);
  });

  for (const family of [4, 6] as const) {
    it(`TCP over IPv${family}: files arrive whole, both ways, past the forwarders`, async () => {
      // A forwarder that carried the file would read some hundred super-packets, and receive as many messages.
      await carriedByFastPath(topology, agents, containers, family, {
        bytes: FILE_BYTES,
        limits: { txReads: 60, rxReceives: 60 },
      });
    });

    it(`UDP over IPv${family}: datagrams come back, also those that are sent in fragments`, async () => {
      const [from, to] = containers as [StackedContainer, StackedContainer];
      const target = family === 4 ? v4(to) : `[${v6(to)}]`;
      await using _echo = await topology.start(to.namespace, [
        'socat',
        `UDP${family}-LISTEN:${LISTENER_PORT},fork`,
        'PIPE',
      ]);
      for (const length of [1, 1_000, 4_000]) {
        const text = Buffer.from(payloadOf(length)).toString('hex').slice(0, length);
        await eventually(`${length} bytes come back`, async () => {
          const argv = ['socat', '-t', '2', '-b', '8192', 'STDIO', `UDP${family}:${target}:${LISTENER_PORT}`];
          const { stdout } = await topology.exec(from.namespace, argv, { stdin: text, okExitCodes: 'any' });
          return stdout === text || undefined;
        });
      }
    });
  }

  it('no packet was refused by a kernel or for its form', async () => {
    assert.deepEqual(await refused(), refusedAtFirst);
  });

  it('tells the sender that no host has an address', async () => {
    const { ok, output } = await ping(topology, containers[0]!, 'fd10:0:0:99::5');
    assert.ok(!ok);
    assert.match(
      output,
      new RegExp(`^From ${base6(containers[0]!)} icmp_seq=1 Destination unreachable: No route$`, 'm'),
    );
  });

  it('tells the sender when the hop limit is used up, at every hop', async () => {
    const [from, to] = containers as [StackedContainer, StackedContainer];
    const hops: string[] = [];
    for (let limit = 1; limit <= 8; limit++) {
      const { ok, output } = await ping(topology, from, v6(to), '-t', String(limit));
      const told = /^From (\S+) icmp_seq=1 Time exceeded: Hop limit$/m.exec(output)?.[1];
      assert.ok(ok || told !== undefined, `hop limit ${limit}: ${output}`);
      hops.push(told ?? v6(to));
      if (ok) break;
    }
    // The kernel of the first host, both ends of the overlay, the kernel of the second host.
    const gateway = (container: StackedContainer): string => v6(container).replace(/2$/, '1');
    assert.deepEqual(hops.slice(0, 3), [gateway(from), base6(from), base6(to)]);
    assert.equal(hops.length, 5, hops.join(', '));
    assert.equal(hops[4], v6(to));
  });

  it('tells the sender what is too big for the path, and carries what is not', async () => {
    const [from, to] = containers as [StackedContainer, StackedContainer];
    const way = `${hostAddress(to.host)} dev eth0`;
    // Locked: what the forwarder’s socket may send, and the kernel’s routing for packets that it forwards, are then one.
    await topology.ipBatch(from.host, `route add ${way} mtu lock 1400\n`);
    try {
      const told = await eventually('the container is told', async () => {
        const { output } = await ping(topology, from, v6(to), '-M', 'do', '-s', String(1_472 - 48), '-W', '1');
        return /^From (\S+) icmp_seq=1 Packet too big: mtu=(\d+)$/m.exec(output) ?? undefined;
      });
      assert.deepEqual(told.slice(1), [base6(from), '1372']);
      const fits = await ping(topology, from, v6(to), '-M', 'do', '-s', String(1_372 - 48));
      assert.ok(fits.ok, fits.output);
    } finally {
      await topology.ipBatch(from.host, `route del ${way}\n`);
    }
  });

  it('sends a flannel host IPv4 alone, says so in the log, and tells senders of IPv6 packets', async () => {
    const line = await agents[0]!.logged(/^Cannot reach 10\.244\.250\.0\/24&fd10:0:0:fa::\/64 in one family: /);
    assert.match(line, /no IPv6 packet is sent to it: nothing in its lease says that its udp backend takes them/);
    const refused = await ping(topology, containers[0]!, 'fd10:0:0:fa::5');
    assert.match(refused.output, /Destination unreachable: No route/);
    await ping(topology, containers[0]!, '10.244.250.5', '-W', '1', '-s', '40');
    const isIpv4 = (text: string): boolean => /^ 45 00 00 44 /.test(text);
    await forFlannel.find(isIpv4);
    const texts = forFlannel.seen.map(({ text }) => text);
    const datagrams = texts.filter((_, index) => / length=\d+ from=\d+/.test(texts[index - 1] ?? ''));
    assert.ok(datagrams.length > 0);
    for (const bytes of datagrams) assert.match(bytes, /^ 45 /);
  });

  it('refuses a source that is not the sender’s, and a destination that is not its own', async () => {
    const [receiver, other] = containers as [StackedContainer, StackedContainer];
    const listener = await topology.start(receiver.namespace, [
      'socat',
      '-u',
      `UDP6-RECV:${LISTENER_PORT + 1}`,
      'STDOUT',
    ]);
    const arrivals = new LineFeed(listener.stdout!);
    await eventually('the listener is there', async () => {
      const { stdout } = await topology.exec(receiver.namespace, ['ss', '-Huln', `sport = :${LISTENER_PORT + 1}`]);
      return stdout !== '' || undefined;
    });
    /** From the flannel host, which is a peer, whatever its port. */
    const send = async (source: string, destination: string, text: string): Promise<void> => {
      const packet = udp6Packet({
        ip: { source: address6(source), destination: address6(destination) },
        ...{ sourcePort: 5_000, destinationPort: LISTENER_PORT + 1, payload: Buffer.from(`${text}\n`) },
      });
      const target = `UDP4-SENDTO:${hostAddress(receiver.host)}:${PORT},bind=${hostAddress(flannel)}`;
      await topology.exec(flannel, ['socat', '-u', 'STDIN', target], { stdin: packet });
    };
    const before = await Promise.all(['spoofed-source', 'foreign-source', 'foreign-destination'].map(dropped));
    await send(v6(other), v6(receiver), 'as another host’s container');
    await send('fd10:0:0:fa::9', v6(receiver), 'as a container of a subnet whose packets it is not to send');
    await send(`fd77::${receiver.host.index + 1}`, v6(receiver), 'as the receiver’s own host');
    await send('::1', v6(receiver), 'as loopback');
    await send('2001:db8::9', v6(other), 'through this host');
    await send('2001:db8::9', '::1', 'to loopback');
    await send('2001:db8::9', v6(receiver), 'as anybody else');
    await arrivals.find((text) => text === 'as anybody else');
    assert.deepEqual(
      arrivals.seen.map(({ text }) => text),
      ['as anybody else'],
    );
    const after = await Promise.all(['spoofed-source', 'foreign-source', 'foreign-destination'].map(dropped));
    assert.deepEqual(
      after.map((count, index) => count - before[index]!),
      [3, 1, 2],
    );
    await agents[0]!.logged(/\(spoofed-source\): their source fd10:/);
  });
});
