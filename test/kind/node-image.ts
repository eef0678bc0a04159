import { globSync } from 'node:fs';
import {
  appendFile,
  chmod,
  copyFile,
  cp,
  link,
  mkdir,
  readFile,
  rename,
  rm,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { architecturesOf } from '../../scripts/packaging/architecture.ts';
import { makeDebianRoot } from '../../scripts/packaging/debian-root.ts';
import { writeOciArchive } from '../../scripts/packaging/oci-archive.ts';
import { cachePath, hashOf, madeOnce, runBuilder } from '../../src/lab/build-cache.ts';
import { kubernetesBinaries } from '../../src/lab/servers/kube-build.ts';
import { run } from '../../src/linux/run.ts';
import { TOOLS_IMAGE } from '../e2e/nodes/node-config.ts';
import { buildToolsImage } from '../e2e/nodes/test-images.ts';
import { type KindTools, kindTools, NODE_PROGRAMS } from './kind-tools.ts';

export interface NodeImage {
  readonly name: string;
  /** An archive that `docker load` takes. */
  readonly archive: string;
}

/** As in the Dockerfile of kind's base image, and what tests look at nodes with. */
const PACKAGES = [
  ...[
    'systemd',
    'systemd-sysv',
    'dbus',
    'libnss-myhostname',
    'conntrack',
    'iptables',
    'nftables',
    'iproute2',
    'ethtool',
  ],
  ...[
    'util-linux',
    'mount',
    'kmod',
    'libseccomp2',
    'bash',
    'ca-certificates',
    'curl',
    'jq',
    'procps',
    'iputils-ping',
    'socat',
  ],
];
/** Of the image that all of the control plane runs from; kube-proxy is the one that needs them. */
const CONTROL_PLANE_PACKAGES = ['iptables', 'conntrack', 'kmod', 'ca-certificates'];
/** Under which names the multi-call binary is in the node, and in the image of the control plane. */
const ON_NODE = ['kubeadm', 'kubectl', 'kubelet'] as const;
const IN_IMAGE = [
  ...['coredns', 'etcd', 'kube-apiserver', 'kube-controller-manager', 'kube-proxy', 'kube-scheduler'],
] as const;

/** Units that a container has no use for: kind's base image removes the same. */
const UNITS_REMOVED = [
  'lib/systemd/system/sysinit.target.wants/systemd-tmpfiles-setup.service',
  'lib/systemd/system/multi-user.target.wants/*',
  'etc/systemd/system/*.wants/*',
  'lib/systemd/system/local-fs.target.wants/*',
  'lib/systemd/system/sockets.target.wants/*{udev,initctl}*',
  'lib/systemd/system/basic.target.wants/*',
  // Would write sysctls of the machine.
  'usr/lib/sysctl.d/*',
];

/**
 * kubelet sets these where it finds other values. They are the machine's, so a node is shown files that hold them. Runs before
 * kind's own entry point.
 */
const ENTRY_POINT = `#!/bin/sh
set -eu
show() {
  file=/kind/sysctl.$(echo "$1" | tr / .)
  echo "$2" >"$file"
  mount --bind "$file" "/proc/sys/$1"
}
show vm/overcommit_memory 1
show vm/panic_on_oom 0
show kernel/panic 10
show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000
show kernel/keys/root_maxbytes 25000000
exec "$@"
`;

/** kind's own manifest brings a provisioner that nobody here has an image of. */
const STORAGE = `apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
provisioner: kubernetes.io/no-provisioner
`;

/** What the image depends on beside the programs in it. */
const RECIPE = [
  './node-image.ts',
  '../../scripts/packaging/debian-root.ts',
  '../../scripts/packaging/oci-archive.ts',
  '../e2e/nodes/test-images.ts',
];

/** In a chroot and namespaces of its own: containerd takes in the archives of /images and knows the second of two names as well. */
const IMPORT = `set -eu
mount --rbind /dev dev
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs run
exec chroot . sh -euc '
  containerd --log-level=warn &
  server=$!
  for try in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.2; done
  for archive in /images/*.tar; do ctr --namespace=k8s.io images import "$archive"; done
  while read -r from to; do ctr --namespace=k8s.io images tag "$from" "$to"; done </images/names
  kill $server
  wait $server
'
`;

/**
 * The image of kind's nodes: Debian, containerd 2, runc and Kubernetes, with every image that a cluster and the tests' pods need
 * already in containerd's store. Made without a registry of images, once, and kept in the cache.
 *
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED
 */
export async function nodeImage(say: (line: string) => void, signal: AbortSignal): Promise<NodeImage> {
  const kubernetes = await kubernetesBinaries(say, signal);
  const tools = await kindTools({ say, signal });
  const { VERSION_CODENAME: suite } = parseOsRelease(await readFile('/etc/os-release', 'utf8'));
  const recipe = await Promise.all(RECIPE.map((file) => readFile(new URL(file, import.meta.url))));
  const hash = hashOf(...recipe, basename(dirname(kubernetes.binary)), basename(tools.folder));
  const name = `kindest/node:${kubernetes.version}`;
  const archive = cachePath(`kind-node-${kubernetes.version}-${tools.versions}-${suite}-${hash}.tar`);
  const make = async (dir: string): Promise<string> => {
    const startedAt = performance.now();
    say(`making the image of kind's nodes: 5 minutes the first time`);
    const root = join(dir, 'root');
    await makeNodeRoot(root, suite!, kubernetes, tools, signal);
    await importImages(dir, root, kubernetes, signal);
    // Debian's versions are not known before they are there, so no name of a file can have them.
    const list = ['dpkg-query', `--admindir=${root}/var/lib/dpkg`, '--show'];
    await writeFile(`${archive}.packages`, (await run(list, { signal })).stdout);
    const made = await pack(dir, root, name, signal);
    say(`made in ${Math.round((performance.now() - startedAt) / 1000)} s`);
    return made;
  };
  await madeOnce(archive, make, { say, signal });
  return { name, archive };
}

interface Kubernetes {
  readonly version: string;
  readonly binary: string;
}

async function makeNodeRoot(
  root: string,
  suite: string,
  kubernetes: Kubernetes,
  tools: KindTools,
  signal: AbortSignal,
): Promise<void> {
  const include = `--include=${PACKAGES.join(',')}`;
  // What it mounts in there goes with the namespace, also when it is killed.
  const namespaces = ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', '--'];
  await runBuilder([...namespaces, 'mmdebstrap', '--mode=root', '--variant=minbase', include, suite!, root], {
    signal,
  });
  for (const pattern of UNITS_REMOVED) {
    for (const path of globSync(pattern, { cwd: root })) await rm(join(root, path));
  }
  await cp(tools.baseFiles, root, { recursive: true });
  for (const path of globSync('{kind,usr/local}/bin/*', { cwd: root })) await chmod(join(root, path), 0o755);
  for (const program of NODE_PROGRAMS)
    await copyFile(join(tools.folder, program), join(root, 'usr/local/bin', program));
  await copyFile(kubernetes.binary, join(root, 'usr/bin/kube'));
  for (const program of ON_NODE) await symlink('kube', join(root, 'usr/bin', program));

  // What a machine without CAP_SYS_RESOURCE, and one with version 1 of cgroups, cannot do otherwise.
  await edit(
    join(root, 'etc/containerd/config.toml'),
    'restrict_oom_score_adj = false',
    'restrict_oom_score_adj = true',
  );
  await edit(join(root, 'etc/systemd/system/containerd.service'), /^OOMScoreAdjust=.*\n/m, '');
  await edit(join(root, 'etc/default/kubelet'), /$/, ' --config-dir=/kind/kubelet.conf.d\n');
  await mkdir(join(root, 'kind/kubelet.conf.d'));
  await writeFile(
    join(root, 'kind/kubelet.conf.d/10-test-bed.conf'),
    JSON.stringify({ apiVersion: 'kubelet.config.k8s.io/v1beta1', kind: 'KubeletConfiguration', failCgroupV1: false }),
  );

  const spec = JSON.parse((await run([join(root, 'usr/local/bin/ctr'), 'oci', 'spec'])).stdout) as {
    hooks?: object;
    process: { rlimits?: unknown };
  };
  delete spec.process.rlimits;
  spec.hooks = { createContainer: [{ path: '/kind/bin/mount-product-files.sh' }] };
  await writeFile(join(root, 'etc/containerd/cri-base.json'), JSON.stringify(spec));
  await writeFile(join(root, 'kind/version'), kubernetes.version);
  await mkdir(join(root, 'kind/manifests'));
  await writeFile(join(root, 'kind/manifests/default-storage.yaml'), STORAGE);
  await writeFile(join(root, 'kind/bin/test-bed-entrypoint'), ENTRY_POINT);
  await chmod(join(root, 'kind/bin/test-bed-entrypoint'), 0o755);
  for (const folder of ['etc/kubernetes/manifests', 'opt/cni/bin'])
    await mkdir(join(root, folder), { recursive: true });
  await appendFile(join(root, 'etc/systemd/journald.conf'), 'ReadKMsg=no\n');
  const systemctl = ['chroot', root, 'systemctl'];
  await run([...systemctl, 'enable', 'kubelet.service', 'containerd.service', 'undo-mount-hacks.service'], { signal });
  await run([...systemctl, 'mask', 'systemd-binfmt.service'], { signal });
}

/** All of Kubernetes' own images are one, for all of its programs are one file; what each runs is in its pod's `command`. */
async function importImages(dir: string, root: string, kubernetes: Kubernetes, signal: AbortSignal): Promise<void> {
  const images = join(root, 'images');
  await mkdir(images);
  const [architecture] = architecturesOf([]);
  const layer = join(dir, 'control-plane');
  await makeDebianRoot(layer, CONTROL_PLANE_PACKAGES, architecture!, signal);
  const programs = join(layer, 'usr/local/bin');
  await mkdir(programs, { recursive: true });
  await copyFile(kubernetes.binary, join(programs, 'kube'));
  for (const program of IN_IMAGE) await symlink('kube', join(programs, program));
  // Debian's maintainer scripts did not run, which make these links.
  for (const name of [
    'iptables',
    'iptables-save',
    'iptables-restore',
    'ip6tables',
    'ip6tables-save',
    'ip6tables-restore',
  ]) {
    await symlink('xtables-nft-multi', join(layer, 'usr/sbin', name));
  }
  const controlPlane = 'localhost/weft-kind/control-plane:1';
  const configuration = {
    Env: ['PATH=/usr/local/bin:/usr/sbin:/usr/bin'],
    // CoreDNS' is the one pod that names no program, and has only arguments.
    Entrypoint: ['/usr/local/bin/coredns'],
    Labels: {},
  };
  const archive = join(images, 'control-plane.tar');
  await writeOciArchive(
    archive,
    controlPlane,
    [{ architecture: architecture!, layers: [layer] }],
    configuration,
    signal,
  );
  await rm(layer, { recursive: true });
  await rename(await buildToolsImage(dir, signal), join(images, 'tools.tar'));
  await rm(join(dir, 'tools-image'), { recursive: true });

  const list = ['kubeadm', 'config', 'images', 'list', `--kubernetes-version=${kubernetes.version}`];
  const wanted = (await run(['chroot', root, ...list], { signal })).stdout.split('\n').filter(Boolean);
  const pause = /sandbox_image = "(.+)"/.exec(await readFile(join(root, 'etc/containerd/config.toml'), 'utf8'))?.[1];
  const names = [...wanted.filter((image) => !image.includes('/pause:')).map((image) => `${controlPlane} ${image}`)];
  await writeFile(join(images, 'names'), `${[...names, `${TOOLS_IMAGE} ${pause}`].join('\n')}\n`);

  const namespaces = ['--mount', '--net', '--pid', '--fork', '--kill-child'];
  await runBuilder(['unshare', ...namespaces, '--', 'sh', '-c', IMPORT], { cwd: root, signal });
  await rm(images, { recursive: true });
  // The same bytes again: they need not be twice in the image.
  for (const copy of globSync('var/lib/containerd/**/usr/local/bin/kube', { cwd: root })) {
    await rm(join(root, copy));
    await link(join(root, 'usr/bin/kube'), join(root, copy));
  }
}

/** The archive that `docker save` would write. (`docker import` cannot set the signal that systemd stops at.) */
async function pack(dir: string, root: string, name: string, signal: AbortSignal): Promise<string> {
  const layer = join(dir, 'layer.tar');
  await run(['tar', '-C', root, '--numeric-owner', '--one-file-system', '-cf', layer, '.'], { signal });
  const sum = (await run(['sha256sum', layer], { signal })).stdout.split(' ')[0];
  const [architecture] = architecturesOf([]);
  const configuration = {
    os: 'linux',
    architecture: architecture!.name,
    config: {
      Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'container=docker'],
      Entrypoint: ['/kind/bin/test-bed-entrypoint', '/usr/local/bin/entrypoint', '/sbin/init'],
      StopSignal: 'SIGRTMIN+3',
    },
    rootfs: { type: 'layers', diff_ids: [`sha256:${sum}`] },
  };
  await writeFile(join(dir, 'config.json'), JSON.stringify(configuration));
  const manifest = [{ Config: 'config.json', RepoTags: [name], Layers: [basename(layer)] }];
  await writeFile(join(dir, 'manifest.json'), JSON.stringify(manifest));
  const archive = join(dir, 'image.tar');
  await run(['tar', '-C', dir, '-cf', archive, 'manifest.json', 'config.json', 'layer.tar'], { signal });
  return archive;
}

/** @throws Error when it is not there: kind's file has changed. */
async function edit(path: string, what: string | RegExp, replacement: string): Promise<void> {
  const text = await readFile(path, 'utf8');
  const changed = text.replace(what, replacement);
  if (changed === text) throw new Error(`${path} has no ${what}`);
  await writeFile(path, changed);
}

function parseOsRelease(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries([...text.matchAll(/^(\w+)="?(.*?)"?$/gm)].map(([, key, value]) => [key!, value!]));
}
