import { connect, createServer, type Server, type Socket } from 'node:net';
import { resetConnection } from '../reset-connection.ts';

/** One direction of a connection: bytes come out in order, `delayMs` after they went in. */
class Pipe {
  readonly #to: Socket;
  readonly #delayMs: () => number;
  #lastDueMs = 0;
  #swallows = false;

  constructor(from: Socket, to: Socket, delayMs: () => number) {
    this.#to = to;
    this.#delayMs = delayMs;
    from.on('data', (chunk: Buffer) => this.#pass(() => to.write(chunk)));
    from.on('end', () => this.#pass(() => to.end()));
  }

  swallow(): void {
    this.#swallows = true;
  }

  #pass(deliver: () => void): void {
    if (this.#swallows) return;
    const now = performance.now();
    this.#lastDueMs = Math.max(this.#lastDueMs, now + this.#delayMs());
    if (this.#lastDueMs <= now) deliver();
    else setTimeout(() => this.#to.writable && deliver(), this.#lastDueMs - now);
  }
}

/** A TCP hop before a server, so that one client can be cut off from it, or slowed down, while others are not. */
export class TcpProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #pipes = new Set<Pipe>();
  readonly #target: { readonly host: string; readonly port: number };
  #refusing = false;
  #delayMs = 0;

  private constructor(target: URL) {
    this.#target = { host: target.hostname, port: Number(target.port) };
    this.#server = createServer({ allowHalfOpen: true }, (client) => this.#accept(client));
  }

  /**
   * @param target a URL; only its host and port matter.
   * @param socketPath where to listen, for clients in other network namespaces; a free port of the loopback otherwise.
   */
  static async start(target: string, socketPath?: string): Promise<TcpProxy> {
    const proxy = new TcpProxy(new URL(target));
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      if (socketPath === undefined) proxy.#server.listen(0, '127.0.0.1', resolve);
      else proxy.#server.listen(socketPath, resolve);
    });
    return proxy;
  }

  /** `http://127.0.0.1:PORT` */
  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the proxy does not listen on a port');
    return `http://127.0.0.1:${address.port}`;
  }

  /** Ends all connections and refuses new ones. */
  cut(): void {
    this.#refusing = true;
    for (const socket of this.#sockets) resetConnection(socket);
  }

  /** Lets the connections that there are hang without a word, as when a host has vanished; new ones work. */
  swallow(): void {
    for (const pipe of this.#pipes) pipe.swallow();
  }

  /** What passes from now on takes so long, each way. */
  slow(delayMs: number): void {
    this.#delayMs = delayMs;
  }

  heal(): void {
    this.#refusing = false;
    this.#delayMs = 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #accept(client: Socket): void {
    if (this.#refusing) {
      resetConnection(client);
      return;
    }
    const server = connect({ ...this.#target, allowHalfOpen: true });
    const delayMs = (): number => this.#delayMs;
    const pipes = [new Pipe(client, server, delayMs), new Pipe(server, client, delayMs)];
    for (const pipe of pipes) this.#pipes.add(pipe);
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        other.destroy();
        this.#sockets.delete(socket);
        for (const pipe of pipes) this.#pipes.delete(pipe);
      });
    }
  }
}
