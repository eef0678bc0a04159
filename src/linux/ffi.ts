/**
 * The system calls weft makes, and the only file that loads koffi. Thin on purpose: arguments are numbers (memory is passed
 * as an address, see `addressOf`), results are the kernel's, a failure is returned as −errno and never thrown, because
 * the packet path must not throw. Calls are 60–220 ns dearer than in C; batching, not this file, decides the throughput.
 */
import { constants } from 'node:os';
import koffi, { type LibraryHandle } from 'koffi';
import { WeftError } from '../errors.ts';

type Call = (...args: number[]) => number;

function loadLibc(): LibraryHandle {
  // Structures and system call numbers here are those of two architectures, little endian with 64-bit pointers.
  if (process.platform !== 'linux' || (process.arch !== 'x64' && process.arch !== 'arm64')) {
    throw new WeftError('WEFT_UNSUPPORTED_PLATFORM', `weft does not run on ${process.platform} on ${process.arch}`, {
      hint: 'It needs Linux on x86-64 or arm64.',
    });
  }
  const candidates = ['libc.so.6', `libc.musl-${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}.so.1`];
  let failure: unknown;
  for (const name of candidates) {
    try {
      return koffi.load(name);
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

const libc = loadLibc();

/** Result −1 becomes −errno, so one number says everything. */
function call(prototype: string): Call {
  const raw = libc.func(prototype) as (...args: number[]) => number | bigint;
  return (...args) => {
    const result = Number(raw(...args));
    return result === -1 ? -koffi.errno() : result;
  };
}

export const read: Call = call('int64_t read(int fd, uint64_t buffer, uint64_t length)');
export const write: Call = call('int64_t write(int fd, uint64_t buffer, uint64_t length)');
export const readv: Call = call('int64_t readv(int fd, uint64_t iov, int count)');
export const writev: Call = call('int64_t writev(int fd, uint64_t iov, int count)');
export const sendmsg: Call = call('int64_t sendmsg(int fd, uint64_t message, int flags)');
export const recvmsg: Call = call('int64_t recvmsg(int fd, uint64_t message, int flags)');
export const sendmmsg: Call = call('int sendmmsg(int fd, uint64_t messages, unsigned int count, int flags)');
export const recvmmsg: Call = call(
  'int recvmmsg(int fd, uint64_t messages, unsigned int count, int flags, uint64_t timeout)',
);
export const poll: Call = call('int poll(uint64_t fds, uint64_t count, int timeout_ms)');
export const close: Call = call('int close(int fd)');
export const socket: Call = call('int socket(int domain, int type, int protocol)');
export const bind: Call = call('int bind(int fd, uint64_t address, uint32_t length)');
export const listen: Call = call('int listen(int fd, int backlog)');
export const accept: Call = call('int accept(int fd, uint64_t address, uint64_t length)');
export const connect: Call = call('int connect(int fd, uint64_t address, uint32_t length)');
export const getsockname: Call = call('int getsockname(int fd, uint64_t address, uint64_t length)');
export const sendto: Call = call(
  'int64_t sendto(int fd, uint64_t buffer, uint64_t length, int flags, uint64_t address, uint32_t address_length)',
);
export const setsockopt: Call = call('int setsockopt(int fd, int level, int name, uint64_t value, uint32_t length)');
export const getsockopt: Call = call('int getsockopt(int fd, int level, int name, uint64_t value, uint64_t length)');
/** The third argument of ioctl is a pointer or a plain value by request; both are passed as a number. */
export const ioctl: Call = call('int ioctl(int fd, uint64_t request, uint64_t argument)');
export const fcntl: Call = call('int fcntl(int fd, int command, int64_t argument)');
export const eventfd: Call = call('int eventfd(unsigned int initial, int flags)');
export const schedYield: Call = call('int sched_yield()');
export const madvise: Call = call('int madvise(uint64_t address, uint64_t length, int advice)');
/** Ends the process at once, all threads with it, whatever they are blocked in; nothing of this process runs any more. */
export const exitAtOnce: Call = call('void _exit(int status)');
/** The kernel ends this process by SIGALRM after so many seconds, unless 0 is set before. */
export const alarm: Call = call('unsigned int alarm(unsigned int seconds)');
export const clockGettime: Call = call('int clock_gettime(int clock, uint64_t time)');
export const setns: Call = call('int setns(int fd, int kind)');
export const unshare: Call = call('int unshare(int kinds)');

/** malloc_trim(3) is glibc's alone; musl gives memory back by itself. */
export const mallocTrim: Call = optional('int malloc_trim(uint64_t pad)');

function optional(prototype: string): Call {
  try {
    return call(prototype);
  } catch {
    return () => 0;
  }
}

const openRaw = libc.func('int open(const char* path, int flags)') as (path: string, flags: number) => number;

/** open(2) without O_CREAT. Returns the descriptor or −errno. */
export function open(path: string, flags: number): number {
  const fd = openRaw(path, flags);
  return fd === -1 ? -koffi.errno() : fd;
}

/** mknodat(2) has no stable libc symbol before glibc 2.33, so it goes by number: arch/x86/entry/syscalls and asm-generic. */
const SYS_MKNODAT = process.arch === 'arm64' ? 33 : 259;
const AT_FDCWD = -100;
const syscallMknodat = libc.func(
  'long syscall(long number, int dirfd, const char* path, uint32_t mode, uint64_t device)',
);

/** Makes a character device node. `mode` is the permission bits. Returns 0 or −errno. */
export function mknodCharacter(path: string, mode: number, major: number, minor: number): number {
  const device = ((major & 0xfff) << 8) | (minor & 0xff);
  const result = Number(syscallMknodat(SYS_MKNODAT, AT_FDCWD, path, 0o020000 | mode, device));
  return result === -1 ? -koffi.errno() : 0;
}

const mountRaw = libc.func(
  'int mount(const char* source, const char* target, const char* type, uint64_t flags, const char* data)',
) as (source: string, target: string, type: string, flags: number, data: string) => number;

/** mount(2). Returns 0 or −errno. */
export function mount(source: string, target: string, type: string, flags: number, data: string): number {
  return mountRaw(source, target, type, flags, data) === -1 ? -koffi.errno() : 0;
}

const SYS_BPF = process.arch === 'arm64' ? 280 : 321;
const syscallBpf = libc.func('long syscall(long number, int command, uint64_t attributes, uint32_t size)');

/** bpf(2), which libc has no symbol for. Returns what the command returns or −errno. */
export function bpf(command: number, attributes: number, size: number): number {
  const result = Number(syscallBpf(SYS_BPF, command, attributes, size));
  return result === -1 ? -koffi.errno() : result;
}

const SYS_USERFAULTFD = process.arch === 'arm64' ? 282 : 323;
const syscallUserfaultfd = libc.func('long syscall(long number, int flags)');

/** userfaultfd(2), which libc has no symbol for either. Returns the descriptor or −errno. */
export function userfaultfd(flags: number): number {
  const result = Number(syscallUserfaultfd(SYS_USERFAULTFD, flags));
  return result === -1 ? -koffi.errno() : result;
}

const pollForAsync = libc.func('int poll(uint64_t fds, uint64_t count, int timeout_ms)');

/** poll(2) on libuv's thread pool: the main thread's way to wait on a descriptor that Node has no handle for. */
export function pollAsync(fdsAddress: number, count: number, timeoutMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    pollForAsync.async(fdsAddress, count, timeoutMs, (error: unknown, result: number) => {
      if (error === null || error === undefined) resolve(result);
      else reject(error);
    });
  });
}

/** See addressOf: more than any call here has pointers. */
const KEPT_VIEWS = 16;
const kept: ArrayBufferView[] = [];
let keptNext = 0;

/**
 * Address of the first byte of a view. Stable only for memory that cannot move: a SharedArrayBuffer, a shared
 * WebAssembly.Memory, or a Buffer that the caller keeps referenced for as long as the kernel uses the address.
 *
 * The last few views asked for are kept from the garbage collector: in `write(fd, addressOf(view), view.length)` nothing
 * else refers to a local view any more when the kernel reads it. (Seen: a freed message on its way to systemd.)
 */
export function addressOf(view: ArrayBufferView): number {
  kept[keptNext] = view;
  keptNext = (keptNext + 1) % KEPT_VIEWS;
  return Number(koffi.address(view));
}

const names = new Map<number, string>();
for (const [name, value] of Object.entries(constants.errno)) if (!names.has(value)) names.set(value, name);

/** `EPERM` for 1, `errno 4711` for what the platform does not name. Accepts −errno as well. */
export function errnoName(errno: number): string {
  const value = Math.abs(errno);
  return names.get(value) ?? `errno ${value}`;
}
