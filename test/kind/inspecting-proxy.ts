import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect, createSecureContext, getCACertificates, type SecureContext, TLSSocket } from 'node:tls';
import { CertificateAuthority } from '../../src/lab/servers/certs.ts';

/** Where Debian, and others, keep the authorities that the system trusts; that may be more than Node.js brings. */
const SYSTEM_AUTHORITIES = '/etc/ssl/certs/ca-certificates.crt';

/**
 * An HTTP proxy as companies have them: it reads what is in TLS, for which it shows certificates of an authority of its own. What it
 * forwards, it asks for with the authorities of this machine. It listens on a socket in the file system, for clients in other network
 * namespaces.
 */
export class InspectingProxy implements AsyncDisposable {
  /** PEM. */
  readonly authority: string;
  /** Hosts whose TLS was read, each once. */
  readonly inspected = new Set<string>();
  readonly #ca: CertificateAuthority;
  readonly #trusted: readonly string[];
  readonly #server: Server;
  readonly #sockets = new Set<Duplex>();
  readonly #contexts = new Map<string, Promise<SecureContext>>();

  private constructor(ca: CertificateAuthority, authority: string, trusted: readonly string[]) {
    this.#ca = ca;
    this.authority = authority;
    this.#trusted = trusted;
    this.#server = createServer((incoming, answer) => this.#forward(incoming, answer));
    this.#server.on('connection', (socket: Socket) => this.#keep(socket));
    this.#server.on('connect', (incoming: IncomingMessage, socket: Duplex) => void this.#tunnel(incoming, socket));
  }

  /** @param dir for its certificates. @param socketPath where it listens. */
  static async start(dir: string, socketPath: string): Promise<InspectingProxy> {
    const ca = await CertificateAuthority.create(dir, 'a proxy that inspects TLS');
    const system = await readFile(SYSTEM_AUTHORITIES, 'utf8').catch(() => '');
    const proxy = new InspectingProxy(ca, await readFile(ca.certFile, 'utf8'), [...getCACertificates(), system]);
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', reject);
      proxy.#server.listen(socketPath, resolve);
    });
    return proxy;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Plain HTTP, as apt speaks it. */
  #forward(incoming: IncomingMessage, answer: ServerResponse): void {
    const onward = request(incoming.url!, { method: incoming.method, headers: incoming.headers }, (response) => {
      answer.writeHead(response.statusCode!, response.headers);
      response.pipe(answer);
      response.once('error', () => answer.destroy());
    });
    onward.once('error', (error) => {
      if (answer.headersSent) answer.destroy();
      else answer.writeHead(502).end(String(error));
    });
    answer.once('close', () => onward.destroy());
    incoming.pipe(onward);
  }

  async #tunnel(incoming: IncomingMessage, socket: Duplex): Promise<void> {
    const [host, port] = incoming.url!.split(':') as [string, string];
    const secureContext = await this.#contextFor(host);
    socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
    const inside = this.#keep(new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: ['http/1.1'] }));
    inside.once('secure', () => this.inspected.add(host));
    const onward = this.#keep(
      connect({ host, port: Number(port), servername: host, ca: [...this.#trusted], ALPNProtocols: ['http/1.1'] }),
    );
    // A client that trusts no such authority hangs up; nothing else is to be done about any error.
    for (const [from, to] of [
      [inside, onward],
      [onward, inside],
    ] as const) {
      from.on('error', () => to.destroy());
      from.once('close', () => to.end());
      from.pipe(to);
    }
    socket.on('error', () => onward.destroy());
  }

  #contextFor(host: string): Promise<SecureContext> {
    const context = this.#contexts.get(host) ?? this.#issue(host);
    this.#contexts.set(host, context);
    return context;
  }

  async #issue(host: string): Promise<SecureContext> {
    const { certFile, keyFile } = await this.#ca.issueServer(host, [host]);
    const [cert, key] = await Promise.all([readFile(certFile), readFile(keyFile)]);
    return createSecureContext({ cert, key });
  }

  #keep<T extends Duplex>(socket: T): T {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
    return socket;
  }
}
