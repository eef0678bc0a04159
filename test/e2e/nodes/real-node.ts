import { readFileSync } from 'node:fs';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { formatIpv4 } from '../../../src/ip/ipv4.ts';
import { launcherOf } from '../../../src/lab/servers/server-place.ts';
import { ServerProcess } from '../../../src/lab/servers/server-process.ts';
import type { LabHost } from '../../../src/lab/topology.ts';
import { type Child, type RunOptions, type RunResult, run, type StartOptions, start } from '../../../src/linux/run.ts';
import { LineFeed } from '../../netns/waiting.ts';
import { NodeCgroups } from './cgroups.ts';
import { CONTAINERD_CONFIG, kubeletConfig, kubeProxyConfig, NODE_DIR } from './node-config.ts';

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

/** Writes 0 to the files before `--`, which moves the shell itself, and becomes the command behind it. */
const ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"';
/** The same from inside, where the node's cgroup is the root of every hierarchy. */
const ENTER_ROOT_CGROUPS = 'for file in /sys/fs/cgroup/*/cgroup.procs; do echo 0 >"$file"; done; exec "$@"';

/**
 * A Kubernetes node on this machine: containerd, kubelet and kube-proxy in namespaces of their own (network, mount, UTS,
 * cgroup, PID) over the machine's root file system. The kernel kills the first process of its PID namespace when this
 * process goes, however it goes, and with it all containers and mounts. What then remains is the network namespace, which
 * is on the lab's record, the cgroups and the folder: leftovers.ts removes them.
 */
export class RealNode implements AsyncDisposable {
  readonly name: string;
  /** In the underlay. */
  readonly address: string;
  readonly addressV6: string | undefined;
  readonly #options: NodeOptions;
  readonly #cgroups: NodeCgroups;
  readonly #holder: Child;
  /** The node's process 1, as the machine numbers it. */
  readonly #pid: number;
  readonly #servers: ServerProcess[] = [];

  private constructor(options: NodeOptions, cgroups: NodeCgroups, holder: Child, pid: number) {
    this.name = options.name;
    this.address = formatIpv4(options.host.address);
    this.addressV6 = options.addressV6;
    this.#options = options;
    this.#cgroups = cgroups;
    this.#holder = holder;
    this.#pid = pid;
  }

  /** Resolves when the servers run and the images are in; kubelet registers the Node by itself. */
  static async start(options: NodeOptions): Promise<RealNode> {
    const { host, dir } = options;
    await using cleanup = new AsyncDisposableStack();
    const cgroups = NodeCgroups.create(host.namespace);
    cleanup.defer(() => cgroups.remove());
    const folders = ['containerd', 'kubelet', 'log', 'sysctl'];
    const overlays = OVERLAID.flatMap((name) => [`${name}.upper`, `${name}.work`]);
    for (const name of [...folders, ...overlays]) await mkdir(join(dir, name), { recursive: true });
    const holder = cleanup.use(
      await start([
        // The kernel signals what this becomes when the thread that started it is gone: prctl(2), PR_SET_PDEATHSIG.
        ...['setpriv', '--pdeathsig', 'KILL', '--'],
        ...['sh', '-ec', ENTER_CGROUPS, 'sh', ...cgroups.procsFiles, '--'],
        ...['nsenter', `--net=/run/netns/${host.namespace}`, '--'],
        ...['unshare', '--mount', '--uts', '--cgroup', '--pid', '--kill-child', '--mount-proc'],
        ...['--propagation', 'private', '--'],
        // Process 1 inherits orphans, such as containerd's shims: a shell that waits reaps whatever ends.
        ...['sh', '-c', 'echo up; while :; do sleep 86400; done'],
      ]),
    );
    const up = await new LineFeed(holder.stdout!).find(() => true);
    if (up.text !== 'up') throw new Error(`unexpected: ${up.text}`);
    const node = new RealNode(options, cgroups, holder, await onlyChildOf(holder.pid));
    cleanup.use(node);
    await node.#makeFileSystems();
    await node.#startServers();
    cleanup.move();
    return node;
  }

  /** Runs a program in all of the node's namespaces, but not in its cgroups. */
  exec(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run(this.#inside(argv), options);
  }

  /** Starts a program as {@link exec} runs one. A signal reaches `nsenter` only: end the program through its input. */
  start(argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    return start(this.#inside(argv), options);
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
    this.#holder.kill('SIGKILL');
    await this.#holder.exited;
    for (const server of this.#servers) await server[Symbol.asyncDispose]();
    await this.#cgroups.remove();
  }

  #inside(argv: readonly string[]): string[] {
    const namespaces = ['--mount', '--net', '--uts', '--cgroup', '--pid'];
    return ['nsenter', `--target=${this.#pid}`, ...namespaces, '--wd=/', '--', ...argv];
  }

  async #makeFileSystems(): Promise<void> {
    const { dir, name } = this.#options;
    for (const [path, value] of Object.entries(SYSCTLS_SHOWN)) {
      await writeFile(join(dir, 'sysctl', path.replaceAll('/', '.')), `${value}\n`);
    }
    const tmpfs = (at: string) => ['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', at];
    const overlay = (at: string) => `lowerdir=/${at},upperdir=${NODE_DIR}/${at}.upper,workdir=${NODE_DIR}/${at}.work`;
    const commands = [
      // First of all the node's folder, where nothing of what follows covers it.
      tmpfs('/mnt'),
      ['mkdir', NODE_DIR],
      ['mount', '--bind', dir, NODE_DIR],
      ...OVERLAID.map((at) => ['mount', '-t', 'overlay', '-o', overlay(at), 'overlay', `/${at}`]),
      ['mkdir', '-p', ...ITS_OWN],
      ...ITS_OWN.map(tmpfs),
      tmpfs('/run'),
      ['mkdir', '/run/lock', '/run/netns'],
      ...Object.keys(SYSCTLS_SHOWN).map((path) => [
        ...['mount', '--bind', `${NODE_DIR}/sysctl/${path.replaceAll('/', '.')}`, `/proc/sys/${path}`],
      ]),
      // /sys/class/net shows the devices of the network namespace in which it was mounted.
      ['mount', '-t', 'sysfs', 'sysfs', '/sys'],
      ...this.#cgroups.mountCommands(),
      // As systemd does; every mount is a file system of its own.
      ['mount', '-t', 'bpf', '-o', 'mode=700', 'bpf', '/sys/fs/bpf'],
      ['mount', '--make-rshared', '/'],
      ['hostname', name],
    ];
    for (const command of commands) await this.exec(command);
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
      argv: this.#inside(['sh', '-ec', ENTER_ROOT_CGROUPS, 'sh', ...argv]),
      logFile: join(this.#options.dir, 'log', `${name}.log`),
      launch: launcherOf({}),
      ready: async () => (await this.exec(ask, { okExitCodes: 'any' })).exitCode === 0,
    });
    this.#servers.push(server);
    await server.start();
  }
}

/** @throws Error when there is not exactly one. */
async function onlyChildOf(pid: number): Promise<number> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim();
  if (!/^\d+$/.test(children)) throw new Error(`process ${pid} has not one child but: ${children}`);
  return Number(children);
}
