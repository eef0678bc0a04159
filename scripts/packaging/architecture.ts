import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { WeftError } from '../../src/errors.ts';

export const ROOT: string = join(import.meta.dirname, '..', '..');
export const DIST: string = join(ROOT, 'dist');

/** One of the two machines that weft runs on, in everybody's words for it. */
export interface Architecture {
  /** Of Debian and of OCI images. */
  readonly name: 'amd64' | 'arm64';
  /** Of Node.js. */
  readonly node: 'x64' | 'arm64';
  /** Of GNU. */
  readonly gnu: 'x86_64' | 'aarch64';
}

const ARCHITECTURES: readonly Architecture[] = [
  { name: 'amd64', node: 'x64', gnu: 'x86_64' },
  { name: 'arm64', node: 'arm64', gnu: 'aarch64' },
];

/** @throws WeftError WEFT_USAGE */
export function architecturesOf(names: readonly string[]): Architecture[] {
  if (names.length === 0) return ARCHITECTURES.filter(isOwn);
  return names.map((name) => {
    const found = ARCHITECTURES.find((architecture) => architecture.name === name);
    if (found !== undefined) return found;
    throw new WeftError('WEFT_USAGE', `unknown architecture "${name}"; known: amd64, arm64`);
  });
}

export function isOwn(architecture: Architecture): boolean {
  return architecture.node === process.arch;
}

/** npm packages with the native parts for that architecture; scripts/setup.sh installs them. @throws WeftError */
export function packagesOf(architecture: Architecture): string {
  const folder = isOwn(architecture) ? ROOT : join(ROOT, '.cache', `packages-${architecture.name}`);
  const packages = join(folder, 'node_modules');
  if (existsSync(join(packages, `node-linux-${architecture.node}`))) return packages;
  throw new WeftError('WEFT_COMMAND_MISSING', `the npm packages for ${architecture.name} are not in ${packages}`, {
    hint: `Run scripts/setup.sh dist-${architecture.name}, or make with ARCH="amd64 arm64".`,
  });
}

/** koffi's native part. @throws WeftError */
export function koffiAddon(architecture: Architecture): string {
  const name = `linux_${architecture.node}`;
  return join(packagesOf(architecture), `@koromix/koffi-linux-${architecture.node}/${name}/koffi.node`);
}
