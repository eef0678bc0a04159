import { existsSync } from 'node:fs';
import { mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../../errors.ts';
import { run } from '../../linux/run.ts';
import { cachePath, hashOf, madeOnce, runBuilder } from '../build-cache.ts';
import { goBuild, goEnvironment, requiredVersion } from '../go-module.ts';

/**
 * The real Kubernetes servers of labs, end-to-end tests and benchmarks: one binary built from the Go module in
 * `test/e2e/kubernetes/`, kept in the cache under its versions and the hash of everything it is made of.
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
 * The binaries, built first when they are not in the cache (some 10 minutes of two cores, and downloads; one builder at
 * a time, whoever comes second waits and finds the result).
 *
 * @throws WeftError WEFT_COMMAND_MISSING when Go is needed and not there, WEFT_COMMAND_FAILED when the build fails,
 *   WEFT_LAB_FAILED in the one-file executable.
 */
export async function kubernetesBinaries(
  say: (line: string) => void = () => {},
  signal?: AbortSignal,
): Promise<KubernetesBinaries> {
  if (!existsSync(MODULE_DIR)) {
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
  const version = requiredVersion(goMod!, 'k8s.io/kubernetes');
  const others = [
    `etcd-${requiredVersion(goMod!, 'go.etcd.io/etcd/server/v3')}`,
    `coredns-${requiredVersion(goMod!, 'github.com/coredns/coredns')}`,
  ];
  const dir = cachePath(['kubernetes', version, ...others, hashOf(goMod!, goSum!, main!)].join('-'));
  const binary = join(dir, 'kube');
  const make = async (made: string): Promise<string> => {
    const path = join(made, 'kube');
    await build(path, version, say, signal);
    // Before the binary is in its place: its presence is what says that everything else is.
    const links = join(dir, 'bin');
    await rm(links, { recursive: true, force: true });
    await mkdir(links);
    for (const name of PROGRAMS) await symlink('../kube', join(links, name));
    return path;
  };
  await madeOnce(binary, make, { say, signal });
  return { version, binary, program: (name) => join(dir, 'bin', name) };
}

async function build(
  path: string,
  version: string,
  say: (line: string) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const env = goEnvironment();
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
  const ldflags = `-X ${stamp}.gitVersion=${version} -X ${stamp}.gitMajor=${major} -X ${stamp}.gitMinor=${minor}`;
  say(`building the Kubernetes ${version} servers with Go: 10 minutes of two cores the first time`);
  const startedAt = performance.now();
  await runBuilder(goBuild(path, ['.'], { ldflags }), { cwd: MODULE_DIR, env, signal });
  say(`built in ${Math.round((performance.now() - startedAt) / 1000)} s`);
}
