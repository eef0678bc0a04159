import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WeftError } from '../../../src/errors.ts';
import { requireCommands } from '../../../src/lab/prerequisites.ts';
import { launcherOf } from '../../../src/lab/servers/server-place.ts';
import { ServerProcess } from '../../../src/lab/servers/server-process.ts';
import type { LabHost } from '../../../src/lab/topology.ts';
import { type Child, type RunOptions, type RunResult, run, type StartOptions, start } from '../../../src/linux/run.ts';
import { LineFeed } from '../../netns/waiting.ts';
import { NodeCgroups, requireControllers } from '../nodes/cgroups.ts';
import { runcWrapper } from './runc-wrapper.ts';

export interface DockerHostOptions {
  /** Its network namespace is the host's network; whatever is in it stays. */
  readonly host: LabHost;
  /** On a real file system, empty, and the host's alone. */
  readonly dir: string;
  /** More programs for {@link DockerHost.exec}: the path of each by its name. */
  readonly programs?: Readonly<Record<string, string>>;
  /** More flags of dockerd. */
  readonly flags?: readonly string[];
}

/** The client of Debian's package: another `docker` earlier in the PATH is somebody else's. */
const CLIENT = '/usr/bin/docker';
const COMMANDS = [
  ['dockerd', '--version'],
  ['containerd', '--version'],
  ['runc', '--version'],
  ['jq', '--version'],
] as const;

/**
 * Folders in which the host may write: what it writes stays in its own folder, what it reads is the machine's. Docker makes
 * folders that are to be mounted and do not exist, such as /lib/modules, and kind mounts that.
 */
const OVERLAID = ['etc', 'opt', 'usr/lib'];
/** Folders below those of which it must not see the machine's: what its administrator wrote for Docker, or put there for CNI. */
const ITS_OWN = ['/etc/docker', '/opt/cni'];

/** Writes 0 to the files before `--`, which moves the shell itself, and becomes the command behind it. */
const ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"';
/** The same from inside, where the host's cgroup is the root of every hierarchy. */
const ENTER_ROOT_CGROUPS = 'for file in /sys/fs/cgroup/*/cgroup.procs; do echo 0 >"$file"; done; exec "$@"';

/**
 * A machine with Docker: a real dockerd in namespaces of its own (network, mount, UTS, cgroup, PID), with data, state, socket
 * and configuration of its own. The machine's Docker, if it has one, is neither used nor touched. As with a RealNode, the
 * kernel ends all of it when this process goes, and leftovers.ts removes what remains.
 */
export class DockerHost implements AsyncDisposable {
  readonly dir: string;
  readonly #cgroups: NodeCgroups;
  readonly #holder: Child;
  /** Process 1 of the host, as the machine numbers it. */
  readonly #pid: number;
  #daemon: ServerProcess | undefined;

  private constructor(dir: string, cgroups: NodeCgroups, holder: Child, pid: number) {
    this.dir = dir;
    this.#cgroups = cgroups;
    this.#holder = holder;
    this.#pid = pid;
  }

  /**
   * Resolves when the daemon answers.
   * @throws WeftError WEFT_COMMAND_MISSING, WEFT_LAB_FAILED when this machine cannot hold one.
   */
  static async start(options: DockerHostOptions): Promise<DockerHost> {
    await checkDockerPrerequisites();
    const { host, dir, programs = {}, flags = [] } = options;
    await using cleanup = new AsyncDisposableStack();
    const cgroups = NodeCgroups.create(host.namespace);
    cleanup.defer(() => cgroups.remove());
    const overlays = OVERLAID.flatMap((at) => [`${at}.upper`, `${at}.work`]);
    for (const name of ['bin', 'data', 'home', 'log', ...overlays]) await mkdir(join(dir, name), { recursive: true });
    for (const [name, path] of Object.entries({ docker: CLIENT, ...programs })) {
      await symlink(path, join(dir, 'bin', name));
    }
    await writeFile(join(dir, 'runc'), runcWrapper());
    await chmod(join(dir, 'runc'), 0o755);
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
    const children = (await readFile(`/proc/${holder.pid}/task/${holder.pid}/children`, 'utf8')).trim();
    if (!/^\d+$/.test(children)) throw new Error(`process ${holder.pid} has not one child but: ${children}`);
    const docker = cleanup.use(new DockerHost(dir, cgroups, holder, Number(children)));
    await docker.#makeFileSystems(host);
    await docker.#startDaemon(flags);
    cleanup.move();
    return docker;
  }

