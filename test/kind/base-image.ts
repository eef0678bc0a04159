import { join } from 'node:path';
import { cachePath, hashOf, type MadeOnceOptions, madeOnce, runBuilder } from '../../src/lab/build-cache.ts';

/**
 * The archive of a root file system as `docker import` takes it, in the place of a base image that a registry would have: Debian without
 * anything that is not essential, with the package sources of its suite. Kept in the cache.
 *
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED
 */
export async function debianBaseImage(suite: string, waiting: MadeOnceOptions = {}): Promise<string> {
  const build = ['mmdebstrap', '--mode=root', '--variant=minbase', suite];
  const archive = cachePath(`debian-${suite}-${hashOf(...build)}.tar`);
  await madeOnce(
    archive,
    async (dir) => {
      const made = join(dir, 'root.tar');
      // What it mounts goes with the namespace, also when it is killed.
      const namespaces = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];
      await runBuilder([...namespaces, ...build, made], { env: { TMPDIR: dir }, signal: waiting.signal });
      return made;
    },
    waiting,
  );
  return archive;
}
