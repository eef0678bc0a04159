import { readdirSync, readlinkSync } from 'node:fs';
import { endianness } from 'node:os';
import { basename, dirname, join } from 'node:path';
import type { IpAddr } from '../ip/address.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { readTextIfThere } from './read-text.ts';

/**
 * Who has what this process could not get, for error messages. Looks through /proc, which takes some milliseconds per
 * hundred processes: only for the moment when something has already failed. Synchronous, because that moment is.
 */
export interface Holder {
  readonly pid: number;
  /** `flanneld`; for an interpreter with its script: `node flanneld/main.ts`. */
  readonly command: string;
}

export interface UdpHolder extends Holder {
  /** What it listens on, 0.0.0.0 and :: included. */
  readonly address: IpAddr;
}

/**
 * The processes that have a UDP socket on this port in our network namespace and would keep us from binding it to
 * `address`: on that address, or on all. Without root, only one's own processes are seen; a socket whose process is not
 * seen (another user's, another pid namespace's) is left out.
 */
export function udpPortHolders(port: number, address: IpAddr): UdpHolder[] {
  const sockets = new Map<string, IpAddr>();
  for (const file of ['udp', 'udp6']) {
    for (const { inode, addr } of udpSockets(readTextIfThere(`/proc/self/net/${file}`), port)) {
      if (addr === address || addr === 0 || addr === 0n || address === 0 || address === 0n) sockets.set(inode, addr);
    }
  }
  if (sockets.size === 0) return [];
  const holders: UdpHolder[] = [];
  for (const pid of pids()) {
    for (const descriptor of descriptors(pid)) {
      const address = sockets.get(/^socket:\[(\d+)\]$/.exec(descriptor.target)?.[1] ?? '');
      if (address === undefined || holders.some((holder) => holder.pid === pid && holder.address === address)) continue;
      holders.push(...holderOf(pid, descriptor).map((holder) => ({ ...holder, address })));
    }
  }
  return holders;
}

/**
 * The processes of our network namespace that are attached to the TUN or TAP device `name`. (The kernel names the device
 * of a descriptor, but not its namespace: that of the process is taken for it.)
 */
export function tunHolders(name: string): Holder[] {
  const ours = readLink('/proc/self/ns/net');
  const holders: Holder[] = [];
  for (const pid of pids()) {
    // The link is the path at which it was opened, in that process's file system.
    const attached = descriptors(pid).find(
      ({ fd, target }) =>
        /(^|\/)tun$/.test(target) &&
        /^iff:\s*(\S+)$/m.exec(readTextIfThere(`/proc/${pid}/fdinfo/${fd}`))?.[1] === name &&
        readLink(`/proc/${pid}/ns/net`) === ours,
    );
    if (attached !== undefined) holders.push(...holderOf(pid, attached));
  }
  return holders;
}

/**
 * The process, if it still has that descriptor. A program that starts another one has a child with all of its descriptors for a moment,
 * until that becomes the other program, during which it has no command line, or ends.
 */
export function holderOf(pid: number, { fd, target }: Descriptor, look = { argvOf, readLink }): Holder[] {
  const command = commandName(look.argvOf(pid));
  return command !== '' && look.readLink(`/proc/${pid}/fd/${fd}`) === target ? [{ pid, command }] : [];
}

/**
 * The node agents, weft's or flannel's, whose processes are in our network namespace and can be seen from here: those of
 * another pid namespace cannot.
 */
export function nodeAgents(): Holder[] {
  const ours = readLink('/proc/self/ns/net');
  return pids()
    .filter((pid) => readLink(`/proc/${pid}/ns/net`) === ours && isNodeAgent(argvOf(pid)))
    .map((pid) => ({ pid, command: commandName(argvOf(pid)) }));
}

/** By its command line: a program `flanneld`, an interpreter that runs one, or weft's one executable for all programs. */
export function isNodeAgent(argv: readonly string[]): boolean {
  if (basename(argv[0] ?? '').startsWith('weft') && argv[1] === 'flanneld') return true;
  return /^(\w+ )?flanneld((\/main)?\.[cm]?[jt]s)?$/.test(commandName(argv));
}

/** `pid 123 (flanneld) and pid 124 (socat)`; `another process` when none was found. */
export function describeHolders(holders: readonly Holder[]): string {
  const texts = [...new Set(holders.map(({ pid, command }) => `pid ${pid} (${command})`))];
  return texts.length === 0 ? 'another process' : texts.join(' and ');
}

/** The sockets on `port` in the text of /proc/net/udp or udp6. */
export function udpSockets(table: string, port: number): { readonly inode: string; readonly addr: IpAddr }[] {
  const found: { inode: string; addr: IpAddr }[] = [];
  for (const line of table.split('\n').slice(1)) {
    // sl, local_address, rem_address, st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode, …
    const fields = line.trim().split(/\s+/);
    const [address = '', hexPort] = (fields[1] ?? '').split(':');
    const inode = fields[9];
    if (inode === undefined || Number.parseInt(hexPort ?? '', 16) !== port) continue;
    const addr = procAddress(address);
    if (addr !== undefined) found.push({ inode, addr });
  }
  return found;
}

/** The kernel prints the address as 32-bit words in the byte order of the machine. */
function procAddress(hex: string): IpAddr | undefined {
  if (!/^([0-9A-F]{8}|[0-9A-F]{32})$/i.test(hex)) return undefined;
  let value = 0n;
  for (const word of hex.match(/.{8}/g) ?? []) {
    const bytes = word.match(/../g) ?? [];
    value = (value << 32n) | BigInt(`0x${(endianness() === 'LE' ? bytes.reverse() : bytes).join('')}`);
  }
  return hex.length === 8 ? ipv4Of(Number(value)) : ipv6Of(value);
}

/**
 * As a person names it: without folders, and with its script when it is an interpreter. A script that is named after its
 * folder (`flanneld/main.ts`) keeps that one. Empty when there is no name.
 */
function commandName([program = '', ...rest]: readonly string[]): string {
  const name = basename(program);
  const script = /^(node|python[\d.]*|perl|ruby|sh|bash|dash)$/.test(name)
    ? rest.find((word) => /^[^-\s]\S*$/.test(word))
    : undefined;
  if (script === undefined) return name;
  const file = basename(script);
  return `${name} ${/^(main|index)\./.test(file) ? join(basename(dirname(script)), file) : file}`;
}

function argvOf(pid: number): string[] {
  return readTextIfThere(`/proc/${pid}/cmdline`).split('\0');
}

function pids(): number[] {
  return list('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
}

export interface Descriptor {
  readonly fd: string;
  readonly target: string;
}

function descriptors(pid: number): Descriptor[] {
  return list(`/proc/${pid}/fd`).map((fd) => ({ fd, target: readLink(`/proc/${pid}/fd/${fd}`) }));
}

// Processes end while one looks, and others may not be looked at: both are as if they were not there.

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}
