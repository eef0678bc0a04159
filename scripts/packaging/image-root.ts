import { chmod, copyFile, mkdir, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Architecture, DIST, koffiAddon, ROOT } from './architecture.ts';
import type { Bundle } from './bundle.ts';
import { makeDebianRoot } from './debian-root.ts';
import { RUNTIME_LIBRARIES, SBOM_NAME, sbom } from './executable.ts';

/** busybox is the shell for the scripts of deploy/image/ and for whoever looks into a running container. */
const PACKAGES = [
  ...RUNTIME_LIBRARIES,
  'iproute2',
  'nftables',
  'iptables',
  'wireguard-tools',
  'busybox',
  'containernetworking-plugins',
];

/** Those that flannel's CNI configuration names, and the one that every container runtime starts by itself. */
const CNI_PLUGINS = ['bridge', 'host-local', 'loopback', 'portmap'];

const BUSYBOX = (
  'sh [ awk basename cat chmod cp cut date df dirname du echo env expr false find free grep head hostname id kill less ln ls ' +
  'mkdir mknod mktemp more mount mv nc netstat ping ping6 ps pwd readlink rm rmdir sed seq sha256sum sleep sort stat sync ' +
  'tail tar tee test timeout top touch tr traceroute true uname uniq uptime vi watch wc wget which xargs'
).split(' ');

const IPTABLES = ['', '6'].flatMap((family) => ['', '-save', '-restore'].map((verb) => `ip${family}tables${verb}`));

/** Where flannel's images have these, so that its own manifest works with the image as well. */
const FLANNEL_PATHS = { 'opt/bin/flanneld': '../../usr/bin/weft', flannel: 'usr/bin/weft' };

/** How containers of the image start, unless told otherwise; deploy/image/Dockerfile says the same. */
export const IMAGE_DEFAULTS = { Env: ['PATH=/usr/sbin:/usr/bin:/opt/bin'], Entrypoint: ['/opt/bin/flanneld'] } as const;

/** The annotations of the OCI image specification that registries and scanners show; also those of deploy/image/Dockerfile. */
export function imageLabels(version: string): Readonly<Record<string, string>> {
  return {
    'org.opencontainers.image.title': 'weft',
    'org.opencontainers.image.description': "Overlay network for containers that takes flannel's place",
    'org.opencontainers.image.version': version,
    'org.opencontainers.image.licenses': 'Apache-2.0',
  };
}

/** What is below `/` in the image: its two layers, the one that changes less often first. */
export interface ImageRoot {
  readonly debian: string;
  readonly weft: string;
}

/** `dist/linux-ARCH` must hold what the bundle makes (see executable.ts). The folders are below `folder`, which is made anew. */
export async function makeImageRoot(
  folder: string,
  bundle: Bundle,
  architecture: Architecture,
  signal: AbortSignal,
): Promise<ImageRoot> {
  await rm(folder, { recursive: true, force: true });
  const debian = join(folder, 'debian');
  const packages = await makeDebianRoot(debian, PACKAGES, architecture, signal);
  await keepOnly(join(debian, 'usr/lib/cni'), CNI_PLUGINS);
  for (const name of IPTABLES) await rm(join(debian, 'usr/sbin', name), { force: true });
  for (const name of BUSYBOX) await symlink('busybox', join(debian, 'usr/bin', name));
  for (const name of ['dev', 'opt', 'proc', 'root', 'run', 'sys', 'tmp', 'var/tmp', 'var/lib']) {
    await mkdir(join(debian, name), { recursive: true });
  }
  for (const name of ['tmp', 'var/tmp']) await chmod(join(debian, name), 0o1777);
  await symlink('../run', join(debian, 'var/run'));
  await writeFile(join(debian, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  await writeFile(join(debian, 'etc/group'), 'root:x:0:\n');

  const weft = join(folder, 'weft');
  const built = join(DIST, `linux-${architecture.name}`);
  const put = async (from: string, to: string, mode: number): Promise<void> => {
    await mkdir(dirname(join(weft, to)), { recursive: true });
    await copyFile(from, join(weft, to));
    await chmod(join(weft, to), mode);
  };
  await put(join(built, 'weft'), 'usr/bin/weft', 0o755);
  // Where src/cmd/single-executable/koffi-addon.ts looks for it: the root file system of the container may be read-only.
  await put(koffiAddon(architecture), 'usr/lib/weft/koffi.node', 0o644);
  await put(join(built, 'LICENCES'), 'usr/share/doc/weft/LICENCES', 0o644);
  await put(join(ROOT, 'LICENSE'), 'usr/share/doc/weft/copyright', 0o644);
  await put(join(ROOT, 'deploy/image/install-conf'), 'opt/bin/install-conf', 0o755);
  await put(join(ROOT, 'deploy/image/iptables-flavour'), 'usr/sbin/iptables-flavour', 0o755);
  // The image has no dpkg database: scanners find Debian's packages, and all others, by this.
  await writeFile(join(weft, 'usr/share/doc/weft', SBOM_NAME), await sbom('container', bundle, architecture, packages));
  await chmod(join(weft, 'usr/share/doc/weft', SBOM_NAME), 0o644);
  for (const name of IPTABLES) await symlink('iptables-flavour', join(weft, 'usr/sbin', name));
  for (const name of ['flanneld', 'flannel']) await symlink('weft', join(weft, 'usr/bin', name));
  for (const [path, target] of Object.entries(FLANNEL_PATHS)) await symlink(target, join(weft, path));
  return { debian, weft };
}

async function keepOnly(folder: string, names: readonly string[]): Promise<void> {
  for (const name of await readdir(folder)) if (!names.includes(name)) await rm(join(folder, name));
}
