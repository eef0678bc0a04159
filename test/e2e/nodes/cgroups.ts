import { existsSync, globSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { WeftError } from '../../../src/errors.ts';
import { eventually } from '../../netns/waiting.ts';

/** A cgroup v1 hierarchy, or the one of cgroup v2 that a "hybrid" machine mounts beside them. */
interface Hierarchy {
  readonly mountPoint: string;
  /** What mount(8) is told to mount the same hierarchy once more. */
  readonly mountArguments: readonly string[];
}

/** What kubelet and runc cannot do without. */
const NEEDED_CONTROLLERS = ['cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'pids'];

/**
 * A node's own subtree of every cgroup hierarchy of this machine. Inside the node's cgroup namespace it is the root, so
 * that its kubelet finds the machine's place for pods free.
 */
export class NodeCgroups {
  readonly #name: string;
  readonly #hierarchies: readonly Hierarchy[];

  static create(name: string): NodeCgroups {
    const cgroups = new NodeCgroups(name, mountedHierarchies());
    for (const dir of cgroups.#dirs()) makeCgroup(dir);
    return cgroups;
  }

  /** Those that were made under this name, perhaps by a process that is gone. */
  static existing(name: string): NodeCgroups {
    return new NodeCgroups(name, mountedHierarchies());
  }

  private constructor(name: string, hierarchies: readonly Hierarchy[]) {
    this.#name = name;
    this.#hierarchies = hierarchies;
  }

  /** The files to which a process writes 0 to move into this subtree; as the machine sees them. */
  get procsFiles(): string[] {
    return this.#dirs().map((dir) => join(dir, 'cgroup.procs'));
  }

  /** Commands that mount all hierarchies at /sys/fs/cgroup, to be run in the node's mount and cgroup namespaces. */
  mountCommands(): string[][] {
    return [
      ['mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/sys/fs/cgroup'],
      ...this.#hierarchies.flatMap(({ mountPoint, mountArguments }) => {
        const target = join('/sys/fs/cgroup', basename(mountPoint));
        return [
          ['mkdir', target],
          ['mount', ...mountArguments, target],
        ];
      }),
    ];
  }

  /** Kills what still runs in it and removes it; nothing to do is no error. */
  async remove(): Promise<void> {
    await eventually(`the cgroups ${this.#name} are gone`, () => {
      for (const dir of this.#dirs()) emptyCgroup(dir);
      return this.#dirs().some((dir) => existsSync(dir)) ? undefined : true;
    });
  }

  #dirs(): string[] {
    return this.#hierarchies.map(({ mountPoint }) => join(mountPoint, this.#name));
  }
}

function mountedHierarchies(): Hierarchy[] {
  return readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .flatMap(([, mountPoint = '', type, options = '']) => {
      if (type === 'cgroup2') return [{ mountPoint, mountArguments: ['-t', 'cgroup2', 'cgroup2'] }];
      if (type !== 'cgroup') return [];
      const own = options
        .split(',')
        .filter((word) => !/^(rw|ro|nosuid|nodev|noexec|relatime|xattr)$|agent=/.test(word));
      const named = own.some((word) => word.startsWith('name='));
      return [
        {
          mountPoint,
          mountArguments: ['-t', 'cgroup', '-o', [...(named ? ['none'] : []), ...own].join(','), 'cgroup'],
        },
      ];
    });
}

/** @throws WeftError WEFT_LAB_FAILED when the machine has not the controllers that are needed. */
export function requireControllers(): void {
  const present = mountedHierarchies().flatMap(({ mountArguments }) => mountArguments[3]?.split(',') ?? []);
  const missing = NEEDED_CONTROLLERS.filter((controller) => !present.includes(controller));
  if (missing.length === 0) return;
  throw new WeftError(
    'WEFT_LAB_FAILED',
    `could not make Kubernetes nodes: this machine has no cgroup v1 hierarchy for ${missing.join(', ')}`,
    {
      hint: 'These tests were only ever run with cgroup v1 controllers (kernel parameter systemd.unified_cgroup_hierarchy=0); the other end-to-end tests do without: make e2e ARGS="test/e2e/FILE.test.ts"',
    },
  );
}

function makeCgroup(dir: string): void {
  mkdirSync(dir);
  if (!existsSync(join(dir, 'cpuset.cpus'))) return;
  // A cpuset takes no process before it has these, and children copy them only with clone_children (cgroup-v1/cpusets.rst).
  for (const name of ['cpuset.cpus', 'cpuset.mems']) {
    writeFileSync(join(dir, name), readFileSync(join(dir, '..', name)));
  }
  writeFileSync(join(dir, 'cgroup.clone_children'), '1');
}

/** Kills all processes below and removes the folders that are empty by now: to be repeated until nothing is left. */
function emptyCgroup(dir: string): void {
  if (!existsSync(dir)) return;
  for (const file of globSync(join(dir, '**/cgroup.procs'))) {
    // 0 stands for a process that this PID namespace does not see, and for our own group when it is signalled.
    const pids = readOrEmpty(file)
      .split('\n')
      .map(Number)
      .filter((pid) => pid > 0);
    for (const pid of pids) ignoringErrors(() => process.kill(pid, 'SIGKILL'));
  }
  removeDeepestFirst(dir);
}

function removeDeepestFirst(dir: string): void {
  ignoringErrors(() => {
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      if (entry.isDirectory()) removeDeepestFirst(join(dir, entry.name));
    }
    rmdirSync(dir);
  });
}

function readOrEmpty(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** For what another look finds out. */
function ignoringErrors(act: () => void): void {
  try {
    act();
  } catch {}
}
