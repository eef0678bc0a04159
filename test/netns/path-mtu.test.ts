import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sendFile } from '../../src/lab/checks.ts';
import { type LabContainer, type LabHost, Topology } from '../../src/lab/topology.ts';
import { addressOf, ping } from './overlay.ts';
import { attach, OVERHEAD, Tunnel } from './tunnel.ts';
import { eventually, LineFeed } from './waiting.ts';

const MTU = 1500 - OVERHEAD;
const NARROW_MTU = 1400;
const PATH_MTU = NARROW_MTU - OVERHEAD;
const ICMP_HEADERS = 28;
const FILE_BYTES = 16 * 1024 * 1024;
const FAR_ADDRESS = '192.168.78.2';

/**
 * h1 ─1500─ switch ─1400─ h3 ─1500─ h2: two routers with a narrow link between them, so that neither end can see from its
 * own devices how much the path takes.
 */
async function narrowThePath(topology: Topology): Promise<void> {
  const [near, far, router] = topology.hosts as [LabHost, LabHost, LabHost];
  const { switchNamespace } = topology.plan;
  await topology.ipBatch(
    router,
    [
      'addr flush dev eth0',
      `link add mid1 mtu ${NARROW_MTU} type veth peer name mid0 mtu ${NARROW_MTU} netns ${switchNamespace}`,
      `link add far0 mtu 1500 type veth peer name far1 mtu 1500 netns ${far.namespace}`,
      'addr add 192.168.79.2/30 dev mid1',
      'addr add 192.168.78.254/24 dev far0',
      'link set mid1 up',
      'link set far0 up',
      'route add 192.168.77.0/24 via 192.168.79.1',
      '',
    ].join('\n'),
  );
  await topology.ipBatch(
    switchNamespace,
    'addr add 192.168.79.1/30 dev mid0\nlink set mid0 up\nroute add 192.168.78.0/24 via 192.168.79.2\n',
  );
  await topology.exec(switchNamespace, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']);
  await topology.ipBatch(
    far,
    `addr flush dev eth0\naddr add ${FAR_ADDRESS}/24 dev far1\nlink set far1 up\nroute add default via 192.168.78.254\n`,
  );
  const { ok, output } = await ping(topology, near, FAR_ADDRESS);
  assert.ok(ok, output);
}

describe('an underlay path that takes less than the devices at its ends', () => {
  let topology: Topology;
  let tunnel: Tunnel;
  let near: LabContainer;
  let far: LabContainer;

  before(async () => {
    topology = await Topology.create({ hosts: 3, containersPerHost: 1, underlay: 'wire', purpose: 'test' });
    await narrowThePath(topology);
    const [first, second] = topology.hosts as [LabHost, LabHost];
    tunnel = await Tunnel.start(topology, first, { peers: [{ host: second, address: FAR_ADDRESS }] });
    await Tunnel.start(topology, second, { peers: [{ host: first }], listen: FAR_ADDRESS });
    for (const host of [first, second]) await attach(topology, host, MTU);
    [near, far] = [first.containers[0]!, second.containers[0]!];
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('tells a container that its packet is too long, and how long it may be', async () => {
    const long = String(MTU - ICMP_HEADERS);
    // The router's word about the first packet comes after that packet was sent, so the first one is simply lost.
    const told = await eventually('the container is told', async () => {
      const { ok, output } = await ping(topology, near, addressOf(far), '-M', 'do', '-s', long, '-W', '1');
      assert.ok(!ok, output);
      return /^From 10\.244\.1\.0 .*Frag(mentation)? needed and DF set \(mtu = (\d+)\)$/im.exec(output)?.[2];
    });
    assert.equal(Number(told), PATH_MTU);
    assert.ok(((await tunnel.counters()).peers[0]!.sent.drops['too-big'] ?? 0) >= 1);
    const fits = await ping(topology, near, addressOf(far), '-M', 'do', '-s', String(PATH_MTU - ICMP_HEADERS));
    assert.ok(fits.ok, fits.output);
  });

  it('lets TCP find the size, both ways', async () => {
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      // What the receiver knows of the path would already limit the segments that it asks for.
      await topology.exec(to, ['ip', 'route', 'flush', 'cache']);
      const { bytes, receivedBytes, sha256, receivedSha256 } = await sendFile(topology, from, to, FILE_BYTES);
      assert.deepEqual([receivedBytes, receivedSha256], [bytes, sha256]);
      const { stdout } = await topology.exec(from, ['ip', 'route', 'get', addressOf(to)]);
      assert.match(stdout, new RegExp(`\\bmtu ${PATH_MTU}\\b`), 'the sender has learned the path MTU');
    }
  });

  it('carries longer UDP without DF, in fragments of the outer packet', async () => {
    // Sockets made from now on do not set DF.
    for (const container of [near, far]) {
      await topology.exec(container, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_no_pmtu_disc']);
    }
    await using _ = await topology.start(far, ['socat', 'UDP4-LISTEN:7001,fork', 'EXEC:cat'], { stdout: 'ignore' });
    await eventually('the echo server listens', async () => {
      const { stdout } = await topology.exec(far, ['ss', '-Huln', 'sport = :7001']);
      return stdout.includes('7001') || undefined;
    });
    await using client = await topology.start(near, ['socat', 'STDIO', `UDP4:${addressOf(far)}:7001`], {
      stdin: 'pipe',
    });
    const answers = new LineFeed(client.stdout!);
    for (const length of [100, PATH_MTU - 28, MTU - 28, 4000]) {
      const text = `${length}`.padEnd(length - 1, 'x');
      client.stdin!.write(`${text}\n`);
      await answers.find((line) => line === text);
    }
  });
});
