import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { type EtcdStore, openEtcdStore } from '../../src/lab/etcd-store.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { DockerHost } from '../e2e/docker/docker-host.ts';
import { Bed } from '../e2e/nodes/bed.ts';
import { sectionOf, shellBlocks, shellCommands } from '../markdown.ts';
import { eventually } from '../netns/waiting.ts';
import { logOfAgent } from './agent-container.ts';
import { WEFT_IMAGE } from './kind-host.ts';

/** The archive of `make image` in the hands of the programs that INSTALL.md names, and the image under plain Docker. */

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
const IMAGE = `localhost/weft:${version}`;
const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';

const cleanup = new AsyncDisposableStack();
let host: LabHost;
let docker: DockerHost;
let store: EtcdStore;

before(async () => {
  assert.ok(existsSync(WEFT_IMAGE), `${WEFT_IMAGE} is missing: make image`);
  const { topology, dir } = cleanup.use(await Bed.open({ hosts: 1, store: true, purpose: 'image under Docker' }));
  host = topology.hosts[0]!;
  store = cleanup.use(await openEtcdStore(topology, NET_CONF, AbortSignal.timeout(60_000)));
  docker = cleanup.use(await DockerHost.start({ host, dir: join(dir, 'docker') }));
});
after(() => cleanup.disposeAsync());

const REGISTRY = '127.0.0.1:5000';
const answers = { Entrypoint: ['/opt/bin/flanneld'], Version: version };

describe('the archive of make image', () => {
  it('is read by docker load', async () => {
    const { stdout } = await docker.exec(['docker', 'load', '--input', WEFT_IMAGE]);
    assert.match(stdout, new RegExp(`Loaded image: ${IMAGE}`));
    const format = '{{json .Config}}';
    const { stdout: config } = await docker.exec(['docker', 'image', 'inspect', `--format=${format}`, IMAGE]);
    assert.deepEqual(summaryOf(config), answers);
  });

  it('is read by podman load', async () => {
    const podman = ['podman', `--root=${docker.dir}/podman`, '--runroot=/run/podman', '--storage-driver=vfs'];
    await docker.exec([...podman, 'load', '--input', WEFT_IMAGE]);
    const { stdout } = await docker.exec([...podman, 'image', 'inspect', '--format={{json .Config}}', IMAGE]);
    assert.deepEqual(summaryOf(stdout), answers);
  });

  it('is read by ctr images import', async () => {
    const ctr = ['ctr', '--address=/run/docker/containerd/containerd.sock', '--namespace=k8s.io', 'images'];
    await docker.exec([...ctr, 'import', WEFT_IMAGE]);
    const { stdout } = await docker.exec([...ctr, 'list', '--quiet']);
    assert.deepEqual(stdout.trim().split('\n'), [IMAGE]);
  });

  it('is read by skopeo copy', async () => {
    const layout = `${docker.dir}/skopeo`;
    await docker.exec([
      'skopeo',
      'copy',
      '--insecure-policy',
      '--all',
      `oci-archive:${WEFT_IMAGE}`,
      `oci:${layout}:weft`,
    ]);
    const { stdout } = await docker.exec(['skopeo', 'inspect', '--config', `oci:${layout}:weft`]);
    assert.deepEqual(summaryOf(JSON.stringify((JSON.parse(stdout) as { config: unknown }).config)), answers);
  });

  it('is pushed to a registry by the command of docs/INSTALL.md, and pulled from there', async () => {
    await startRegistry();
    const install = readFileSync(join(ROOT, 'docs/INSTALL.md'), 'utf8');
    const commands = shellBlocks(sectionOf(install, '## On Kubernetes')).flatMap(shellCommands);
    const push = commands.filter((command) => command.includes('REGISTRY'));
    assert.deepEqual(push, [`skopeo copy --all oci-archive:dist/weft-image.tar docker://REGISTRY/weft:${version}`]);
    await docker.exec(['sh', '-ec', `cd ${ROOT}; ${push[0]!.replace('REGISTRY', REGISTRY)}`]);
    await docker.exec(['docker', 'pull', '--quiet', `${REGISTRY}/weft:${version}`]);
    const format = '--format={{json .Config}}';
    const { stdout } = await docker.exec(['docker', 'image', 'inspect', format, `${REGISTRY}/weft:${version}`]);
    assert.deepEqual(summaryOf(stdout), answers);
  });
});

/** One that the host alone can reach, without TLS, as its administrator has told skopeo. Debian's skopeo comes without a policy. */
async function startRegistry(): Promise<void> {
  const settings = join(docker.dir, 'home/.config/containers');
  await mkdir(settings, { recursive: true });
  await writeFile(join(settings, 'policy.json'), '{"default": [{"type": "insecureAcceptAnything"}]}');
  await writeFile(join(settings, 'registries.conf'), `[[registry]]\nlocation = "${REGISTRY}"\ninsecure = true\n`);
  const config = {
    version: 0.1,
    storage: { filesystem: { rootdirectory: join(docker.dir, 'registry') } },
    http: { addr: REGISTRY },
  };
  await writeFile(join(docker.dir, 'registry.json'), JSON.stringify(config));
  const argv = ['docker-registry', 'serve', join(docker.dir, 'registry.json')];
  cleanup.use(await docker.start(argv, { stdout: 'ignore' }));
  const ask = ['curl', '--fail', '--silent', `http://${REGISTRY}/v2/`];
  await eventually(
    'the registry answers',
    async () => (await docker.exec(ask, { okExitCodes: 'any' })).exitCode === 0 || undefined,
  );
}

describe('docker run', () => {
  it('with the device, NET_ADMIN and the network of the host: the agent is ready', async () => {
    const log = await logOf(['--device=/dev/net/tun', '--cap-add=NET_ADMIN', '--network=host'], /flannel is ready/);
    assert.doesNotMatch(log, /WEFT_TUN|its own network/);
    const { stdout } = await docker.exec(['ip', '-4', 'address', 'show', 'dev', 'flannel0']);
    assert.match(stdout, /inet 10\.244\./);
  });

  it('without the network of the host: the agent is ready in the network of the container, and says that nothing else has it', async () => {
    const log = await logOf(['--device=/dev/net/tun', '--cap-add=NET_ADMIN'], /flannel is ready/);
    assert.match(log, /^W.*This container has its own network.*Start the container with --network host\.$/m);
  });

  it('without NET_ADMIN: the error says what to add', async () => {
    const log = await logOf(['--device=/dev/net/tun', '--network=host'], /\[WEFT_TUN_[A-Z]+\]/);
    assert.match(log, /operation not permitted/i);
    assert.match(log, /NET_ADMIN/);
  });

  it('without the device, where the container may not make it: the error says what to add', async () => {
    const log = await logOf(['--cap-add=NET_ADMIN', '--cap-drop=MKNOD', '--network=host'], /\[WEFT_TUN_[A-Z]+\]/);
    assert.match(
      log,
      /failed to open TUN device: open \/dev\/net\/tun: no such file or directory.* \[WEFT_TUN_MISSING\]/,
    );
    assert.match(log, /--device/);
  });
});

function logOf(options: readonly string[], fits: RegExp): Promise<string> {
  return logOfAgent(docker, IMAGE, options, store.agentFlags(host), fits);
}

function summaryOf(config: string): typeof answers {
  const { Entrypoint, Labels } = JSON.parse(config) as { Entrypoint: string[]; Labels: Record<string, string> };
  return { Entrypoint, Version: Labels['org.opencontainers.image.version']! };
}
