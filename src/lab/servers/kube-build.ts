import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { access, mkdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../../errors.ts';
import { run, start } from '../../linux/run.ts';

/**
 * The real Kubernetes servers of labs, end-to-end tests and benchmarks: one binary built from the Go module in
 * `test/e2e/kubernetes/`, kept outside the tree under a name that contains its version and the hash of everything it is
 * made of.
 */

const PROGRAMS = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'kubelet',
  'kube-proxy',
  'kubeadm',
  'kubectl',
  'coredns',
] as const;

export type KubeProgram = (typeof PROGRAMS)[number];

const MODULE_DIR = fileURLToPath(new URL('../../../test/e2e/kubernetes', import.meta.url));

export interface KubernetesBinaries {
  /** E.g. `v1.36.3`. */
  readonly version: string;
  /** The multi-call binary itself. */
  readonly binary: string;
  /** The path under which the binary is that program. */
  program(name: KubeProgram): string;
}

/**
 * The binaries, built first when they are not in the cache (5 to 8 minutes on two cores with downloads; one builder at
 * a time, whoever comes second waits and finds the result).
 *
 * @throws WeftError WEFT_COMMAND_MISSING when Go is needed and not there, WEFT_COMMAND_FAILED when the build fails,
 *   WEFT_LAB_FAILED in the one-file executable.
 */
export async function kubernetesBinaries(
  say: (line: string) => void = () => {},
  signal?: AbortSignal,
): Promise<KubernetesBinaries> {
  if (!(await exists(MODULE_DIR))) {
    throw new WeftError(
      'WEFT_LAB_FAILED',
      'cannot start Kubernetes servers: their sources are not beside this program',
      {
        hint: 'The one-file executable has none: use a clone of the repository, bin/weft lab --subnet-mgr kube',
      },
    );
  }
  const [goMod, goSum, main] = await Promise.all(
    ['go.mod', 'go.sum', 'main.go'].map((name) => readFile(join(MODULE_DIR, name), 'utf8')),
  );
  const version = /^\s*(?:require )?k8s\.io\/kubernetes (v\S+)$/m.exec(goMod!)?.[1];
  if (version === undefined) throw new Error(`${MODULE_DIR}/go.mod does not require k8s.io/kubernetes`);
  const hash = createHash('sha256').update(goMod!).update(goSum!).update(main!).digest('hex').slice(0, 16);
  const cacheHome = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const dir = join(cacheHome, 'weft', `kubernetes-${version}-${hash}`);
  const binary = join(dir, 'kube');
  if (!(await exists(binary))) {
    await mkdir(dir, { recursive: true });
    await using _lock = await lock(join(dir, 'lock'), () => say('waiting for another run that builds it'), signal);
    if (!(await exists(binary))) await build(binary, version, say, signal);
  }
  return { version, binary, program: (name) => join(dir, 'bin', name) };
}

async function build(
  binary: string,
  version: string,
  say: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const env = { PATH: [process.env.PATH ?? '', '/usr/local/go/bin', join(homedir(), 'go', 'bin')].join(delimiter) };
  try {
    await run(['go', 'version'], { env, signal });
  } catch (error) {
    if (!(error instanceof WeftError) || error.code !== 'WEFT_COMMAND_MISSING') throw error;
    throw new WeftError('WEFT_COMMAND_MISSING', `cannot build the Kubernetes ${version} servers: Go is not installed`, {
      hint: 'Install Go 1.21 or newer (it fetches the toolchain that the module asks for) into the PATH or /usr/local/go, then run: scripts/run.sh scripts/build-kubernetes.ts',
      cause: error,
    });
  }
  const [major, minor] = version.slice(1).split('.');
  const stamp = 'k8s.io/component-base/version';
  const flags = `-s -w -X ${stamp}.gitVersion=${version} -X ${stamp}.gitMajor=${major} -X ${stamp}.gitMinor=${minor}`;
  const partial = `${binary}.${process.pid}.partial`;
  say(`building the Kubernetes ${version} servers with Go: 5 to 8 minutes the first time`);
  const startedAt = performance.now();
  try {
    await run(
      ['nice', '-n', '19', 'go', 'build', '-trimpath', '-buildvcs=false', '-ldflags', flags, '-o', partial, '.'],
      { cwd: MODULE_DIR, env, signal },
    );
    const links = join(binary, '..', 'bin');
    await rm(links, { recursive: true, force: true });
    await mkdir(links);
    for (const name of PROGRAMS) await symlink('../kube', join(links, name));
    // Last: the presence of this file is what says that everything else is in place.
    await rename(partial, binary);
  } finally {
    await rm(partial, { force: true });
  }
  say(`built in ${Math.round((performance.now() - startedAt) / 1000)} s: ${binary}`);
}

/**
 * An exclusive lock that the kernel releases when this process ends, however it ends: flock(1) holds it around a `cat`
 * that lives as long as our pipe to it, and whose echo tells that the lock has been granted.
 */
async function lock(path: string, onWait: () => void, signal: AbortSignal | undefined): Promise<AsyncDisposable> {
  const holder = await start(['flock', '--exclusive', path, 'cat'], { stdin: 'pipe', signal });
  const patience = setTimeout(onWait, 1_000);
  try {
    holder.stdin!.write('locked\n');
    const ended = holder.exited.then(() => {
      signal?.throwIfAborted();
      throw new WeftError('WEFT_COMMAND_FAILED', `flock ${path} ended without the lock: ${holder.tail().trim()}`);
    });
    await Promise.race([once(holder.stdout!, 'data'), ended]);
  } finally {
    clearTimeout(patience);
  }
  return {
    async [Symbol.asyncDispose]() {
      holder.stdin!.end();
      await holder.exited;
    },
  };
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
