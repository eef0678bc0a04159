import assert from 'node:assert/strict';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { run } from '../../src/linux/run.ts';
import { Bed } from '../e2e/nodes/bed.ts';
import { kindTools } from './kind-tools.ts';

/**
 * INSTALL.md's table of runtimes: whether a container in which /dev/net is mounted, as the manifest does, may open /dev/net/tun. Each
 * runtime by itself, with the device rules that its own `spec` writes.
 */

interface Runtime {
  /** Its first line of `--version`. */
  readonly versionLine: RegExp;
  readonly program: () => Promise<string>;
  /** Of major and minor version and patch. */
  readonly allows: (minor: number, patch: number) => boolean;
}

const RUNTIMES: Readonly<Record<string, Runtime>> = {
  "Debian's runc": {
    versionLine: /^runc version 1\.(\d+)\.(\d+)/,
    program: () => pathOf('runc'),
    allows: runcAllows,
  },
  'runc on kind': {
    versionLine: /^runc version 1\.(\d+)\.(\d+)/,
    program: async () => join((await kindTools()).folder, 'runc'),
    allows: runcAllows,
  },
  "Debian's crun": {
    versionLine: /^crun version 1\.(\d+)(?:\.(\d+))?/,
    program: () => pathOf('crun'),
    // Of 2022 to January 2025.
    allows: (minor) => minor < 5 || minor >= 20,
  },
};

/** crun refuses a machine that has both versions of cgroups at once, so that both are given the first alone. */
const RUN =
  'if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; cd "$1"; shift; exec "$@"';

const cleanup = new AsyncDisposableStack();
let bed: Bed;

before(async () => {
  bed = cleanup.use(await Bed.open({ hosts: 1, purpose: 'device rules of runtimes' }));
});
after(() => cleanup.disposeAsync());

for (const [name, { versionLine, program, allows }] of Object.entries(RUNTIMES)) {
  test(`${name}: may a container open the device that is mounted in it?`, async (t) => {
    const runtime = await program();
    const { stdout: version } = await run([runtime, '--version']);
    const [line, minor, patch] = versionLine.exec(version) ?? [];
    assert.ok(line !== undefined, version);
    const allowed = allows(Number(minor), Number(patch ?? 0));
    t.diagnostic(`${line}: ${allowed ? 'allowed' : 'not allowed'}`);

    // The cgroup goes with the bed, if this is killed.
    const id = `weft-${bed.topology.id}-${Object.keys(RUNTIMES).indexOf(name)}`;
    const bundle = await makeBundle(join(bed.dir, id), runtime, id);
    const command = [runtime, `--root=${bed.dir}/runtimes`, 'run', id];
    const { stdout, stderr } = await run(
      ['unshare', '--mount', '--propagation=private', '--', 'sh', '-ec', RUN, 'sh', bundle, ...command],
      { okExitCodes: 'any' },
    );
    if (allowed) assert.equal(stdout, 'opened\n', stderr);
    else assert.match(stderr, /\/dev\/net\/tun: Operation not permitted/);
  });
}

function runcAllows(minor: number, patch: number): boolean {
  return minor !== 2 || patch >= 4;
}

async function pathOf(command: string): Promise<string> {
  return (await run(['sh', '-c', 'command -v "$1"', 'sh', command])).stdout.trim();
}

/** A container that opens the device once. Returns its folder. */
async function makeBundle(dir: string, runtime: string, cgroup: string): Promise<string> {
  for (const folder of ['bin', 'dev', 'proc']) await mkdir(join(dir, 'rootfs', folder), { recursive: true });
  await copyFile(await pathOf('busybox'), join(dir, 'rootfs/bin/busybox'));
  await run([runtime, 'spec'], { cwd: dir });
  const path = join(dir, 'config.json');
  const spec = JSON.parse(await readFile(path, 'utf8')) as {
    process: { terminal: boolean; args: string[] };
    mounts: object[];
    linux: { cgroupsPath?: string };
  };
  spec.process.terminal = false;
  spec.process.args = ['/bin/busybox', 'sh', '-c', ': <>/dev/net/tun && echo opened'];
  spec.mounts.push({ destination: '/dev/net', type: 'bind', source: '/dev/net', options: ['rbind', 'rw'] });
  spec.linux.cgroupsPath = `/${cgroup}`;
  await writeFile(path, JSON.stringify(spec));
  return dir;
}