  /** Runs a program on the host. `docker` is a program like any other, and finds its daemon without being told. */
  exec(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run(this.#inside(argv), options);
  }

  /** Starts a program on the host. A signal reaches `nsenter` only: end the program through its input. */
  start(argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    return start(this.#inside(argv), options);
  }

  /** Pulls the plug: nothing on the host is asked to end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#holder.kill('SIGKILL');
    await this.#holder.exited;
    await this.#daemon?.[Symbol.asyncDispose]();
    await this.#cgroups.remove();
  }

  #inside(argv: readonly string[]): string[] {
    const namespaces = ['--mount', '--net', '--uts', '--cgroup', '--pid'];
    // A proxy of the machine, say, or DOCKER_HOST, is not the host's.
    const environment = ['LC_ALL=C', `HOME=${this.dir}/home`, `PATH=${this.dir}/bin:/usr/sbin:/usr/bin:/sbin:/bin`];
    return ['nsenter', `--target=${this.#pid}`, ...namespaces, '--wd=/', '--', 'env', '-i', ...environment, ...argv];
  }

  async #makeFileSystems(host: LabHost): Promise<void> {
    const { dir } = this;
    const tmpfs = (at: string) => ['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', at];
    const overlay = (at: string) => `lowerdir=/${at},upperdir=${dir}/${at}.upper,workdir=${dir}/${at}.work`;
    const commands = [
      ...OVERLAID.map((at) => ['mount', '-t', 'overlay', '-o', overlay(at), 'overlay', `/${at}`]),
      ['mkdir', '-p', ...ITS_OWN],
      ...ITS_OWN.map(tmpfs),
      tmpfs('/run'),
      ['mkdir', '/run/lock', '/run/netns'],
      // /sys/class/net shows the devices of the network namespace in which it was mounted.
      ['mount', '-t', 'sysfs', 'sysfs', '/sys'],
      ...this.#cgroups.mountCommands(),
      ['mount', '--make-rshared', '/'],
      ['hostname', host.name],
    ];
    for (const command of commands) await this.exec(command);
  }

  async #startDaemon(flags: readonly string[]): Promise<void> {
    const { dir } = this;
    const dockerd = [
      ...['dockerd', `--data-root=${dir}/data`, '--storage-driver=overlay2', '--exec-opt=native.cgroupdriver=cgroupfs'],
      ...[`--add-runtime=weft=${dir}/runc`, '--default-runtime=weft'],
      ...flags,
    ];
    this.#daemon = new ServerProcess('dockerd', {
      argv: this.#inside(['sh', '-ec', ENTER_ROOT_CGROUPS, 'sh', ...dockerd]),
      logFile: join(dir, 'log', 'dockerd.log'),
      launch: launcherOf({}),
      ready: async () => (await this.exec(['docker', 'version'], { okExitCodes: 'any' })).exitCode === 0,
    });
    await this.#daemon.start();
  }
}

/** @throws WeftError WEFT_COMMAND_MISSING, WEFT_LAB_FAILED */
async function checkDockerPrerequisites(): Promise<void> {
  await requireCommands(COMMANDS);
  requireControllers();
  if (!existsSync(CLIENT)) {
    throw new WeftError('WEFT_COMMAND_MISSING', `could not run ${CLIENT}: there is no such program`, {
      hint: 'On Debian: apt-get install docker.io (it need not be started)',
    });
  }
  if (!/\toverlay$/m.test(readFileSync('/proc/filesystems', 'utf8'))) {
    throw new WeftError('WEFT_LAB_FAILED', 'could not start Docker: the kernel has not loaded overlay', {
      hint: 'Run: modprobe overlay',
    });
  }
}
