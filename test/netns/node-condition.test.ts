import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Topology } from '../../src/lab/topology.ts';
import { FakeKubeApi } from '../fakes/fake-kube-api.ts';
import { Flanneld, localFlags } from './flanneld.ts';
import { bringKubeApi, KUBE_API_URL } from './kube-api.ts';
import { NET_CONF } from './overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;
it('a node without /dev/net/tun says so in its condition, until the agent is ready', async () => {
  await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' }, signal);
  const host = topology.hosts[0]!;
  await using api = await FakeKubeApi.start();
  api.put({
    kind: 'Node',
    metadata: { name: 'node1' },
    spec: { podCIDR: '10.244.3.0/24', podCIDRs: ['10.244.3.0/24'] },
  });
  await using _ = await bringKubeApi(topology, host, api.port);
  const conditions = () => api.node('node1')?.status?.conditions ?? [];
  const flags = [
    ...localFlags(host, NET_CONF),
    ...['--subnet-mgr=kube', `--kube-api-url=${KUBE_API_URL}`, '--iface=eth0'],
  ];
  const env = { NODE_NAME: 'node1', KUBERNETES_SERVICE_HOST: '127.0.0.1' };
  const noTun = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /dev/net; exec "$@"', 'sh'];
  const refused = await Flanneld.start(topology, host, {
    flags,
    env,
    under: [...noTun, 'setpriv', '--bounding-set=-mknod'],
  });
  const { code, stderr } = await refused.ended();
  assert.equal(code, 1, stderr);
  const [condition, ...others] = conditions();
  assert.ok(condition, stderr);
  assert.deepEqual(
    [condition.type, condition.status, condition.reason, others],
    ['NetworkUnavailable', 'True', 'FlannelTunMissing', []],
  );
  assert.match(String(condition.message), /failed to open TUN device.*mountPath: \/dev\/net/);

  await using agent = await Flanneld.start(topology, host, { flags, env });
  await agent.logged(/^flannel is ready/);
  await eventually('the condition is taken back', () => conditions()[0]?.status === 'False' || undefined);
  assert.deepEqual(
    conditions().map(({ status, reason }) => [status, reason]),
    [['False', 'FlannelIsUp']],
  );
});
