import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { decodeFrame } from '../../src/capture/decode.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { Capture } from '../../src/lab/capture.ts';
import { Topology } from '../../src/lab/topology.ts';
import { walkHosts } from '../../src/lab/walk-probe.ts';

describe('captures and walks between hosts', () => {
  let topology: Topology;
  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 0, purpose: 'test' });
  });
  after(() => topology[Symbol.asyncDispose]());

  it('captures what crosses a device from the moment it is started', async () => {
    const [a, b] = [topology.hosts[0]!, topology.hosts[1]!];
    await using capture = await Capture.start(topology, b, 'eth0', { filter: 'icmp', snapBytes: 128 });
    await topology.exec(a, ['ping', '-n', '-q', '-c', '1', '-W', '2', '-p', '77656674', formatIpv4(b.address)]);
    const request = await capture.waitFor((frame) => {
      const packet = decodeFrame(frame.linkType, frame.bytes);
      return packet?.transport.kind === 'icmp' && packet.transport.type === 8 ? packet : undefined;
    });
    assert.equal(request.ip.source, a.address);
    assert.equal(request.ip.ttl, 64);
    assert.match(Buffer.from(request.payload).toString('latin1'), /weftweft/);
  });

  it('says why it cannot capture', async () => {
    await assert.rejects(Capture.start(topology, topology.hosts[0]!, 'nosuch0'), {
      code: 'WEFT_LAB_FAILED',
      message: /nosuch0/,
    });
  });

  it('shows the way of a datagram of a native socket', async () => {
    const result = await walkHosts(topology, { from: topology.hosts[0]!, to: topology.hosts[1]! });
    assert.ok(result.ok, JSON.stringify(result));
    const { hops } = result.walk;
    assert.deepEqual(
      hops.map((hop) => `${hop.space} ${hop.node} ${hop.place}`),
      [
        'user h1 application',
        'kernel h1 socket · UDP · IP',
        'kernel h1 eth0',
        'physical underlay port1',
        'physical underlay port2',
        'kernel h2 eth0',
        'kernel h2 IP · UDP · socket',
        'user h2 application',
      ],
    );
    const times = hops.filter((hop) => hop.captured).map((hop) => hop.atUs ?? Number.NaN);
    assert.deepEqual(
      times,
      times.toSorted((x, y) => x - y),
    );
    for (const hop of hops.filter((one) => one.captured)) {
      assert.equal(hop.packet?.source, '192.168.77.1');
      assert.equal(hop.packet.destination, '192.168.77.2');
      assert.equal(hop.packet.ttl, 64);
    }
  });

  it('names the hops that a lost datagram did not reach', async () => {
    const [a, b] = [topology.hosts[0]!, topology.hosts[1]!];
    await topology.ipBatch(topology.plan.switchNamespace, `link set ${b.switchPort} nomaster\n`);
    const result = await walkHosts(topology, { from: a, to: b, arrivalMs: 700 });
    await topology.ipBatch(topology.plan.switchNamespace, `link set ${b.switchPort} master br0\n`);
    assert.deepEqual(result, {
      ok: false,
      problems: ['the packet was not captured on underlay port2', 'the packet was not captured on h2 eth0'],
    });
  });
});
