import type { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { describeError } from '../../errors.ts';
import { bpfDirectory, openBpfDirectory, removeBpfDirectory } from '../bpf-directory.ts';
import { createFastPathTables } from './programs.ts';

/** Where maps and attachments are kept while there is no agent. */
export interface FastPathKeeping {
  /** `undefined`: they end with it. */
  readonly directory: string | undefined;
  /** Why they do although they should not. */
  readonly obstacle?: string;
}

export interface KeptTables {
  readonly tables: FastPathTables;
  readonly keeping: FastPathKeeping;
}

/**
 * Maps for the fast path of that TUN device, those of an earlier agent where it has left some.
 * @param root directory in a bpffs below which they are kept; `undefined`: they end with this process.
 * @param underlay version of IP between the hosts.
 * @throws WeftError WEFT_FAST_PATH when the kernel has no BPF for this process.
 */
export function keptTables(root: string | undefined, tunName: string, underlay: 4 | 6): KeptTables {
  const keeping = keepingIn(root, tunName);
  return { tables: createFastPathTables(keeping.directory, underlay), keeping };
}

function keepingIn(root: string | undefined, tunName: string): FastPathKeeping {
  if (root === undefined) return { directory: undefined };
  try {
    return { directory: openBpfDirectory(root, tunName) };
  } catch (error) {
    return { directory: undefined, obstacle: describeError(error) };
  }
}

/** Takes away what an earlier agent with that TUN device has left in the kernel to go on by itself. Returns what is in the way of that. */
export function endFastPath(root: string, tunName: string): string | undefined {
  try {
    removeBpfDirectory(bpfDirectory(root, tunName));
  } catch (error) {
    return `The fast path of an earlier agent may still be active (${root}): ${describeError(error)}`;
  }
  return undefined;
}
