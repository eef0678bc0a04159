import { chmod, copyFile, mkdir, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { architecturesOf } from '../../../scripts/packaging/architecture.ts';
import { writeOciArchive } from '../../../scripts/packaging/oci-archive.ts';
import { run } from '../../../src/linux/run.ts';
import { TOOLS_IMAGE } from './node-config.ts';

/** curl resolves names as programs with the C library do. */
const PROGRAMS = ['curl', 'iperf3', 'socat'];

/**
 * Makes {@link TOOLS_IMAGE} from programs of this machine: a static busybox with all its commands, and some more. Returns the archive's path.
 *
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED
 */
export async function buildToolsImage(dir: string, signal: AbortSignal): Promise<string> {
  const root = join(dir, 'tools-image');
  for (const folder of ['bin', 'etc', 'proc', 'sys', 'dev']) await mkdir(join(root, folder), { recursive: true });
  await mkdir(join(root, 'tmp'));
  await chmod(join(root, 'tmp'), 0o1777);
  const { stdout } = await run(['busybox', '--list'], { signal });
  for (const name of stdout.split('\n').filter(Boolean)) {
    if (name !== 'busybox') await symlink('busybox', join(root, 'bin', name));
  }
  await copyFile(await pathOf('busybox'), join(root, 'bin/busybox'));
  for (const name of PROGRAMS) await copyWithLibraries(await pathOf(name), root);
  const path = join(dir, 'tools-image.tar');
  const configuration = {
    Env: ['PATH=/usr/bin:/bin'],
    // What a pod's sandbox is made of does nothing but exist; the tests' pods say what they run.
    Entrypoint: ['/bin/busybox', 'sleep', '2147483647'],
    Labels: {},
  };
  const [architecture] = architecturesOf([]);
  await writeOciArchive(path, TOOLS_IMAGE, [{ architecture: architecture!, layers: [root] }], configuration, signal);
  return path;
}

async function pathOf(command: string): Promise<string> {
  return (await run(['sh', '-c', 'command -v "$1"', 'sh', command])).stdout.trim();
}

/** The libraries are those that the dynamic linker says it needs. */
async function copyWithLibraries(program: string, root: string): Promise<void> {
  const { stdout } = await run(['ldd', program]);
  const libraries = [...stdout.matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]!);
  for (const path of [program, ...libraries]) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await copyFile(path, join(root, path));
  }
}
