import { createHash } from 'node:crypto';
import { globSync, rmSync } from 'node:fs';
import { mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../src/linux/run.ts';
import { type Architecture, ROOT } from './architecture.ts';
import type { DebianPackage } from './sbom.ts';

/** Neither read by a program nor asked for by a licence (the files `copyright` stay). */
const UNUSED = [
  'etc/{cron.daily,default,init.d}',
  'usr/include',
  'usr/lib/*/gconv',
  'usr/lib/systemd',
  'usr/sbin/*policy-rc.d*',
  'usr/share/{apport,bash-completion,bug,debconf,doc-base,initramfs-tools,lintian,locale,man,perl5,zsh}',
  'usr/share/doc/*/{NEWS,README,TODO,changelog,examples}*',
  'var/lib/dpkg',
];

/**
 * Makes `folder` a root file system with these Debian packages and all that they depend on, for any architecture. apt works
 * for an empty system of its own, so that neither the machine's packages nor `dpkg --add-architecture` matter. Maintainer
 * scripts do not run: another architecture's could not, and nothing that is used here needs one. Returns what is in it.
 */
export async function makeDebianRoot(
  folder: string,
  packages: readonly string[],
  architecture: Architecture,
  signal: AbortSignal,
): Promise<readonly DebianPackage[]> {
  const state = join(ROOT, '.cache', `apt-${architecture.name}`);
  const lists = join(state, 'lists');
  const archives = join(state, 'archives');
  const status = join(state, 'status');
  for (const each of [lists, archives]) await mkdir(join(each, 'partial'), { recursive: true });
  await writeFile(status, '');
  const settings = {
    'APT::Architecture': architecture.name,
    'APT::Architectures': architecture.name,
    'APT::Install-Recommends': 'false',
    'APT::Sandbox::User': 'root',
    'Acquire::Languages': 'none',
    'Acquire::Retries': '3',
    'Dir::Cache': state,
    'Dir::Cache::archives': archives,
    'Dir::State::Lists': lists,
    'Dir::State::status': status,
    'Debug::NoLocking': 'true',
  };
  const apt = [
    'apt-get',
    '-qq',
    '-y',
    ...Object.entries(settings).flatMap(([key, value]) => ['-o', `${key}=${value}`]),
  ];
  await run([...apt, 'update'], { signal });
  const { stdout } = await run([...apt, '--simulate', 'install', ...packages], { signal });
  await run([...apt, '--download-only', 'install', ...packages], { signal });

  await rm(folder, { recursive: true, force: true });
  await mkdir(join(folder, 'usr'), { recursive: true });
  const installed: DebianPackage[] = [];
  for (const { file, ...named } of packagesIn(stdout)) {
    const path = join(archives, file);
    await run(['dpkg-deb', '--extract', path, folder], { signal });
    installed.push({
      ...named,
      sha256: createHash('sha256')
        .update(await readFile(path))
        .digest('hex'),
    });
  }
  // Packages still come with both /bin and /usr/bin; an installed system has them merged.
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    const from = join(folder, name);
    const to = join(folder, 'usr', name);
    await mkdir(from, { recursive: true });
    await mkdir(to, { recursive: true });
    await run(['cp', '-a', '--remove-destination', `${from}/.`, to], { signal });
    await rm(from, { recursive: true });
    await symlink(join('usr', name), from);
  }
  for (const pattern of UNUSED) {
    for (const path of globSync(pattern, { cwd: folder })) rmSync(join(folder, path), { recursive: true, force: true });
  }
  return installed;
}

/**
 * From lines such as `Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])`: the packages, and their files as apt names
 * them.
 */
function packagesIn(simulation: string): (Omit<DebianPackage, 'sha256'> & { readonly file: string })[] {
  const lines = simulation.matchAll(/^Inst (\S+) (?:\[\S+\] )?\((\S+) (.*?)\[(\S+)\]\)/gm);
  return Array.from(lines, ([, name, version, origin, architecture]) => ({
    name: name!,
    version: version!,
    architecture: architecture!,
    release: /Debian[^:]*:(\d+)/.exec(origin!)?.[1] ?? 'unknown',
    file: `${name}_${version!.replaceAll(':', '%3a')}_${architecture}.deb`,
  }));
}
