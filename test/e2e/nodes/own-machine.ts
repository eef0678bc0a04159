import { readFile } from 'node:fs/promises';
import type { LabHost } from '../../../src/lab/topology.ts';
import { type Child, type RunOptions, type RunResult, run, type StartOptions, start } from '../../../src/linux/run.ts';
import { LineFeed } from '../../netns/waiting.ts';
import { NodeCgroups } from './cgroups.ts';

/** Writes 0 to the files before `--`, which moves the shell itself, and becomes the command behind it. */
const ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"';
/** The same from inside, where the machine's cgroup is the root of every hierarchy. */
const ENTER_ROOT_CGROUPS = 'for file in /sys/fs/cgroup/*/cgroup.procs; do echo 0 >"$file"; done; exec "$@"';
const NAMESPACES = ['--mount', '--net', '--uts', '--cgroup', '--pid'];

interface FileSystems {
  /** Commands. */
  readonly first: readonly (readonly string[])[];
  readonly hostname: string;
  readonly hasBpffs?: boolean;
}

/**
 * A machine on this one: a lab host's network, with mount, UTS, cgroup and PID namespaces and cgroups of its own, over this machine's
 * root file system. The kernel kills the first process of its PID namespace when this process goes, however it goes, and with it all
 * processes and mounts. What then remains is the network namespace, which is on the lab's record, the cgroups and the folder that
 * somebody gave it: leftovers.ts removes them.
 */
export class OwnMachine implements AsyncDisposable {
  readonly #cgroups: NodeCgroups;
  readonly #holder: Child;
  /** Its process 1, as this machine numbers it. */
  readonly #pid: number;

  private constructor(cgroups: NodeCgroups, holder: Child, pid: number) {
    this.#cgroups = cgroups;
    this.#holder = holder;
    this.#pid = pid;
  }

  /** Of its file systems only /proc is its own at first: see {@link mountAll}. */
  static async start(host: LabHost): Promise<OwnMachine> {
    await using cleanup = new AsyncDisposableStack();
    const cgroups = NodeCgroups.create(host.namespace);
    cleanup.defer(() => cgroups.remove());
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
    const machine = new OwnMachine(cgroups, holder, await onlyChildOf(holder.pid));
    cleanup.move();
    return machine;
  }

  /** The command line that runs a program in all of its namespaces, but not in its cgroups. */
  inside(argv: readonly string[]): string[] {
    return ['nsenter', `--target=${this.#pid}`, ...NAMESPACES, '--wd=/', '--', ...argv];
  }

  /** What {@link inside} is to be given for a program that is in its cgroups as well. Needs {@link mountAll}. */
  static inCgroups(argv: readonly string[]): string[] {
    return ['sh', '-ec', ENTER_ROOT_CGROUPS, 'sh', ...argv];
  }

  exec(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return run(this.inside(argv), options);
  }

  /** Starts a program as {@link exec} runs one. A signal reaches `nsenter` only: end the program through its input. */
  start(argv: readonly string[], options: StartOptions = {}): Promise<Child> {
    return start(this.inside(argv), options);
  }

  /**
   * Makes its file systems, by the commands of `first` and then by what every machine has: its own devices in /sys, its own cgroups, a
   * name. What is mounted later reaches the mount namespaces below it, as with systemd.
   */
  async mountAll({ first, hostname, hasBpffs = false }: FileSystems): Promise<void> {
    const commands = [
      ...first,
      // /sys/class/net shows the devices of the network namespace in which it was mounted.
      ['mount', '-t', 'sysfs', 'sysfs', '/sys'],
      ...this.#cgroups.mountCommands(),
      // As systemd does; every mount is a file system of its own.
      ...(hasBpffs ? [['mount', '-t', 'bpf', '-o', 'mode=700', 'bpf', '/sys/fs/bpf']] : []),
      ['mount', '--make-rshared', '/'],
      ['hostname', hostname],
    ];
    for (const command of commands) await this.exec(command);
  }

  /** Pulls the plug: nothing on it is asked to end. */
  async powerOff(): Promise<void> {
    this.#holder.kill('SIGKILL');
    await this.#holder.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.powerOff();
    await this.#cgroups.remove();
  }
}

/** An empty folder. */
export function tmpfs(at: string): string[] {
  return ['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', at];
}

/** A folder of this machine in which the other one may write: what it writes is in `dir`, which has {@link overlayFolders}. */
export function overlay(at: string, dir: string): string[] {
  const [upper, work] = overlayFolders(at);
  const options = `lowerdir=/${at},upperdir=${dir}/${upper},workdir=${dir}/${work}`;
  return ['mount', '-t', 'overlay', '-o', options, 'overlay', `/${at}`];
}

export function overlayFolders(at: string): readonly [upper: string, work: string] {
  return [`${at}.upper`, `${at}.work`];
}

/** @throws Error when there is not exactly one. */
async function onlyChildOf(pid: number): Promise<number> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim();
  if (!/^\d+$/.test(children)) throw new Error(`process ${pid} has not one child but: ${children}`);
  return Number(children);
}
