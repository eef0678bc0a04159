import { join } from 'node:path';
import { DIST, ROOT } from '../../scripts/packaging/architecture.ts';
import { kubernetesBinaries } from '../../src/lab/servers/kube-build.ts';
import type { RunOptions, RunResult } from '../../src/linux/run.ts';
import { DockerHost } from '../e2e/docker/docker-host.ts';
import { Bed } from '../e2e/nodes/bed.ts';
import type { ManifestObject } from '../e2e/nodes/manifest.ts';
import { kindTools } from './kind-tools.ts';
import { type NodeImage, nodeImage } from './node-image.ts';

/** `make e2e-kind` has made it. */
export const WEFT_IMAGE = join(DIST, 'weft-image.tar');

/** A machine with Docker, kind and kubectl, as the one that a user of kind has, and the image of kind's nodes loaded. */
export class KindHost implements AsyncDisposable {
  /** Of its lab. */
  readonly id: string;
  readonly docker: DockerHost;
  readonly nodeImage: NodeImage;
  readonly #cleanup: AsyncDisposableStack;

  private constructor(id: string, docker: DockerHost, image: NodeImage, cleanup: AsyncDisposableStack) {
    this.id = id;
    this.docker = docker;
    this.nodeImage = image;
    this.#cleanup = cleanup;
  }

  static async start(purpose: string, say: (line: string) => void, signal: AbortSignal): Promise<KindHost> {
    const kubernetes = await kubernetesBinaries(say, signal);
    const tools = await kindTools({ say, signal });
    const image = await nodeImage(say, signal);
    await using cleanup = new AsyncDisposableStack();
    const { topology, dir } = cleanup.use(await Bed.open({ hosts: 1, purpose }));
    const programs = { kind: tools.kind, kubectl: kubernetes.program('kubectl') };
    const docker = cleanup.use(
      await DockerHost.start({ host: topology.hosts[0]!, dir: join(dir, 'docker'), programs }),
    );
    await docker.exec(['docker', 'load', '--input', image.archive], { signal });
    return new KindHost(topology.id, docker, image, cleanup.move());
  }

  /** A line that a user would type, at the root of the repository. */
  shell(line: string, options: RunOptions = {}): Promise<RunResult> {
    return this.docker.exec(['sh', '-ec', `cd '${ROOT}'; ${line}`], options);
  }

  async kubectl(...argv: readonly string[]): Promise<string> {
    return (await this.docker.exec(['kubectl', ...argv])).stdout;
  }

  /** `kubectl get … -o json`. */
  async get<T>(...argv: readonly string[]): Promise<T> {
    return JSON.parse(await this.kubectl('get', ...argv, '--output=json')) as T;
  }

  async apply(objects: readonly ManifestObject[]): Promise<void> {
    const list = { apiVersion: 'v1', kind: 'List', items: objects };
    await this.docker.exec(['kubectl', 'apply', '--filename=-'], { stdin: JSON.stringify(list) });
  }

  /** Runs a program in a node, as `docker exec` does. */
  async inNode(node: string, ...argv: readonly string[]): Promise<string> {
    return (await this.docker.exec(['docker', 'exec', node, ...argv])).stdout;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#cleanup.disposeAsync();
  }
}
