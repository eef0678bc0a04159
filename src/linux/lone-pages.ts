import {
  O_CLOEXEC,
  UFFD_API,
  UFFD_FEATURE_WP_ASYNC,
  UFFD_USER_MODE_ONLY,
  UFFDIO_API,
  UFFDIO_REGISTER,
  UFFDIO_REGISTER_MODE_WP,
} from './constants.ts';
import { addressOf, close, ioctl, userfaultfd } from './ffi.ts';

export interface MemoryRange {
  readonly start: number;
  readonly length: number;
}

/**
 * Makes the kernel map a page of a file alone when it is touched. Otherwise it maps with it what the page cache has around it: 64 KiB, or
 * the whole piece where it has the file in large ones. It does so except where a userfaultfd(2) watches for writes (mm/memory.c:
 * should_fault_around), and that is all this one is for. Of its asynchronous kind, which lets each write happen: nobody has to answer.
 */
export class LonePages {
  /** Never closed: with it, the ranges would be watched no longer. */
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** `undefined` where the kernel has no such thing (before Linux 6.7; arm64: 6.10), or a seccomp filter keeps it from this process. */
  static open(): LonePages | undefined {
    const fd = userfaultfd(O_CLOEXEC | UFFD_USER_MODE_ONLY);
    if (fd < 0) return undefined;
    // struct uffdio_api: api, features, ioctls
    const api = new BigUint64Array(new SharedArrayBuffer(24));
    api.set([UFFD_API, UFFD_FEATURE_WP_ASYNC]);
    if (ioctl(fd, UFFDIO_API, addressOf(api)) === 0) return new LonePages(fd);
    close(fd);
    return undefined;
  }

  /** From now on. A failure is of no consequence. @param range of whole mappings. */
  add({ start, length }: MemoryRange): void {
    // struct uffdio_register: start, length, mode, ioctls
    const register = new BigUint64Array(new SharedArrayBuffer(32));
    register.set([BigInt(start), BigInt(length), UFFDIO_REGISTER_MODE_WP]);
    ioctl(this.#fd, UFFDIO_REGISTER, addressOf(register));
  }
}
