import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { LabResult } from '../../src/lab/lab-result.ts';
import type { Hop } from '../../src/lab/walk.ts';
import { run } from '../../src/linux/run.ts';
import { weft } from './lab-command.ts';

async function lab(backend: string): Promise<LabResult> {
  const argv = [...weft, 'lab', '--hosts', '2', '--backend', backend, '--json'];
  const result = JSON.parse((await run(argv, { okExitCodes: 'any' })).stdout) as LabResult;
  assert.deepEqual(result.failures, []);
  assert.equal(result.backend, backend);
  return result;
}

/** Where the packet was seen on the first host and between the two, with the TTL that the container's packet had. */
function firstHalf({ walk }: LabResult): string[] {
  assert.ok(walk);
  const end = walk.hops.findIndex(({ place }) => place === 'port1');
  return walk.hops
    .slice(2, end + 1)
    .map((hop) => `${hop.space} ${hop.node} ${hop.place} ${(hop.inner ?? hop.packet)?.ttl ?? '-'}`);
}

const between = ({ walk }: LabResult): Hop => walk!.hops.find(({ place }) => place === 'port1')!;

describe('weft lab with other backends', () => {
  it('shows the VXLAN device and the outer headers', async () => {
    const result = await lab('vxlan');
    assert.deepEqual(result.overlay, { device: 'flannel.1', kind: 'vxlan' });
    assert.equal(result.mtuPing?.packetBytes, 1450);
    assert.deepEqual(firstHalf(result), [
      'kernel h1c1 eth0 64',
      'kernel h1 cni0 64',
      'kernel h1 routing -',
      'kernel h1 flannel.1 63',
      'kernel h1 VXLAN · UDP · IP -',
      'kernel h1 eth0 63',
      'physical underlay port1 63',
    ]);
    const { packet, inner } = between(result);
    assert.equal(
      `${packet?.source} → ${packet?.destination}:${packet?.destinationPort}`,
      '192.168.77.1 → 192.168.77.2:8472',
    );
    assert.equal(inner?.source, result.hosts[0]?.containers[0]?.address);
    assert.equal(result.walk?.forwarderUs, 0);
  });

  it('shows with host-gw that nothing is put around a packet', async () => {
    const result = await lab('host-gw');
    assert.deepEqual(result.overlay, { device: 'eth0', kind: 'direct' });
    assert.equal(result.mtuPing?.packetBytes, 1500);
    assert.deepEqual(firstHalf(result), [
      'kernel h1c1 eth0 64',
      'kernel h1 cni0 64',
      'kernel h1 routing -',
      'kernel h1 eth0 63',
      'physical underlay port1 63',
    ]);
    const { packet, inner } = between(result);
    assert.equal(packet?.source, result.hosts[0]?.containers[0]?.address);
    assert.equal(inner, undefined);
  });
});
