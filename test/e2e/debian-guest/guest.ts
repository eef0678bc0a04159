import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type Child, debianPackageOf, lines, start } from '../../../src/linux/run.ts';
import { K3S_WIREGUARD } from '../manifests/published.ts';
import { guestKernel } from './guest-kernel.ts';
import { type InitramfsEntry, programs, textOf, writeInitramfs } from './initramfs.ts';

/** What a guest has said of one thing that it has looked at. */
export interface GuestCheck {
  readonly ok: boolean;
  /** Why not. */
  readonly reason: string;
}

/** The product, as `make e2e` has made it. */
const WEFT = join(import.meta.dirname, '../../../dist/linux-amd64/weft');
const PROGRAMS = ['ip', 'bridge', 'wg', 'nft', 'busybox', ...['dash', 'ping', 'iperf3', 'tcpdump', 'socat']];
const IPTABLES = ['', '6'].flatMap((family) => ['', '-save', '-restore'].map((verb) => `ip${family}tables${verb}`));
const MODULES = [
  ...['bridge', 'veth', 'br_netfilter', 'tun', 'vxlan', 'wireguard', 'ipip'],
  ...[
    'nf_tables',
    'nft_compat',
    'nft_chain_nat',
    'nft_ct',
    'nft_masq',
    'nft_meta_bridge',
    'xt_comment',
    'xt_MASQUERADE',
  ],
  ...['xt_conntrack', 'xt_mark', 'xt_CT'],
  ...['virtio_pci', 'virtio_net'],
  ...['xfrm_user', 'esp4', 'sha512_generic', 'drbg', 'seqiv', 'gcm', 'ctr', 'ghash_generic'],
];
/** strongSwan's, with its plugins and Debian's configuration of them. */
const CHARON = '/usr/lib/ipsec/charon';
const CHARON_PLUGINS = '/usr/lib/ipsec/plugins';
const CHARON_CONFIG = ['/etc/strongswan.conf', '/etc/strongswan.d'];
/** The least that WebAssembly's SIMD and the kernel's random numbers need: newer instructions are translated to slower code. */
const CPU = 'qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand';
const KERNEL_FLAGS = [
  ...['console=ttyS0', 'panic=-1', 'quiet'],
  // On a busy machine the kernel would find that the timer does not tick, and give up.
  'no_timer_check',
  // Or that the processor counts wrong, and ask a device instead at each look at the time.
  'tsc=reliable',
  // What was translated for one process serves the next one of the program: a third of the time of short ones.
  'norandmaps',
];
const MEMORY_MIB = 1_536;
/** It computes all the time, and other tests run beside it: they have the processors first. */
const NICENESS = 5;
/** At which the guest reaches what listens on 127.0.0.1 here (QEMU's user network). */
export const MACHINE_ADDRESS = '10.0.2.2';
/** Below the guest's folder: what it can fetch by TFTP. */
const SHARED = 'shared';
/** Longer than init.sh is patient with one thing. */
const SILENCE_MS = 660_000;

/**
 * A virtual machine with Debian's kernel, whose first and only program is init.sh. It runs in QEMU's translator (TCG), which is slow
 * and runs everywhere; one guest is booted for all that is looked at. It has one processor: two translated ones spend a fifth more time,
 * as they wait for each other, and now and then one never hears of the other again. Its serial console is read line by line. A guest that hangs, or
 * says nothing more of what it looks at, is ended.
 */
export class Guest implements AsyncDisposable {
  readonly #child: Child;
  readonly #folder: string;
  readonly #checks = new Map<string, PromiseWithResolvers<GuestCheck>>();
  readonly #console: string[] = [];
  readonly #read: Promise<void>;
  readonly #silence: NodeJS.Timeout;
  #scenario = '';
  #ended = false;

  private constructor(child: Child, folder: string) {
    this.#child = child;
    this.#folder = folder;
    this.#silence = setTimeout(() => this.#child.kill('SIGKILL'), SILENCE_MS).unref();
    this.#read = this.#readConsole();
  }

  /**
   * @param scenarios the only ones that it runs; all when `undefined`.
   * @throws WeftError WEFT_COMMAND_MISSING; Error when the product was not made.
   */
  static async boot(scenarios: readonly string[] | undefined): Promise<Guest> {
    if (!existsSync(WEFT)) throw new Error(`${WEFT} is missing: make dist`);
    const kernel = await guestKernel(MODULES);
    const folder = await mkdtemp(join(tmpdir(), 'weft-guest-'));
    try {
      const initramfs = join(folder, 'initramfs');
      await writeInitramfs(initramfs, await contents(kernel.modules));
      await mkdir(join(folder, SHARED));
      // What the kernel does not know of its command line is in the environment of its first program.
      const only = scenarios === undefined ? [] : [`SCENARIOS=${scenarios.join(',')}`];
      const argv = [
        ...['nice', '-n', String(NICENESS)],
        ...['qemu-system-x86_64', '-accel', 'tcg', '-cpu', CPU, '-m', String(MEMORY_MIB)],
        ...['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio'],
        ...['-netdev', `user,id=machine,ipv6=off,tftp=${join(folder, SHARED)}`],
        ...['-device', 'virtio-net-pci,netdev=machine,romfile='],
        ...['-kernel', kernel.image, '-initrd', initramfs],
        ...['-append', [...KERNEL_FLAGS, ...only].join(' ')],
      ];
      return new Guest(await start(argv, { endsWithThisProcess: true }), folder);
    } catch (error) {
      await rm(folder, { recursive: true });
      throw error;
    }
  }

