import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import type { Socket } from 'node:net';

/** Names of Node.js: each socket of this process, of whatever library, is announced on one of them. */
const CHANNELS = ['net.client.socket', 'net.server.socket'];

/**
 * The TCP connections of this process. One whose own address is taken from the host is not told by the kernel: what it
 * sends goes nowhere, or comes back to nobody, and whoever waits for an answer waits for his time-out.
 */
export class Connections implements Disposable {
  /** With the own address, in text, once it is known. */
  readonly #open = new Map<Socket, string | undefined>();
  /** Every address that this host has had: others, such as those of a local route, are nobody's to judge. */
  #seen: ReadonlySet<string> = new Set();

  constructor() {
    for (const channel of CHANNELS) subscribe(channel, this.#onSocket);
  }

  /**
   * Destroys the connections of addresses that this host had and has no more, and those that are under way from one of
   * them; says how many there were of each address.
   * @param addresses all of this host, in text
   */
  keepOnly(addresses: ReadonlySet<string>): ReadonlyMap<string, number> {
    const hasLost = [...this.#seen].some((address) => !addresses.has(address));
    const closed = new Map<string, number>();
    for (const [socket, address] of this.#open) {
      const isStranded =
        address === undefined ? hasLost && socket.connecting : this.#seen.has(address) && !addresses.has(address);
      if (!isStranded) continue;
      this.#open.delete(socket);
      const shown = address ?? 'not known yet';
      socket.destroy(new Error(`the own address of the connection (${shown}) is gone from this host`));
      closed.set(shown, (closed.get(shown) ?? 0) + 1);
    }
    const seen = new Set(addresses);
    for (const address of this.#open.values()) if (address !== undefined && this.#seen.has(address)) seen.add(address);
    this.#seen = seen;
    return closed;
  }

  [Symbol.dispose](): void {
    for (const channel of CHANNELS) unsubscribe(channel, this.#onSocket);
    this.#open.clear();
  }

  readonly #onSocket = (message: unknown): void => {
    const { socket } = message as { readonly socket: Socket };
    // Never read before it is connected: Node.js keeps the first answer.
    this.#open.set(socket, socket.connecting ? undefined : normalized(socket.localAddress));
    socket.once('connect', () => {
      if (this.#open.has(socket)) this.#open.set(socket, normalized(socket.localAddress));
    });
    socket.once('close', () => this.#open.delete(socket));
  };
}

/** An IPv4 address of a socket for both families as such; IPv6 without its zone. */
function normalized(address: string | undefined): string | undefined {
  return address?.replace(/^::ffff:(?=\d+\.)/, '').replace(/%.*$/, '');
}
