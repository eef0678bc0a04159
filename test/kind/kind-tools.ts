import { join } from 'node:path';
import { goModuleFolder, goTools } from '../e2e/go-tools.ts';

const MODULE = join(import.meta.dirname, 'tools');
const CONTAINERD = 'github.com/containerd/containerd/v2/cmd';

/** What a node has of programs that are neither Debian's nor Kubernetes'. */
export const NODE_PROGRAMS = ['containerd', 'containerd-shim-runc-v2', 'crictl', 'ctr', 'runc'] as const;

export interface KindTools {
  /** The program itself. */
  readonly kind: string;
  /** The files of kind's base image: entry point, units, configuration of containerd. */
  readonly baseFiles: string;
  /** {@link NODE_PROGRAMS} are in it. */
  readonly folder: string;
}

/** kind, containerd 2 and runc, built from the Go module beside this file (3 minutes on two idle cores) and kept outside the tree. */
export async function kindTools(): Promise<KindTools> {
  const folder = await goTools(
    'kind-tools',
    MODULE,
    [
      ...['containerd', 'containerd-shim-runc-v2', 'ctr'].map((name) => `${CONTAINERD}/${name}`),
      'github.com/opencontainers/runc',
      'sigs.k8s.io/cri-tools/cmd/crictl',
      'sigs.k8s.io/kind',
    ],
    // As kind builds them. Without seccomp, runc refuses the profile that containerd gives to every pod.
    ['-tags', 'seccomp no_aufs no_zfs no_btrfs no_devmapper'],
  );
  const module = await goModuleFolder(MODULE, 'sigs.k8s.io/kind');
  return { kind: join(folder, 'kind'), baseFiles: join(module, 'images/base/files'), folder };
}