  /** What the guest says of a title in a scenario; waits for it. @throws Error with the end of the console when it never does. */
  check(scenario: string, title: string): Promise<GuestCheck> {
    return this.#check(`${scenario}: ${title}`).promise;
  }

  /** A file that the guest can fetch from now on, whole. */
  async share(name: string, text: string): Promise<void> {
    const path = join(this.#folder, SHARED, name);
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]();
    await this.#read;
    await rm(this.#folder, { recursive: true });
  }

  #check(name: string): PromiseWithResolvers<GuestCheck> {
    let check = this.#checks.get(name);
    if (check === undefined) {
      check = Promise.withResolvers();
      // Nobody may ask.
      check.promise.catch(() => {});
      this.#checks.set(name, check);
      if (this.#ended) check.reject(this.#silent(name));
    }
    return check;
  }

  async #readConsole(): Promise<void> {
    for await (const line of lines(this.#child.stdout!)) this.#take(line.trimEnd());
    await this.#child.exited;
    clearTimeout(this.#silence);
    this.#ended = true;
    for (const [name, check] of this.#checks) check.reject(this.#silent(name));
  }

  #take(line: string): void {
    this.#console.push(line);
    const [, word, rest = ''] = /@@(\w+) (.*)$/.exec(line) ?? [];
    if (word !== undefined) this.#silence.refresh();
    if (word === 'scenario') this.#scenario = rest;
    else if (word === 'ok') this.#check(`${this.#scenario}: ${rest}`).resolve({ ok: true, reason: '' });
    else if (word === 'fail') {
      const [title = '', reason = ''] = rest.split(' @@ ');
      this.#check(`${this.#scenario}: ${title}`).resolve({ ok: false, reason });
    }
  }

  #silent(name: string): Error {
    const end = this.#console.slice(-60).join('\n');
    return new Error(
      `the guest has ended without a word of "${name}"; its console ends:\n${end}\n${this.#child.tail()}`,
    );
  }
}

async function contents(modules: readonly string[]): Promise<InitramfsEntry[]> {
  const paths = [...PROGRAMS, 'xtables-nft-multi'].map(onPath);
  const [xtables = ''] = ['/usr/lib/x86_64-linux-gnu/xtables', '/usr/lib/xtables'].filter(existsSync);
  const extensions = (await readdir(xtables)).map((name) => join(xtables, name));
  if (!existsSync(CHARON)) throw new Error(`${CHARON} is missing. On Debian: apt-get install strongswan-charon`);
  const plugins = await filesBelow(CHARON_PLUGINS);
  const configuration = (await Promise.all(CHARON_CONFIG.map(filesBelow))).flat();
  const found = await programs(...paths, CHARON, ...plugins, WEFT);
  return [
    { file: 'init', mode: 0o755, text: await textOf('init.sh') },
    ...found.map((entry) => ('from' in entry && entry.from === WEFT ? { ...entry, file: 'usr/bin/weft' } : entry)),
    { link: 'usr/bin/flanneld', to: 'weft' },
    { file: 'k3s-wireguard.json', mode: 0o644, text: JSON.stringify(K3S_WIREGUARD) },
    { link: 'var/run', to: '/run' },
    // Without its user tcpdump captures nothing.
    { file: 'etc/passwd', mode: 0o644, text: 'root:x:0:0::/:/bin/sh\ntcpdump:x:1:1::/:/bin/sh\n' },
    ...IPTABLES.map((name): InitramfsEntry => ({ link: `usr/sbin/${name}`, to: onPath('xtables-nft-multi') })),
    ...[...extensions, ...configuration].map((from): InitramfsEntry => ({ file: from.slice(1), mode: 0o644, from })),
    ...modules.map((from, i): InitramfsEntry => {
      return { file: `modules/${String(i).padStart(3, '0')}-${basename(from)}`, mode: 0o644, from };
    }),
    ...['dev', 'proc', 'sys', 'run', 'tmp'].map(
      (name): InitramfsEntry => ({ file: `${name}/.keep`, mode: 0o644, text: '' }),
    ),
  ];
}

/** The file itself, when it is none of a folder. */
async function filesBelow(path: string): Promise<string[]> {
  if ((await stat(path)).isFile()) return [path];
  const entries = await readdir(path, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
}

function onPath(program: string): string {
  const found = ['/usr/sbin', '/usr/bin', '/sbin', '/bin'].map((folder) => join(folder, program)).find(existsSync);
  if (found === undefined) {
    throw new Error(`${program} is missing. On Debian: apt-get install ${debianPackageOf(program)}`);
  }
  return found;
}
