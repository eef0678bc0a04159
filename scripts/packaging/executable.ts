import { chmod, copyFile, mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { type Architecture, DIST, isOwn, packagesOf, ROOT } from './architecture.ts';
import type { Bundle } from './bundle.ts';
import { makeDebianRoot } from './debian-root.ts';

/** What the executable needs of Debian: Node.js is linked against these. */
export const RUNTIME_LIBRARIES = ['libc6', 'libstdc++6', 'libatomic1'] as const;

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
  await writeFile(at('source-files.json'), JSON.stringify(bundle.sources.files));
  await writeFile(at('source-positions'), bundle.sources.entries);
  await copyFile(
    join(packages, `@koromix/koffi-linux-${architecture.node}/linux_${architecture.node}/koffi.node`),
    at('koffi.node'),
  );
  const configuration = {
    main: 'program.js',
    executable: 'node',
    output: 'weft',
    disableExperimentalSEAWarning: true,
    useCodeCache: true,
    execArgv: RUNTIME_FLAGS,
    assets: {
      'forwarder-worker.js': 'worker.js',
      'koffi.node': 'koffi.node',
      'source-files.json': 'source-files.json',
      'source-positions': 'source-positions',
    },
  };
  await writeFile(at('executable.json'), JSON.stringify(configuration));
  // With the flags it will run with: V8 refuses a code cache that was made with others.
  const node = [at('node'), ...RUNTIME_FLAGS, '--build-sea', 'executable.json'];
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
  await rm(work, { recursive: true });
  return folder;
}
