import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { run } from '../../src/linux/run.ts';

const MODULE = join(import.meta.dirname, 'deploy-tools');
const PACKAGES = ['helm.sh/helm/v3/cmd/helm', 'sigs.k8s.io/kustomize/kustomize/v5'];

export interface DeployTools {
  readonly helm: string;
  readonly kustomize: string;
}

/**
 * The real helm and kustomize, built from the Go module beside this file and kept outside the tree, under the hash of what they
 * are made of. Two builders at once are harmless: whoever is first wins.
 */
export async function deployTools(): Promise<DeployTools> {
  const sources = await Promise.all(['go.mod', 'go.sum'].map((name) => readFile(join(MODULE, name))));
  const hash = createHash('sha256').update(Buffer.concat(sources)).digest('hex').slice(0, 16);
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'weft');
  const folder = join(cache, `deploy-tools-${hash}`);
  if (!existsSync(folder)) {
    await mkdir(cache, { recursive: true });
    const partial = await mkdtemp(`${folder}.`);
    try {
      const env = { PATH: [process.env.PATH ?? '', '/usr/local/go/bin'].join(delimiter) };
      const build = ['go', 'build', '-trimpath', '-buildvcs=false', '-ldflags', '-s -w', '-o', `${partial}/`];
      await run(['nice', '-n', '19', ...build, ...PACKAGES], { cwd: MODULE, env });
      await rename(partial, folder).catch((error: unknown) => {
        if (!existsSync(folder)) throw error;
      });
    } finally {
      await rm(partial, { recursive: true, force: true });
    }
  }
  return { helm: join(folder, 'helm'), kustomize: join(folder, 'kustomize') };
}
