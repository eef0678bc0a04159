import { readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { cachePath, madeOnce, runBuilder } from '../../../src/lab/build-cache.ts';
import { run } from '../../../src/linux/run.ts';

/** Debian's kernel for virtual machines: it has modules that this machine's kernel may lack. */
export interface GuestKernel {
  readonly image: string;
  /** The modules asked for and what they need, each after what it needs: paths of .ko files. */
  readonly modules: readonly string[];
}

const PACKAGE = 'linux-image-cloud-amd64';

/**
 * The newest that apt knows, fetched once and kept under its version.
 * @throws WeftError WEFT_COMMAND_FAILED, Error for a module that it does not have.
 */
export async function guestKernel(modules: readonly string[]): Promise<GuestKernel> {
  const folder = await kernelFolder(await kernelPackage());
  const [boot, lib] = [join(folder, 'boot'), join(folder, 'lib/modules')];
  const image = (await readdir(boot)).find((name) => name.startsWith('vmlinuz-'));
  if (image === undefined) throw new Error(`${boot} has no kernel`);
  return { image: join(boot, image), modules: await withNeeds(lib, modules) };
}

/** The package that has the kernel itself: `linux-image-6.1.0-56-cloud-amd64=6.1.192-2`. */
async function kernelPackage(): Promise<string> {
  const { stdout } = await run(['apt-cache', 'show', '--no-all-versions', PACKAGE]);
  const [, name, version] = /^Depends:.*?\b(linux-image-\S+) \(= ([^)]+)\)/m.exec(stdout) ?? [];
  if (name === undefined) throw new Error(`apt knows no ${PACKAGE}: run apt-get update, and check its sources`);
  return `${name}=${version}`;
}

async function kernelFolder(package_: string): Promise<string> {
  const folder = cachePath(package_.replace('=', '-').replaceAll(/[^\w.+-]/g, '_'));
  await madeOnce(folder, async (dir) => {
    await runBuilder(['apt-get', 'download', '-o', 'APT::Sandbox::User=root', package_], {
      cwd: dir,
      timeoutMs: 300_000,
    });
    const [deb = ''] = await readdir(dir);
    await runBuilder(['dpkg-deb', '-x', deb, 'files'], { cwd: dir });
    // Newer Debians have the modules compressed; what loads them in the guest does not unpack.
    const packed = await filesIn(join(dir, 'files/lib/modules'), '.ko.xz');
    if (packed.length > 0) await runBuilder(['xz', '-d', ...packed]);
    return join(dir, 'files');
  });
  return folder;
}

async function filesIn(folder: string, ending: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(ending))
    .map((entry) => join(entry.parentPath, entry.name));
}

async function withNeeds(lib: string, wanted: readonly string[]): Promise<string[]> {
  const files = await filesIn(lib, '.ko');
  const byName = new Map(files.map((file) => [nameOf(file), file]));
  const found: string[] = [];
  const add = async (name: string): Promise<void> => {
    const file = byName.get(name);
    if (file === undefined) throw new Error(`the guest's kernel has no module ${name} (${lib})`);
    if (found.includes(file)) return;
    // `depends=` of the section .modinfo, a list of names with commas.
    const [, needs = ''] = /\0depends=([^\0]*)\0/.exec(await readFile(file, 'latin1')) ?? [];
    for (const need of needs.split(',')) if (need !== '') await add(nameOf(need));
    found.push(file);
  };
  for (const name of wanted) await add(name);
  return found;
}

/** Of a module, or of its file: the kernel takes `-` and `_` for the same. */
function nameOf(file: string): string {
  return basename(file, '.ko').replaceAll('-', '_');
}
