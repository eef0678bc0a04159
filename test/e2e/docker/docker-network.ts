import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ROOT } from '../../../scripts/packaging/architecture.ts';
import { type EtcdStore, openEtcdStore } from '../../../src/lab/etcd-store.ts';
import type { LabHost, Topology } from '../../../src/lab/topology.ts';
import { Flanneld } from '../../netns/flanneld.ts';
import { Bed } from '../nodes/bed.ts';
import { TOOLS_IMAGE } from '../nodes/node-config.ts';
import { buildToolsImage } from '../nodes/test-images.ts';
import { DockerHost } from './docker-host.ts';

const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
/** Of the web server in each host's container. */
export const WEB_PORT = 8080;
/** Of the host, and leads to that. */
export const PUBLISHED_PORT = 18_080;

export interface DockerMember {
  readonly host: LabHost;
  readonly docker: DockerHost;
  /** Of subnet.env. */
  readonly env: Readonly<Record<string, string>>;
  readonly containerAddress: string;
}

/**
 * Two Docker hosts without Kubernetes: each host's agent leases a subnet in etcd, `weft docker-opts` makes flags of it, and a Docker
 * daemon with these flags runs a container with a web server, `web`.
 */
export class DockerNetwork implements AsyncDisposable {
  readonly topology: Topology;
  readonly members: readonly [DockerMember, DockerMember];
  readonly #cleanup: AsyncDisposableStack;

  private constructor(
    topology: Topology,
    members: readonly [DockerMember, DockerMember],
    cleanup: AsyncDisposableStack,
  ) {
    this.topology = topology;
    this.members = members;
    this.#cleanup = cleanup;
  }

  /** @throws WeftError WEFT_COMMAND_MISSING, WEFT_LAB_FAILED when this machine cannot hold it. */
  static async start(purpose: string, signal: AbortSignal): Promise<DockerNetwork> {
    await using cleanup = new AsyncDisposableStack();
    const { topology, dir } = cleanup.use(await Bed.open({ hosts: 2, store: true, purpose }));
    const store = cleanup.use(await openEtcdStore(topology, NET_CONF, signal));
    const image = await buildToolsImage(dir, signal);
    const [first, second] = topology.hosts.map((host) => startMember(cleanup, { topology, host, store, dir, image }));
    // Both have come to an end before anything is taken down.
    await Promise.allSettled([first, second]);
    return new DockerNetwork(topology, [await first!, await second!], cleanup.move());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#cleanup.disposeAsync();
  }
}

interface MemberOptions {
  readonly topology: Topology;
  readonly host: LabHost;
  readonly store: EtcdStore;
  readonly dir: string;
  readonly image: string;
}

async function startMember(cleanup: AsyncDisposableStack, options: MemberOptions): Promise<DockerMember> {
  const { topology, host, store, dir, image } = options;
  await mkdir(host.stateDirectory, { recursive: true });
  const subnetFile = join(host.stateDirectory, 'subnet.env');
  const flags = [...store.agentFlags(host), '--ip-masq', `--subnet-file=${subnetFile}`];
  const agent = cleanup.use(await Flanneld.start(topology, host, { flags }));
  await agent.logged(/^flannel is ready$/, 0, 60_000);
  const optionsFile = join(host.stateDirectory, 'docker_opts.env');
  await topology.exec(host, [join(ROOT, 'bin/weft'), 'docker-opts', '-f', subnetFile, '-d', optionsFile]);
  const dockerFlags = variables(await readFile(optionsFile, 'utf8'))
    .DOCKER_OPTS!.trim()
    .split(' ');
  const docker = cleanup.use(await DockerHost.start({ host, dir: join(dir, host.name), flags: dockerFlags }));
  await docker.exec(['docker', 'load', '--input', image]);
  const web = `hostname > /tmp/index.html; exec httpd -f -p ${WEB_PORT} -h /tmp`;
  await docker.exec([
    ...['docker', 'run', '--detach', '--name=web', `--hostname=web-${host.name}`],
    ...[`--publish=${PUBLISHED_PORT}:${WEB_PORT}`, '--entrypoint=/bin/sh', TOOLS_IMAGE, '-c', web],
  ]);
  const { stdout } = await docker.exec(['docker', 'inspect', '--format={{.NetworkSettings.IPAddress}}', 'web']);
  return { host, docker, env: variables(await readFile(subnetFile, 'utf8')), containerAddress: stdout.trim() };
}

/** Of a file of `NAME=value` or `NAME="value"` lines. */
function variables(text: string): Record<string, string> {
  return Object.fromEntries([...text.matchAll(/^(\w+)="?(.*?)"?$/gm)].map(([, name, value]) => [name!, value!]));
}
