import assert from 'node:assert/strict';
import { access } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { run } from '../../src/linux/run.ts';

const netns = `weft-kube-${process.pid}`;
const signal = AbortSignal.timeout(240_000);

before(async () => {
  await run(['ip', 'netns', 'add', netns]);
  await run(['ip', '-n', netns, 'link', 'set', 'lo', 'up']);
});
after(() => run(['ip', 'netns', 'delete', netns]));

test('two control planes at once, one of them in a namespace, each with its own state', async () => {
  let dir: string;
  {
    await using onLoopback = await KubeCluster.start();
    await using inNamespace = await KubeCluster.start({
      netns,
      clusterCidr: '10.245.0.0/16,fd10:245::/56',
      serviceCidr: '10.96.0.0/16,fd10:96::/112',
    });
    dir = onLoopback.dir;
    const [first, second] = await Promise.all([
      onLoopback.createNodes(['node1', 'node2'], signal),
      inNamespace.createNodes(['node1', 'node2'], signal),
    ]);
    assert.deepEqual(
      first.map((node) => node.spec.podCIDRs),
      [['10.244.0.0/24'], ['10.244.1.0/24']],
    );
    assert.deepEqual(
      second.map((node) => node.spec.podCIDRs),
      [
        ['10.245.0.0/24', 'fd10:245::/64'],
        ['10.245.1.0/24', 'fd10:245:0:1::/64'],
      ],
    );

    // A killed and restarted server is the same cluster again.
    await onLoopback.servers.apiServer.kill();
    await assert.rejects(onLoopback.admin.node('node1'));
    await onLoopback.servers.apiServer.start();
    assert.equal((await onLoopback.admin.node('node1')).metadata.uid, first[0]?.metadata.uid);
  }
  await assert.rejects(access(dir), { code: 'ENOENT' });
});

test('a server that cannot start says why', async () => {
  await assert.rejects(KubeCluster.start({ apiServerArgs: ['--no-such-flag'] }), /unknown flag: --no-such-flag/);
});
