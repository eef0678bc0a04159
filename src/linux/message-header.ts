import { CONTROL, CONTROL_LENGTH, IOV, IOV_COUNT, MSGHDR_BYTES, NAME, NAME_LENGTH } from '../dataplane/msghdr.ts';
import { addressOf } from './ffi.ts';

const IOVEC_BYTES = 16;

const shared = (bytes: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(bytes));

export interface MessageParts {
  /** What is sent, or received into; in shared memory, as the name. */
  readonly text: Uint8Array;
  /** `struct sockaddr_…` of the other side. */
  readonly name?: Uint8Array;
  /** Default 0: no control messages. */
  readonly controlBytes?: number;
}

/** A `struct msghdr` of one buffer for sendmsg(2) and recvmsg(2). What it points to lives as long as it does. */
export class MessageHeader {
  readonly text: Uint8Array;
  readonly control: Uint8Array;
  readonly #name: Uint8Array | undefined;
  readonly #vector = shared(IOVEC_BYTES);
  readonly #header = shared(MSGHDR_BYTES);
  readonly #view = new DataView(this.#header.buffer);

  constructor({ text, name, controlBytes = 0 }: MessageParts) {
    this.text = text;
    this.control = shared(controlBytes);
    this.#name = name;
    const vector = new DataView(this.#vector.buffer);
    vector.setBigUint64(0, BigInt(addressOf(text)), true);
    vector.setBigUint64(8, BigInt(text.length), true);
    if (name !== undefined) this.#view.setBigUint64(NAME, BigInt(addressOf(name)), true);
    this.#view.setBigUint64(IOV, BigInt(addressOf(this.#vector)), true);
    this.#view.setBigUint64(IOV_COUNT, 1n, true);
    if (controlBytes > 0) this.#view.setBigUint64(CONTROL, BigInt(addressOf(this.control)), true);
    this.reset();
  }

  get address(): number {
    return addressOf(this.#header);
  }

  /** All room is free again: the kernel writes how much of it it has used. */
  reset(): void {
    this.#view.setUint32(NAME_LENGTH, this.#name?.length ?? 0, true);
    this.controlLength = this.control.length;
  }

  /** Bytes of control messages: to be sent, or received. */
  get controlLength(): number {
    return Number(this.#view.getBigUint64(CONTROL_LENGTH, true));
  }

  set controlLength(bytes: number) {
    this.#view.setBigUint64(CONTROL_LENGTH, BigInt(bytes), true);
  }
}
