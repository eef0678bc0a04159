import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { IMAGE_DEFAULTS, imageLabels } from '../../scripts/packaging/image-root.ts';
import { type EtcdStore, openEtcdStore } from '../../src/lab/etcd-store.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { DockerHost } from '../e2e/docker/docker-host.ts';
import { Bed } from '../e2e/nodes/bed.ts';
import { logOfAgent } from './agent-container.ts';
import { debianBaseImage } from './base-image.ts';
import { InspectingProxy } from './inspecting-proxy.ts';
import { WEFT_IMAGE } from './kind-host.ts';

/**
 * deploy/image/Dockerfile, built by the command that INSTALL.md has for those behind a proxy that inspects TLS: that proxy is the only
 * way out of the host, and the base image is one that is made here.
 */

const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
const IMAGE = `localhost/weft:${version}`;
const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
const PROXY_PORT = 3128;
/** Of docker0, unless dockerd is told otherwise. */
const HOST_FOR_CONTAINERS = '172.17.0.1';
const BUILD_MS = 1_200_000;

const cleanup = new AsyncDisposableStack();
let host: LabHost;
let docker: DockerHost;
let store: EtcdStore;
let proxy: InspectingProxy;

before(async () => {
  const base = /^FROM .* debian:(\w+)-slim AS build$/m.exec(
    readFileSync(join(ROOT, 'deploy/image/Dockerfile'), 'utf8'),
  );
  const archive = await debianBaseImage(base![1]!, { say: (line) => process.stderr.write(`${line}\n`) });
  const { topology, dir } = cleanup.use(await Bed.open({ hosts: 1, store: true, purpose: 'Dockerfile' }));
  host = topology.hosts[0]!;
  store = cleanup.use(await openEtcdStore(topology, NET_CONF, AbortSignal.timeout(60_000)));
  docker = cleanup.use(await DockerHost.start({ host, dir: join(dir, 'docker') }));
  await docker.exec(['docker', 'import', archive, `debian:${base![1]}-slim`]);
  const socket = join(dir, 'proxy.sock');
  proxy = cleanup.use(await InspectingProxy.start(join(dir, 'proxy'), socket));
  await writeFile(join(docker.dir, 'home/proxy-ca.pem'), proxy.authority);
  await topology.start(host, ['socat', `TCP-LISTEN:${PROXY_PORT},fork,reuseaddr`, `UNIX-CONNECT:${socket}`], {
    stdout: 'ignore',
  });
});
after(() => cleanup.disposeAsync());

describe('deploy/image/Dockerfile', () => {
  it("without the certificate of the proxy's authority: fails, and says what to add", async () => {
    const command = installCommand().replace(/--build-arg CA="[^"]*" /, '');
    const { stdout, stderr, exitCode } = await build(command);
    assert.notEqual(exitCode, 0);
    assert.match(
      stdout + stderr,
      /^.*weft: .*a proxy inspects TLS: docker build --build-arg CA="\$\(cat proxy-ca\.pem\)"/m,
    );
  });

  it('with it: the command of INSTALL.md makes the image', async () => {
    const { stdout, stderr, exitCode } = await build(installCommand());
    assert.equal(exitCode, 0, stdout + stderr);
    assert.ok(proxy.inspected.size > 0);
  });

  it('has the labels, entry point and path of make image', async () => {
    const { stdout } = await docker.exec(['docker', 'image', 'inspect', '--format={{json .Config}}', IMAGE]);
    const { Labels, Entrypoint, Env } = JSON.parse(stdout) as Record<string, unknown>;
    assert.deepEqual({ Labels, Entrypoint, Env }, { ...IMAGE_DEFAULTS, Labels: imageLabels(version) });
  });

  it('has the files of make image, and nothing of the proxy', async () => {
    await docker.exec(['docker', 'tag', IMAGE, 'localhost/dockerfile:1']);
    const built = await filesIn('localhost/dockerfile:1');
    await docker.exec(['docker', 'load', '--input', WEFT_IMAGE]);
    assert.deepEqual(built, await filesIn(IMAGE));
    await docker.exec(['docker', 'tag', 'localhost/dockerfile:1', IMAGE]);
    const { stdout } = await docker.exec(['docker', 'history', '--no-trunc', IMAGE]);
    assert.ok(!stdout.includes('BEGIN CERTIFICATE') && !stdout.includes(String(PROXY_PORT)), stdout);
  });

  it('runs as every program, and as an agent', async () => {
    const run = ['docker', 'run', '--rm', '--network=none', IMAGE];
    const { stdout, stderr } = await docker.exec([...run, '--version']);
    assert.equal((stdout + stderr).trim(), version);
    assert.match((await docker.exec([...run, 'weft', '--help'])).stdout, /^Usage: weft /);
    const options = ['--device=/dev/net/tun', '--cap-add=NET_ADMIN', '--network=host'];
    await logOfAgent(docker, IMAGE, options, store.agentFlags(host), /flannel is ready/);
  });
});

/** The command of INSTALL.md with the proxy of this host. */
function installCommand(): string {
  const install = readFileSync(join(ROOT, 'docs/INSTALL.md'), 'utf8');
  const [command] = /^docker build --build-arg HTTP_PROXY=(?:.*\\\n)*.*$/m.exec(install) ?? [];
  assert.ok(command !== undefined);
  assert.match(command, /--build-arg CA="\$\(cat proxy-ca\.pem\)" /);
  return command
    .replaceAll(/(_PROXY)=\S+/g, `$1=http://${HOST_FOR_CONTAINERS}:${PROXY_PORT}`)
    .replace('proxy-ca.pem', '~/proxy-ca.pem');
}

async function build(command: string): Promise<{ stdout: string; stderr: string; exitCode: number }> {
  // Docker 20.10 has BuildKit, and uses it when told so.
  const shell = `cd '${ROOT}'; export DOCKER_BUILDKIT=1 BUILDKIT_PROGRESS=plain; ${command}`;
  return docker.exec(['sh', '-ec', shell], { okExitCodes: 'any', timeoutMs: BUILD_MS });
}

/** Sorted, without those that Docker makes in every container. */
async function filesIn(image: string): Promise<string[]> {
  const script = `id=$(docker create ${image}); docker export "$id" | tar -t; docker rm "$id" >/dev/null`;
  const { stdout } = await docker.exec(['sh', '-ec', script]);
  return stdout.split('\n').filter(Boolean).sort();
}
