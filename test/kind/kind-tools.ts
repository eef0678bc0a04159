import { join } from 'node:path';
import type { MadeOnceOptions } from '../../src/lab/build-cache.ts';
import { type GoTools, goModuleFolder, goTools } from '../e2e/go-tools.ts';

const MODULE = join(import.meta.dirname, 'tools');
const CONTAINERD = 'github.com/containerd/containerd/v2/cmd';

/** What a node has of programs that are neither Debian's nor Kubernetes'. */
export const NODE_PROGRAMS = ['containerd', 'containerd-shim-runc-v2', 'crictl', 'ctr', 'runc'] as const;

/** {@link NODE_PROGRAMS} are in the folder. */
export interface KindTools extends GoTools {
  /** The program itself. */
  readonly kind: string;
  /** The files of kind's base image: entry point, units, configuration of containerd. */
  readonly baseFiles: string;
}

/** kind, containerd 2 and runc, built from the Go module beside this file (3 minutes on two idle cores) and kept in the cache. */
export async function kindTools(waiting: MadeOnceOptions = {}): Promise<KindTools> {
  const tools = await goTools({
    name: 'kind-tools',
    module: MODULE,
    modules: {
      'sigs.k8s.io/kind': 'kind',
      'github.com/containerd/containerd/v2': 'containerd',
      'github.com/opencontainers/runc': 'runc',
      'sigs.k8s.io/cri-tools': 'crictl',
    },
    packages: [
      ...['containerd', 'containerd-shim-runc-v2', 'ctr'].map((name) => `${CONTAINERD}/${name}`),
      'github.com/opencontainers/runc',
      'sigs.k8s.io/cri-tools/cmd/crictl',
      'sigs.k8s.io/kind',
    ],
    // As kind builds them. Without seccomp, runc refuses the profile that containerd gives to every pod.
    flags: ['-tags', 'seccomp no_aufs no_zfs no_btrfs no_devmapper'],
    ...waiting,
  });
  const module = await goModuleFolder(MODULE, 'sigs.k8s.io/kind');
  return { ...tools, kind: join(tools.folder, 'kind'), baseFiles: join(module, 'images/base/files') };
}
