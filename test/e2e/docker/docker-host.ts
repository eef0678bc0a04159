import { existsSync, readFileSync } from 'node:fs';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { WeftError } from '../../../src/errors.ts';
import { requireCommands } from '../../../src/lab/prerequisites.ts';
import { launcherOf } from '../../../src/lab/servers/server-place.ts';
import { ServerProcess } from '../../../src/lab/servers/server-process.ts';
import type { LabHost } from '../../../src/lab/topology.ts';
import type { Child, RunOptions, RunResult, StartOptions } from '../../../src/linux/run.ts';
import { requireControllers } from '../nodes/cgroups.ts';
import { OwnMachine, overlay, overlayFolders, tmpfs } from '../nodes/own-machine.ts';
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

/**
 * A machine with Docker: a real dockerd on an {@link OwnMachine}, with data, state, socket and configuration of its own. The machine's
 * Docker, if it has one, is neither used nor touched.
 */
export class DockerHost implements AsyncDisposable {
  readonly dir: string;
  readonly #machine: OwnMachine;
  #daemon: ServerProcess | undefined;

  private constructor(dir: string, machine: OwnMachine) {
    this.dir = dir;
    this.#machine = machine;
  }

  /**
   * Resolves when the daemon answers.
   * @throws WeftError WEFT_COMMAND_MISSING, WEFT_LAB_FAILED when this machine cannot hold one.
   */
  static async start(options: DockerHostOptions): Promise<DockerHost> {
    await checkDockerPrerequisites();
    const { host, dir, programs = {}, flags = [] } = options;
    await using cleanup = new AsyncDisposableStack();
    const folders = ['bin', 'data', 'home', 'log', ...OVERLAID.flatMap(overlayFolders)];
    for (const name of folders) await mkdir(join(dir, name), { recursive: true });
    for (const [name, path] of Object.entries({ docker: CLIENT, ...programs })) {
      await symlink(path, join(dir, 'bin', name));
    }
    await writeFile(join(dir, 'runc'), runcWrapper());
    await chmod(join(dir, 'runc'), 0o755);
    const docker = cleanup.use(new DockerHost(dir, await OwnMachine.start(host)));
    await docker.#makeFileSystems(host);
    await docker.#startDaemon(flags);
    cleanup.move();
    return docker;
  }

  /** Runs a program on the host. `docker` is a program like any other, and finds its daemon without being told. */
  exec(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return this.#machine.exec(withEnvironment(this.dir, argv), options);
  }

  /** Starts a program on the host. A signal reaches `nsenter` only: end the program through its input. */
  start(argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    return this.#machine.start(withEnvironment(this.dir, argv), options);
  }

  /** Pulls the plug: nothing on the host is asked to end. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine.powerOff();
    await this.#daemon?.[Symbol.asyncDispose]();
    await this.#machine[Symbol.asyncDispose]();
  }

  async #makeFileSystems(host: LabHost): Promise<void> {
    const first = [
      ...OVERLAID.map((at) => overlay(at, this.dir)),
      ['mkdir', '-p', ...ITS_OWN],
      ...ITS_OWN.map(tmpfs),
      tmpfs('/run'),
      ['mkdir', '/run/lock', '/run/netns'],
    ];
    await this.#machine.mountAll({ first, hostname: host.name });
  }

  async #startDaemon(flags: readonly string[]): Promise<void> {
    const { dir } = this;
    const dockerd = [
      ...['dockerd', `--data-root=${dir}/data`, '--storage-driver=overlay2', '--exec-opt=native.cgroupdriver=cgroupfs'],
      ...[`--add-runtime=weft=${dir}/runc`, '--default-runtime=weft'],
      ...flags,
    ];
    this.#daemon = new ServerProcess('dockerd', {
      argv: this.#machine.inside(withEnvironment(dir, OwnMachine.inCgroups(dockerd))),
      logFile: join(dir, 'log', 'dockerd.log'),
      launch: launcherOf({}),
      ready: async () => (await this.exec(['docker', 'version'], { okExitCodes: 'any' })).exitCode === 0,
    });
    await this.#daemon.start();
  }
}

/** A proxy of the machine, say, or DOCKER_HOST, is not the host's. */
function withEnvironment(dir: string, argv: readonly string[]): string[] {
  return ['env', '-i', 'LC_ALL=C', `HOME=${dir}/home`, `PATH=${dir}/bin:/usr/sbin:/usr/bin:/sbin:/bin`, ...argv];
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
