import { AF_UNIX, EAGAIN, MSG_DONTWAIT, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK } from './constants.ts';
import { addressOf, close, errnoName, sendto, socket } from './ffi.ts';

/**
 * Tells the service manager how the agent is (sd_notify(3)), through the datagram socket that it names in NOTIFY_SOCKET.
 * Without that variable nothing is sent. No method throws or blocks.
 */
export interface SystemdNotifier extends Disposable {
  /** Start-up is over: units ordered after this one may start. */
  ready(): void;
  /** The agent ends; a later `ready` is not expected. Also ends the watchdog. */
  stopping(): void;
  /** One line for `systemctl status`. Sent only when it differs from the last one. */
  status(text: string): void;
}

export interface SystemdNotifierOptions {
  /** NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are read. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  /**
   * Asked before each keep-alive for the watchdog, twice per WATCHDOG_USEC. While it says no, none is sent, and systemd
   * restarts the unit once its time is over. A control plane that hangs sends none either.
   */
  readonly isAlive: () => boolean;
  /** Told once, of the first message that could not be sent. */
  readonly onProblem?: (message: string) => void;
}

const SUN_PATH_SIZE = 108;
/** When systemd's queue is full. Messages keep their order. */
const RETRY_MS = 100;

/** What tells systemd that the agent is ready, goes on and stops (sd_notify(3)); nothing where systemd has not asked. */
export function systemdNotifier(options: SystemdNotifierOptions): SystemdNotifier {
  const target = options.environment.NOTIFY_SOCKET ?? '';
  if (target === '') return SILENT;
  const notifier = new Notifier(target, options.onProblem ?? (() => undefined));
  notifier.startWatchdog(watchdogIntervalMs(options.environment), options.isAlive);
  return notifier;
}

const SILENT: SystemdNotifier = {
  ready() {},
  stopping() {},
  status() {},
  [Symbol.dispose]() {},
};

/** Half of what systemd allows, as sd_watchdog_enabled(3) advises; `undefined` when no watchdog is meant for us. */
export function watchdogIntervalMs(environment: Readonly<Record<string, string | undefined>>): number | undefined {
  const { WATCHDOG_USEC: microseconds = '', WATCHDOG_PID: pid } = environment;
  if (!/^[1-9]\d*$/.test(microseconds)) return undefined;
  if (pid !== undefined && pid !== '' && Number(pid) !== process.pid) return undefined;
  return Math.max(1, Math.floor(Number(microseconds) / 2000));
}

/** `struct sockaddr_un` of a path or, from `@`, of an abstract name; `undefined` when it is neither or too long. */
export function sockaddrUn(target: string): Uint8Array | undefined {
  if (!target.startsWith('/') && !target.startsWith('@')) return undefined;
  const name = new TextEncoder().encode(target);
  if (name.length >= SUN_PATH_SIZE) return undefined;
  // An abstract name starts with a NUL and ends with the address; a path is closed by one.
  const isAbstract = target.startsWith('@');
  const bytes = new Uint8Array(new SharedArrayBuffer(2 + name.length + (isAbstract ? 0 : 1)));
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  if (isAbstract) bytes[2] = 0;
  return bytes;
}

class Notifier implements SystemdNotifier {
  readonly #target: string;
  readonly #onProblem: (message: string) => void;
  readonly #address: Uint8Array | undefined;
  #fd = -1;
  #queue: string[] = [];
  #retry: NodeJS.Timeout | undefined;
  #watchdog: NodeJS.Timeout | undefined;
  #status = '';
  #hasProblem = false;

  constructor(target: string, onProblem: (message: string) => void) {
    this.#target = target;
    this.#onProblem = onProblem;
    this.#address = sockaddrUn(target);
    if (this.#address === undefined) {
      this.#report('it is neither an absolute path nor an abstract socket (@name) of at most 107 bytes');
      return;
    }
    const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) this.#report(errnoName(fd));
    this.#fd = fd;
  }

  startWatchdog(intervalMs: number | undefined, isAlive: () => boolean): void {
    if (intervalMs === undefined) return;
    this.#watchdog = setInterval(() => {
      if (isAlive()) this.#send('WATCHDOG=1');
    }, intervalMs);
    this.#watchdog.unref();
  }

  ready(): void {
    this.#send('READY=1');
  }

  stopping(): void {
    clearInterval(this.#watchdog);
    this.#send('STOPPING=1');
  }

  status(text: string): void {
    const line = text.replaceAll(/\s*\n\s*/g, '; ');
    if (line === this.#status) return;
    this.#status = line;
    this.#send(`STATUS=${line}`);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#watchdog);
    clearTimeout(this.#retry);
    this.#flush();
    if (this.#fd >= 0) close(this.#fd);
    this.#fd = -1;
  }

  #send(message: string): void {
    if (this.#fd < 0) return;
    this.#queue.push(message);
    this.#flush();
  }

  #flush(): void {
    clearTimeout(this.#retry);
    for (;;) {
      const message = this.#queue[0];
      if (message === undefined || this.#fd < 0 || this.#address === undefined) return;
      const bytes = sharedBytes(message);
      const sent = sendto(
        this.#fd,
        addressOf(bytes),
        bytes.length,
        MSG_DONTWAIT,
        addressOf(this.#address),
        this.#address.length,
      );
      if (sent === -EAGAIN) {
        this.#retry = setTimeout(() => this.#flush(), RETRY_MS);
        this.#retry.unref();
        return;
      }
      if (sent < 0) this.#report(errnoName(sent));
      this.#queue.shift();
    }
  }

  #report(reason: string): void {
    if (this.#hasProblem) return;
    this.#hasProblem = true;
    this.#onProblem(`could not notify the service manager at NOTIFY_SOCKET=${this.#target}: ${reason}`);
  }
}

function sharedBytes(text: string): Uint8Array {
  const encoded = new TextEncoder().encode(text);
  const bytes = new Uint8Array(new SharedArrayBuffer(encoded.length));
  bytes.set(encoded);
  return bytes;
}
