import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { start } from '../../src/linux/run.ts';
import { FakeKubeApi } from '../fakes/fake-kube-api.ts';
import { Flanneld, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;
const API_PORT = 6443;

/** Brings a server of this process to a port of the host's namespace: a socket file is the same in both. */
async function reachable(topology: Topology, host: LabHost, port: number): Promise<AsyncDisposable> {
  const socket = join(host.stateDirectory, 'api.sock');
  await using stack = new AsyncDisposableStack();
  stack.use(await start(['socat', `UNIX-LISTEN:${socket},fork`, `TCP4:127.0.0.1:${port}`], { stdout: 'ignore' }));
  await topology.start(host, ['socat', `TCP4-LISTEN:${API_PORT},fork,reuseaddr`, `UNIX-CONNECT:${socket}`], {
    stdout: 'ignore',
  });
  await eventually('the API server can be reached', async () => {
    const { stdout } = await topology.exec(host, ['ss', '-Htln', `sport = :${API_PORT}`]);
    return (stdout !== '' && existsSync(socket)) || undefined;
  });
  return stack.move();
}

it('a node without /dev/net/tun says so in its condition, until the agent is ready', async () => {
  await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' }, signal);
  const host = topology.hosts[0]!;
  await using api = await FakeKubeApi.start();
  api.put({
    kind: 'Node',
    metadata: { name: 'node1' },
    spec: { podCIDR: '10.244.3.0/24', podCIDRs: ['10.244.3.0/24'] },
  });
  await using _ = await reachable(topology, host, api.port);
  const conditions = () => api.node('node1')?.status?.conditions ?? [];
  const flags = [
    ...localFlags(host, NET_CONF),
    ...['--subnet-mgr=kube', `--kube-api-url=http://127.0.0.1:${API_PORT}`, '--iface=eth0'],
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
