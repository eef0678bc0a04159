import { readFileSync } from 'node:fs';
import { arch, platform } from 'node:process';
import { PLUGIN_MARK } from '../../cni/plugin-mark.ts';

interface Build {
  readonly version: string;
  readonly commit: string;
}

/** Set when the plugin is bundled (scripts/build-cni.ts). */
declare const WEFT_BUILD: Build | undefined;

/** Go's names for what Node.js calls otherwise. */
const GO_ARCH: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386' };

/** The line that the plugin prints when it is started by hand, in the form of flannel's. */
export function about(): string {
  const { version, commit } = typeof WEFT_BUILD === 'undefined' ? checkout() : WEFT_BUILD;
  return `CNI Plugin flannel version ${version} (${platform}/${GO_ARCH[arch] ?? arch}) commit ${commit}, ${PLUGIN_MARK}`;
}

/** Read here and not at the start: nobody but this line needs it. */
function checkout(): Build {
  const manifest = readFileSync(new URL('../../../package.json', import.meta.url), 'utf8');
  return { version: (JSON.parse(manifest) as { version: string }).version, commit: 'unknown' };
}
