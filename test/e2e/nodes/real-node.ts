import { readFileSync } from 'node:fs';
import { copyFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatIpv4 } from '../../../src/ip/ipv4.ts';
import { launcherOf } from '../../../src/lab/servers/server-place.ts';
import { ServerProcess } from '../../../src/lab/servers/server-process.ts';
import type { LabHost } from '../../../src/lab/topology.ts';
import type { Child, RunOptions, RunResult, StartOptions } from '../../../src/linux/run.ts';
import { CONTAINERD_CONFIG, kubeletConfig, kubeProxyConfig, NODE_DIR } from './node-config.ts';
import { OwnMachine, overlay, overlayFolders, tmpfs } from './own-machine.ts';

export interface NodeOptions {
  /** As Kubernetes calls it. */
  readonly name: string;
  readonly host: LabHost;
  /** In the underlay, beside the host's of IPv4; it has it. */
  readonly addressV6?: string | undefined;
  /** On a real file system, empty, and the node's alone; it keeps its logs there. */
  readonly dir: string;
  readonly programs: { readonly kubelet: string; readonly kubeProxy: string };
  /** Paths. */
  readonly kubeconfigs: { readonly kubelet: string; readonly kubeProxy: string };
  /** Capabilities that nothing on the node can have, as in a kind node of a Docker that does not know them: `bpf`. */
  readonly capabilitiesBeyondReach?: readonly string[];
  /** Archives that `ctr images import` takes. */
  readonly images: readonly string[];
}

/** Folders in which the node may write: what it writes stays in its own folder, what it reads is the machine's. */
const OVERLAID = ['etc', 'opt', 'var'];
/** Folders below those of which it must not see the machine's either. */
const ITS_OWN = ['/etc/cni', '/opt/cni', '/var/lib/cni'];

/** kubelet sets these where it finds other values. They are the machine's, so the node is shown files that hold them. */
const SYSCTLS_SHOWN: Readonly<Record<string, string>> = {
  'vm/overcommit_memory': '1',
  'vm/panic_on_oom': '0',
  'kernel/panic': '10',
  'kernel/panic_on_oops': '1',
  'kernel/keys/root_maxkeys': '1000000',
  'kernel/keys/root_maxbytes': '25000000',
};

/** A Kubernetes node on this machine: containerd, kubelet and kube-proxy on an {@link OwnMachine}, which ends them with this process. */
export class RealNode implements AsyncDisposable {
  readonly name: string;
  /** In the underlay. */
  readonly address: string;
  readonly addressV6: string | undefined;
  readonly #options: NodeOptions;
  readonly #machine: OwnMachine;
  readonly #servers: ServerProcess[] = [];

  private constructor(options: NodeOptions, machine: OwnMachine) {
    this.name = options.name;
    this.address = formatIpv4(options.host.address);
    this.addressV6 = options.addressV6;
    this.#options = options;
    this.#machine = machine;
  }

  /** Resolves when the servers run and the images are in; kubelet registers the Node by itself. */
  static async start(options: NodeOptions): Promise<RealNode> {
    const { host, dir } = options;
    await using cleanup = new AsyncDisposableStack();
    const folders = ['containerd', 'kubelet', 'log', 'sysctl', ...OVERLAID.flatMap(overlayFolders)];
    for (const name of folders) await mkdir(join(dir, name), { recursive: true });
    const node = cleanup.use(new RealNode(options, await OwnMachine.start(host)));
    await node.#makeFileSystems();
    await node.#startServers();
    cleanup.move();
    return node;
  }

  /** Runs a program in all of the node's namespaces, but not in its cgroups. */
  exec(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return this.#machine.exec(argv, options);
  }

  /** Starts a program as {@link exec} runs one. A signal reaches `nsenter` only: end the program through its input. */
  start(argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    return this.#machine.start(argv, options);
  }

  /** `ctr` on the images and containers of Kubernetes. */
  ctr(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return this.exec(['ctr', '--namespace=k8s.io', ...argv], options);
  }

