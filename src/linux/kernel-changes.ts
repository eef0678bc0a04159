import { AF_NETLINK, ENOBUFS, MSG_DONTWAIT } from './constants.ts';
import { addressOf, bind, close, recvmsg } from './ffi.ts';
import { MessageHeader } from './message-header.ts';
import { openNetlink } from './netlink.ts';

/** `struct sockaddr_nl` */
const NAME_BYTES = 12;
/** Messages are counted, not read. */
const BUFFER_BYTES = 32;
/** With more than that there is something to look at in any case. */
const MOST_AT_ONCE = 256;

export interface ChangesOf {
  /** linux/netlink.h: NETLINK_… */
  readonly protocol: number;
  /** Multicast groups, a bit each. */
  readonly groups: number;
}

/**
 * Whether the kernel has told of changes since the last time that somebody asked. Who asks from time to time anyway is spared a look at
 * what has not changed, and nobody is woken by what has.
 */
export class KernelChanges implements Disposable {
  readonly #sockets = new DisposableStack();
  readonly #fds: number[] = [];
  readonly #message = new MessageHeader({ text: new Uint8Array(new SharedArrayBuffer(BUFFER_BYTES)) });
  #hasAll = true;

  constructor(subjects: readonly ChangesOf[]) {
    for (const { protocol, groups } of subjects) {
      const fd = openNetlink(protocol);
      if (fd >= 0) this.#sockets.defer(() => void close(fd));
      if (fd >= 0 && joins(fd, groups)) this.#fds.push(fd);
      else this.#hasAll = false;
    }
  }

  /** Also when there is no knowing: messages were lost, or one of the subjects cannot be listened to. */
  take(): boolean {
    let hasSome = !this.#hasAll;
    for (const fd of this.#fds) if (this.#drain(fd)) hasSome = true;
    return hasSome;
  }

  #drain(fd: number): boolean {
    for (let count = 0; count < MOST_AT_ONCE; count++) {
      this.#message.reset();
      const length = recvmsg(fd, this.#message.address, MSG_DONTWAIT);
      if (length < 0 && length !== -ENOBUFS) return count > 0;
    }
    return true;
  }

  [Symbol.dispose](): void {
    this.#sockets.dispose();
  }
}

function joins(fd: number, groups: number): boolean {
  const name = new DataView(new SharedArrayBuffer(NAME_BYTES));
  name.setUint16(0, AF_NETLINK, true);
  name.setUint32(8, groups, true);
  return bind(fd, addressOf(name), NAME_BYTES) >= 0;
}
