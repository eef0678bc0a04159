import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Topology } from '../../src/lab/topology.ts';
import { addressOf, ping } from './overlay.ts';
import { attach, OVERHEAD, Tunnel } from './tunnel.ts';
import { PATIENCE_MS } from './waiting.ts';

const MTU = 1500 - OVERHEAD;

describe('what a sender is told', () => {
  let topology: Topology;
  const tunnels: Tunnel[] = [];

  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 1, purpose: 'test' });
    for (const host of topology.hosts) {
      tunnels.push(await Tunnel.start(topology, host, { peers: [{ host: topology.hosts[1 - host.index]! }] }));
      await attach(topology, host, MTU);
    }
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('network unreachable, for a subnet of the network that nobody has', async () => {
    const { ok, output } = await ping(topology, topology.containers[0]!, '10.244.77.5');
    assert.ok(!ok);
    assert.match(output, /^From 10\.244\.1\.0 icmp_seq=1 Destination Net Unreachable$/m);
    const { nobody } = await tunnels[0]!.counters();
    assert.equal(nobody.sent.drops['no-route'], 1);
  });

  it('fails a TCP connection there at once, instead of letting it time out', async () => {
    const argv = ['socat', '-u', '/dev/null', 'TCP4:10.244.77.5:80'];
    const { stderr, exitCode } = await topology.exec(topology.containers[0]!, argv, {
      okExitCodes: 'any',
      timeoutMs: PATIENCE_MS,
    });
    assert.equal(exitCode, 1);
    assert.match(stderr, /Network is unreachable|No route to host/);
  });

  it('time exceeded, by every hop on the way', async () => {
    const [from, to] = topology.containers;
    const hops: string[] = [];
    for (let ttl = 1; ttl <= 8; ttl++) {
      const { ok, output } = await ping(topology, from!, addressOf(to!), '-t', String(ttl));
      const told = /^From (\S+) icmp_seq=1 Time to live exceeded$/m.exec(output);
      assert.ok(ok || told, `TTL ${ttl}: ${output}`);
      hops.push(told?.[1] ?? addressOf(to!));
      if (ok) break;
    }
    // The kernel of the first host, both ends of the overlay as flannel counts them, the kernel of the second host.
    assert.deepEqual(hops, ['10.244.1.1', '10.244.1.0', '10.244.2.0', '10.244.2.0', addressOf(to!)]);
    const [first, second] = await Promise.all(tunnels.map((tunnel) => tunnel.counters()));
    assert.equal(first!.peers[0]!.sent.drops['ttl-exceeded'], 1);
    assert.equal(second!.peers[0]!.received.drops['ttl-exceeded'], 1);
  });

  it('is told on a host as well, not only in a container', async () => {
    const [host] = topology.hosts;
    const { output } = await ping(topology, host!, '10.244.77.5');
    assert.match(output, /Destination Net Unreachable/);
  });
});
