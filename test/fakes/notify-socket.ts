import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AF_UNIX, EAGAIN, SOCK_DGRAM, SOCK_NONBLOCK } from '../../src/linux/constants.ts';
import { addressOf, bind, close, read, socket } from '../../src/linux/ffi.ts';
import { sockaddrUn } from '../../src/linux/systemd-notify.ts';

/** systemd's end of sd_notify(3): a datagram socket under a path or an abstract name. */
export class NotifySocket implements Disposable {
  readonly target: string;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(new SharedArrayBuffer(4096));
  readonly #directory: string | undefined;

  constructor(kind: 'path' | 'abstract') {
    this.#directory = kind === 'path' ? mkdtempSync(join(tmpdir(), 'weft-notify-')) : undefined;
    this.target = this.#directory === undefined ? `@weft-notify-${process.pid}-${Date.now()}` : `${this.#directory}/s`;
    this.#fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    const address = sockaddrUn(this.target);
    assert.ok(this.#fd >= 0 && address !== undefined);
    assert.equal(bind(this.#fd, addressOf(address), address.length), 0);
  }

  /** All that has arrived; a datagram that was sent is there at once. */
  received(): string[] {
    const messages: string[] = [];
    for (;;) {
      const length = read(this.#fd, addressOf(this.#buffer), this.#buffer.length);
      if (length === -EAGAIN) return messages;
      assert.ok(length > 0);
      messages.push(Buffer.from(this.#buffer.subarray(0, length)).toString());
    }
  }

  [Symbol.dispose](): void {
    close(this.#fd);
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true });
  }
}
