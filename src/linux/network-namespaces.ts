import { readdirSync, readFileSync, statSync } from 'node:fs';
import { WeftError } from '../errors.ts';
import type { IpAddr } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { ipv6Of } from '../ip/ipv6.ts';
import { AF_INET, CLONE_NEWNET, IFNAMSIZ, O_CLOEXEC, SIOCGIFINDEX, SOCK_CLOEXEC, SOCK_DGRAM } from './constants.ts';
import { addressOf, close, errnoName, ioctl, open, setns, socket, unshare } from './ffi.ts';
import { readTextIfThere } from './read-text.ts';

/** This thread's own. */
export const OWN_NAMESPACE = '/proc/thread-self/ns/net';
const NAMED = '/run/netns';
/** `struct ifreq`. */
const IFREQ_BYTES = 40;

/** One network namespace of this machine. */
export interface NetworkNamespace {
  /** What opens it. */
  readonly path: string;
  readonly inode: number;
  /** Its name in /run/netns, where it has one; else `pid NUMBER` of a process in it. */
  readonly name: string;
}

/** @throws WeftError WEFT_KERNEL_STATE when there is none at this path. */
export function namespaceAt(path: string, name: string): NetworkNamespace {
  try {
    return { path, inode: statSync(path).ino, name };
  } catch (error) {
    throw new WeftError('WEFT_KERNEL_STATE', `failed to open the network namespace ${path}`, { cause: error });
  }
}

/** All that have a name, or a process that this one can see; each once. */
export function networkNamespaces(): readonly NetworkNamespace[] {
  const found = new Map<number, NetworkNamespace>();
  const add = (path: string, name: string): void => {
    try {
      const { ino: inode } = statSync(path);
      if (!found.has(inode)) found.set(inode, { path, inode, name });
    } catch {
      // It has ended meanwhile.
    }
  };
  for (const name of entries(NAMED)) add(`${NAMED}/${name}`, name);
  for (const pid of entries('/proc')) if (/^\d+$/.test(pid)) add(`/proc/${pid}/ns/net`, `pid ${pid}`);
  return [...found.values()];
}

/**
 * The addresses of a namespace's own, of both families: `|-- ADDRESS`, then `/32 host LOCAL` in /proc/net/fib_trie, and the first
 * word of each line of /proc/net/if_inet6.
 */
export function localAddressesOf({ path }: NetworkNamespace): readonly IpAddr[] {
  try {
    return insideNamespace(path, () => {
      const trie = readFileSync('/proc/thread-self/net/fib_trie', 'latin1');
      const v4 = [...trie.matchAll(/\|-- ([\d.]+)\n\s+\/32 host LOCAL/g)].flatMap(([, text]) => parseIpv4(text!) ?? []);
      // A kernel without IPv6 has no such file.
      const lines = readTextIfThere('/proc/thread-self/net/if_inet6');
      const v6 = [...lines.matchAll(/^([0-9a-f]{32}) /gm)].map(([, digits]) => ipv6Of(BigInt(`0x${digits}`)));
      return [...new Set<IpAddr>([...v4, ...v6])];
    });
  } catch {
    // It has ended meanwhile.
    return [];
  }
}

/** Names by index of the devices there. */
export function devicesOf({ path }: NetworkNamespace): ReadonlyMap<number, string> {
  return insideNamespace(path, () => {
    const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    try {
      const text = readFileSync('/proc/thread-self/net/dev', 'latin1');
      return new Map([...text.matchAll(/^\s*([^\s:]+):/gm)].map(([, name]) => [ifIndexOf(fd, name!), name!]));
    } finally {
      close(fd);
    }
  });
}

/** −errno for one that has gone. */
function ifIndexOf(fd: number, name: string): number {
  const request = new DataView(new SharedArrayBuffer(IFREQ_BYTES));
  new Uint8Array(request.buffer).set(new TextEncoder().encode(name).subarray(0, IFNAMSIZ - 1));
  const result = ioctl(fd, SIOCGIFINDEX, addressOf(request));
  return result < 0 ? result : request.getInt32(IFNAMSIZ, true);
}

/** setns(2) is of the calling thread, so that nothing may wait inside. @throws WeftError WEFT_KERNEL_STATE */
export function insideNamespace<T>(path: string, work: () => T): T {
  const own = opened(OWN_NAMESPACE);
  try {
    const other = opened(path);
    try {
      enter(other, path);
      try {
        return work();
      } finally {
        enter(own, 'the own one');
      }
    } finally {
      close(other);
    }
  } finally {
    close(own);
  }
}

/** One that this process holds: it has no name, so that the kernel takes it back with the process, however that ends. */
interface HeldNamespace extends Disposable {
  /** What opens it, also for programs that this process starts. */
  readonly path: string;
}

/** An empty one. @throws WeftError WEFT_KERNEL_STATE; needs CAP_SYS_ADMIN. */
export function holdNewNamespace(): HeldNamespace {
  const own = opened(OWN_NAMESPACE);
  try {
    // As setns(2), of the calling thread alone.
    const result = unshare(CLONE_NEWNET);
    if (result < 0)
      throw new WeftError('WEFT_KERNEL_STATE', `failed to make a network namespace: ${errnoName(result)}`, {
        hint: 'This needs CAP_SYS_ADMIN: run it as root, on the host.',
      });
    try {
      const fd = opened(OWN_NAMESPACE);
      return { path: `/proc/${process.pid}/fd/${fd}`, [Symbol.dispose]: () => void close(fd) };
    } finally {
      enter(own, 'the own one');
    }
  } finally {
    close(own);
  }
}

function entries(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function opened(path: string): number {
  const fd = open(path, O_CLOEXEC);
  if (fd < 0)
    throw new WeftError('WEFT_KERNEL_STATE', `failed to open the network namespace ${path}: ${errnoName(fd)}`);
  return fd;
}

function enter(fd: number, name: string): void {
  const result = setns(fd, CLONE_NEWNET);
  if (result < 0)
    throw new WeftError('WEFT_KERNEL_STATE', `failed to enter the network namespace ${name}: ${errnoName(result)}`);
}
