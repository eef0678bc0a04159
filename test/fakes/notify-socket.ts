import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AF_UNIX, EAGAIN, SOCK_DGRAM, SOCK_NONBLOCK } from '../../src/linux/constants.ts';
import { receiveDescriptors } from '../../src/linux/descriptor-message.ts';
import { addressOf, bind, close, socket } from '../../src/linux/ffi.ts';
import { sockaddrUn } from '../../src/linux/systemd-notify.ts';

/** systemd's end of sd_notify(3): a datagram socket under a path or an abstract name. */
export class NotifySocket implements Disposable {
  readonly target: string;
  readonly #fd: number;
  readonly #directory: string | undefined;

  constructor(kind: 'path' | 'abstract') {
    this.#directory = kind === 'path' ? mkdtempSync(join(tmpdir(), 'weft-notify-')) : undefined;
    this.target = this.#directory === undefined ? `@weft-notify-${process.pid}-${Date.now()}` : `${this.#directory}/s`;
    this.#fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    const address = sockaddrUn(this.target);
    assert.ok(this.#fd >= 0 && address !== undefined);
    assert.equal(bind(this.#fd, addressOf(address), address.length), 0);
  }

  #kept: number[] = [];

  /** The descriptors that it keeps for the next process, as systemd does. */
  get kept(): readonly number[] {
    return this.#kept;
  }

  /** All that has arrived; a datagram that was sent is there at once. */
  received(): string[] {
    const messages: string[] = [];
    for (;;) {
      const message = receiveDescriptors(this.#fd);
      if (message === -EAGAIN) return messages;
      assert.ok(typeof message !== 'number');
      if (message.text.startsWith('FDSTOREREMOVE=1\n')) this.#letGo();
      this.#kept.push(...message.fds);
      messages.push(message.text);
    }
  }

  #letGo(): void {
    for (const fd of this.#kept.splice(0)) close(fd);
  }

  [Symbol.dispose](): void {
    this.#letGo();
    close(this.#fd);
    if (this.#directory !== undefined) rmSync(this.#directory, { recursive: true });
  }
}
