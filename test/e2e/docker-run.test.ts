import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { DIST, ROOT } from '../../scripts/packaging/architecture.ts';
import { imageLabels } from '../../scripts/packaging/image-root.ts';
import { VERSION } from '../../src/cmd/version.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { openEtcdStore } from '../../src/lab/etcd-store.ts';
import type { Topology } from '../../src/lab/topology.ts';
import { eventually } from '../netns/waiting.ts';
import { DockerHost } from './docker/docker-host.ts';
import { Bed } from './nodes/bed.ts';

/** The image of `make image` on real Docker hosts, started as docs/INSTALL.md has it. */

const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
const IMAGE = join(DIST, 'weft-image.tar');

const cleanup = new AsyncDisposableStack();
const dockers: DockerHost[] = [];
let topology: Topology;
let install: string;
let image: string;

before(async () => {
  install = await readFile(join(ROOT, 'docs/INSTALL.md'), 'utf8');
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  image = `localhost/weft:${version}`;
  const bed = cleanup.use(await Bed.open({ hosts: 2, store: true, purpose: 'docker run' }));
  const { dir } = bed;
  topology = bed.topology;
  cleanup.use(await openEtcdStore(topology, NET_CONF, AbortSignal.timeout(120_000)));
  for (const host of topology.hosts) {
    const docker = cleanup.use(await DockerHost.start({ host, dir: join(dir, host.name), flags: ['--bridge=none'] }));
    await docker.exec(['docker', 'load', '--input', IMAGE]);
    dockers.push(docker);
  }
});
after(() => cleanup.disposeAsync());

describe('the image in Docker', () => {
  it('has the name that the manifest wants, and labels', async () => {
    const { stdout } = await dockers[0]!.exec(['docker', 'inspect', '--format={{json .Config.Labels}}', image]);
    assert.deepEqual(JSON.parse(stdout), imageLabels(image.split(':')[1]!));
  });

  it('is flanneld, and each program whose name is its first argument', async () => {
    const runs = ['docker', 'run', '--rm', '--network=none', '--cap-drop=ALL', '--read-only', image];
    for (const words of [['--version'], ['flanneld', '--version']]) {
      const { stdout, stderr } = await dockers[0]!.exec([...runs, ...words]);
      assert.equal(stdout + stderr, `${VERSION}\n`);
    }
    assert.match((await dockers[0]!.exec([...runs, 'weft', '--help'])).stdout, /^Usage: weft /);
  });

  it('makes a network of two hosts by the command that INSTALL.md has, with just those rights', async () => {
    const [, command] = /^(docker run -d --name flanneld (?:.*\\\n)*.*)$/m.exec(install) ?? [];
    assert.ok(command !== undefined);
    assert.match(command, /--cap-drop ALL .*--read-only/);
    const endpoint = `--etcd-endpoints=http://${formatIpv4(topology.store!.address)}:2379`;
    for (const docker of dockers) {
      await docker.exec(['touch', '/run/xtables.lock']);
      await docker.exec(['sh', '-ec', command.replace(/--etcd-endpoints=\S+/, endpoint)]);
    }
    const addresses: string[] = [];
    for (const docker of dockers) {
      await eventually('the agent is ready', async () => {
        const { stdout, stderr } = await docker.exec(['docker', 'logs', 'flanneld']);
        return /flannel is ready$/m.test(stdout + stderr) || undefined;
      });
      const { stdout } = await docker.exec(['cat', '/run/flannel/subnet.env']);
      addresses.push(/^FLANNEL_SUBNET=(.*)\.1\/24$/m.exec(stdout)![1]!);
      const { stdout: status } = await docker.exec(['docker', 'exec', 'flanneld', 'cat', '/proc/1/status']);
      // NET_ADMIN and NET_RAW.
      assert.match(status, /^CapBnd:\s*0000000000003000$/m);
    }
    // The address of flannel0 is the first of the subnet.
    const ping = ['ping', '-c', '3', '-W', '5'];
    assert.match((await dockers[0]!.exec([...ping, `${addresses[1]}.0`])).stdout, / 0% packet loss/);
    assert.match((await dockers[1]!.exec([...ping, `${addresses[0]}.0`])).stdout, / 0% packet loss/);
  });
});