  /** The ends of the servers' logs, for the message of a failure. */
  logTails(): string {
    const tails = this.#servers.map(({ name }) => {
      const lines = readFileSync(join(this.#options.dir, 'log', `${name}.log`), 'utf8')
        .trimEnd()
        .split('\n');
      return `--- ${this.name}: ${name}\n${lines.slice(-15).join('\n')}`;
    });
    return tails.join('\n');
  }

  /** Pulls the plug: nothing in the node is asked to end. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine.powerOff();
    for (const server of this.#servers) await server[Symbol.asyncDispose]();
    await this.#machine[Symbol.asyncDispose]();
  }

  async #makeFileSystems(): Promise<void> {
    const { dir, name } = this.#options;
    for (const [path, value] of Object.entries(SYSCTLS_SHOWN)) {
      await writeFile(join(dir, 'sysctl', path.replaceAll('/', '.')), `${value}\n`);
    }
    const first = [
      // First of all the node's folder, where nothing of what follows covers it.
      tmpfs('/mnt'),
      ['mkdir', NODE_DIR],
      ['mount', '--bind', dir, NODE_DIR],
      ...OVERLAID.map((at) => overlay(at, NODE_DIR)),
      ['mkdir', '-p', ...ITS_OWN],
      ...ITS_OWN.map(tmpfs),
      tmpfs('/run'),
      ['mkdir', '/run/lock', '/run/netns'],
      ...Object.keys(SYSCTLS_SHOWN).map((path) => [
        ...['mount', '--bind', `${NODE_DIR}/sysctl/${path.replaceAll('/', '.')}`, `/proc/sys/${path}`],
      ]),
    ];
    await this.#machine.mountAll({ first, hostname: name, hasBpffs: true });
  }

  async #startServers(): Promise<void> {
    const { dir, images, kubeconfigs, name, programs } = this.#options;
    await writeFile(join(dir, 'containerd.toml'), CONTAINERD_CONFIG);
    await writeFile(join(dir, 'kubelet.json'), kubeletConfig());
    await writeFile(join(dir, 'kube-proxy.json'), kubeProxyConfig(name, kubeconfigs.kubeProxy));
    const beyondReach = (this.#options.capabilitiesBeyondReach ?? []).map((capability) => `-${capability}`);
    const bounded = beyondReach.length === 0 ? [] : ['setpriv', `--bounding-set=${beyondReach.join()}`, '--'];
    const containerd = [...bounded, 'containerd', `--config=${NODE_DIR}/containerd.toml`];
    await this.#startServer('containerd', containerd, ['ctr', 'version']);
    for (const image of images) {
      // Where it is now, the node may have another folder.
      const copy = join(dir, 'image.tar');
      await copyFile(image, copy);
      await this.ctr(['images', 'import', `${NODE_DIR}/image.tar`]);
      await rm(copy);
    }
    await Promise.all([
      this.#startServer(
        'kubelet',
        [
          programs.kubelet,
          `--config=${NODE_DIR}/kubelet.json`,
          `--kubeconfig=${kubeconfigs.kubelet}`,
          `--root-dir=${NODE_DIR}/kubelet`,
          `--cert-dir=${NODE_DIR}/kubelet/pki`,
          `--hostname-override=${name}`,
          `--node-ip=${[this.address, this.addressV6].filter((one) => one !== undefined).join()}`,
        ],
        ['curl', '--fail', '--silent', 'http://127.0.0.1:10248/healthz'],
      ),
      this.#startServer(
        'kube-proxy',
        [programs.kubeProxy, `--config=${NODE_DIR}/kube-proxy.json`],
        ['curl', '--silent', 'http://127.0.0.1:10256/livez'],
      ),
    ]);
  }

  /** `ask` is a command that succeeds when it answers. */
  async #startServer(name: string, argv: readonly string[], ask: readonly string[]): Promise<void> {
    const server = new ServerProcess(name, {
      argv: this.#machine.inside(OwnMachine.inCgroups(argv)),
      logFile: join(this.#options.dir, 'log', `${name}.log`),
      launch: launcherOf({}),
      ready: async () => (await this.exec(ask, { okExitCodes: 'any' })).exitCode === 0,
    });
    this.#servers.push(server);
    await server.start();
  }
}
