import { chmod, copyFile, mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { type Architecture, DIST, isOwn, koffiAddon, packagesOf, ROOT } from './architecture.ts';
import type { Bundle } from './bundle.ts';
import { makeDebianRoot } from './debian-root.ts';

import { type DebianPackage, type LockFile, lockKeyOf, sbomOf } from './sbom.ts';

/** What the executable needs of Debian: Node.js is linked against these. */
export const RUNTIME_LIBRARIES = ['libc6', 'libstdc++6', 'libatomic1'] as const;

/** Of the bill of materials, beside the executable and in the image. */
export const SBOM_NAME = 'weft.cdx.json';

/** @param debian what is in it besides the executable and its parts. */
export async function sbom(
  type: 'application' | 'container',
  bundle: Bundle,
  architecture: Architecture,
  debian: readonly DebianPackage[] = [],
): Promise<string> {
  const lock = JSON.parse(await readFile(join(ROOT, 'package-lock.json'), 'utf8')) as LockFile;
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const native = [
    `node_modules/node-linux-${architecture.node}`,
    `node_modules/@koromix/koffi-linux-${architecture.node}`,
  ];
  return sbomOf(lock, { type, version, npm: [...bundle.packages.map(lockKeyOf), ...native], debian });
}

/** The names under which the one executable is another program. */
const NAMES = ['flanneld', 'flannel'] as const;

/**
 * Makes dist/linux-ARCH/weft and its other names, and returns that folder. The code cache in it makes every start faster, and only
 * that architecture's own Node.js can make it: a foreign one runs in an emulator here.
 */
export async function makeExecutable(bundle: Bundle, architecture: Architecture, signal: AbortSignal): Promise<string> {
  const packages = packagesOf(architecture);
  const work = join(ROOT, '.cache', `executable-${architecture.name}`);
  const folder = join(DIST, `linux-${architecture.name}`);
  await rm(work, { recursive: true, force: true });
  await mkdir(work, { recursive: true });
  const at = (name: string): string => join(work, name);
  await copyFile(join(packages, `node-linux-${architecture.node}/bin/node`), at('node'));
  // Before the injection: afterwards it would take the injected part for symbols that nobody needs.
  await run([isOwn(architecture) ? 'strip' : `${architecture.gnu}-linux-gnu-strip`, at('node')], { signal });
  await writeFile(at('program.js'), bundle.program);
  await writeFile(at('worker.js'), bundle.worker);
  const parts = Array.from(bundle.parts, ([name, text]) => [`${name}.js`, text] as const);
  for (const [name, text] of parts) await writeFile(at(name), text);
  for (const [name, bytes] of bundle.page) await writeFile(at(name), bytes);
  await writeFile(at('source-files.json'), JSON.stringify(bundle.sources.files));
  await writeFile(at('source-positions'), bundle.sources.entries);
  await copyFile(koffiAddon(architecture), at('koffi.node'));
  const configuration = {
    main: 'program.js',
    executable: 'node',
    output: 'weft',
    disableExperimentalSEAWarning: true,
    useCodeCache: true,
    execArgv: RUNTIME_FLAGS,
    // NODE_OPTIONS of a container runtime is not meant for the plugin that it starts.
    execArgvExtension: 'none',
    assets: {
      'forwarder-worker.js': 'worker.js',
      ...Object.fromEntries(parts.map(([name]) => [name, name])),
      'koffi.node': 'koffi.node',
      'source-files.json': 'source-files.json',
      'source-positions': 'source-positions',
      ...Object.fromEntries(Array.from(bundle.page.keys(), (name) => [`page/${name}`, name])),
    },
  };
  await writeFile(at('executable.json'), JSON.stringify(configuration));
  // With the flags it will run with: V8 refuses a code cache that was made with others. The seed, which is not among those it
  // compares, makes the cache the same each time.
  const node = [at('node'), ...RUNTIME_FLAGS, '--random-seed=1', '--build-sea', 'executable.json'];
  if (isOwn(architecture)) {
    await run(node, { cwd: work, signal });
  } else {
    await makeDebianRoot(at('libraries'), RUNTIME_LIBRARIES, architecture, signal);
    await run([`qemu-${architecture.gnu}-static`, '-L', at('libraries'), ...node], { cwd: work, signal });
  }
  await chmod(at('weft'), 0o755);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  await rename(at('weft'), join(folder, 'weft'));
  for (const name of NAMES) await symlink('weft', join(folder, name));
  await writeFile(join(folder, 'LICENCES'), bundle.licences);
  await writeFile(join(folder, SBOM_NAME), await sbom('application', bundle, architecture));
  await rm(work, { recursive: true });
  return folder;
}
