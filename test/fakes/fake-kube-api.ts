import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { resetConnection } from '../reset-connection.ts';

export interface FakeNode {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    uid?: string;
    resourceVersion?: string;
    annotations?: Record<string, string>;
    [key: string]: unknown;
  };
  spec?: { podCIDR?: string; podCIDRs?: string[] };
  status?: { addresses?: { type: string; address: string }[]; conditions?: { type: string; [key: string]: unknown }[] };
}

export interface FakeRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly authorization: string | undefined;
  readonly contentType: string | undefined;
  readonly body: string;
  /** The common name of the client's certificate. */
  readonly clientName: string | undefined;
}

interface Watch {
  readonly response: ServerResponse;
  /** Its connection is up, but nothing goes over it any more. */
  dead: boolean;
}

export interface FakeKubeApiOptions {
  /** PEM files; without them it speaks plain HTTP. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string; readonly clientCaFile?: string };
  /** To take the place of an earlier one. */
  readonly port?: number;
}

/**
 * The part of kube-apiserver that concerns nodes, over real HTTP, with hands to break it in the ways that real ones break:
 * connections that drop or go silent, versions that are forgotten, tokens that change, objects that cannot be read.
 */
export class FakeKubeApi implements AsyncDisposable {
  readonly requests: FakeRequest[] = [];
  /** Only these bearer tokens are let in; everybody when undefined. */
  tokens: Set<string> | undefined;
  /** How a watch from a forgotten version is answered; real servers do both. */
  expiredAs: 'status' | 'event' = 'status';
  /** Requests that match get this answer instead; asked first. */
  override:
    | ((request: FakeRequest) => { status: number; body: unknown; headers?: Record<string, string> } | undefined)
    | undefined;
  /** Pods by `namespace/name`: the node each runs on. */
  readonly pods = new Map<string, string>();
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #nodes = new Map<string, FakeNode>();
  readonly #watches = new Set<Watch>();
  #history: { readonly version: number; readonly line: string }[] = [];
  #version = 100;
  #forgotten = 0;
  #uids = 0;
  #continueEpoch = 0;
  #frozen: PromiseWithResolvers<void> | undefined;

  private constructor(options: FakeKubeApiOptions) {
    const onRequest = (request: IncomingMessage, response: ServerResponse) => void this.#handle(request, response);
    if (options.tls === undefined) {
      this.#server = createServer(onRequest);
    } else {
      const { certFile, keyFile, clientCaFile } = options.tls;
      this.#server = createTlsServer(
        {
          cert: readFileSync(certFile),
          key: readFileSync(keyFile),
          ...(clientCaFile === undefined
            ? {}
            : { ca: readFileSync(clientCaFile), requestCert: true, rejectUnauthorized: false }),
        },
        onRequest,
      );
    }
    const track = (socket: Socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      // What is dropped on purpose may fail on this side as well.
      socket.on('error', () => {});
    };
    this.#server.on('connection', track).on('secureConnection', track);
  }

  static async start(options: FakeKubeApiOptions = {}): Promise<FakeKubeApi> {
    const fake = new FakeKubeApi(options);
    fake.#server.listen(options.port ?? 0, '127.0.0.1');
    await once(fake.#server, 'listening');
    return fake;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `${'setSecureContext' in this.#server ? 'https' : 'http'}://127.0.0.1:${this.port}`;
  }

  get version(): number {
    return this.#version;
  }

  get openWatches(): number {
    return [...this.#watches].filter((watch) => !watch.dead).length;
  }

  node(name: string): FakeNode | undefined {
    return this.#nodes.get(name);
  }

  /** Creates or replaces a Node. */
  put(node: FakeNode): void {
    const known = this.#nodes.get(node.metadata.name);
    const uid = node.metadata.uid ?? known?.metadata.uid ?? `uid-${++this.#uids}`;
    const stored = { ...node, metadata: { ...node.metadata, uid, resourceVersion: String(++this.#version) } };
    this.#nodes.set(node.metadata.name, stored);
    this.#tell({ type: known === undefined ? 'ADDED' : 'MODIFIED', object: stored });
  }

  remove(name: string): void {
    const node = this.#nodes.get(name);
    if (node === undefined) return;
    this.#nodes.delete(name);
    const metadata = { ...node.metadata, resourceVersion: String(++this.#version) };
    this.#tell({ type: 'DELETED', object: { ...node, metadata } });
  }

  /** Tells every watch how far it has come. */
  bookmark(): void {
    this.#send(
      `${JSON.stringify({ type: 'BOOKMARK', object: { kind: 'Node', metadata: { resourceVersion: String(this.#version) } } })}\n`,
    );
  }

  /** Passes time in which other kinds of objects change. */
  advance(by: number): void {
    this.#version += by;
  }

  /** Forgets all history: a watch or continued list from before now is answered with 410. */
  compact(): void {
    this.#forgotten = this.#version;
    this.#history = [];
    this.#continueEpoch++;
  }

  /** As if etcd had been restored from a backup: the state is older, and so are the versions. */
  goBack(nodes: readonly FakeNode[], version: number): void {
    this.#nodes.clear();
    this.#history = [];
    this.#version = version;
    this.#forgotten = version;
    for (const node of nodes) {
      const uid = node.metadata.uid ?? `uid-${++this.#uids}`;
      this.#nodes.set(node.metadata.name, {
        ...node,
        metadata: { ...node.metadata, uid, resourceVersion: String(version) },
      });
    }
  }

  /** Writes text as it is into every watch. */
  inject(text: string): void {
    this.#send(text);
  }

  /** Ends all watches, as at their time limit. */
  endWatches(): void {
    for (const watch of this.#watches) {
      watch.response.end();
      // 'close' comes later, and nothing may be written until then.
      this.#watches.delete(watch);
    }
  }

  /** Resets the connections of all watches. */
  dropWatches(): void {
    for (const watch of this.#watches) resetConnection(watch.response.socket!);
  }

  /** The connections of all watches stay up, but carry nothing any more: a firewall has forgotten them. */
  silenceWatches(): void {
    for (const watch of this.#watches) watch.dead = true;
  }

  /** Accepts requests and answers none until the result is disposed of. */
  freeze(): Disposable {
    const frozen = Promise.withResolvers<void>();
    this.#frozen = frozen;
    return {
      [Symbol.dispose]: () => {
        this.#frozen = undefined;
        frozen.resolve();
      },
    };
  }

  /** Goes away at once, like a killed server; state is kept for {@link comeBack}. */
  async goAway(): Promise<number> {
    const { port } = this;
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await once(this.#server, 'close');
    return port;
  }

  async comeBack(port: number): Promise<void> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#frozen?.resolve();
    if (this.#server.listening) await this.goAway();
  }

  #tell(event: { type: string; object: FakeNode }): void {
    const line = `${JSON.stringify(event)}\n`;
    this.#history.push({ version: this.#version, line });
    this.#send(line);
  }

  #send(text: string): void {
    for (const watch of this.#watches) if (!watch.dead) watch.response.write(text);
  }

  async #handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? '/', 'http://fake');
    let body = '';
    for await (const chunk of incoming.setEncoding('utf8')) body += chunk;
    const { authorization } = incoming.headers;
    const socket = incoming.socket as Socket & { getPeerCertificate?: () => { subject?: { CN?: string | string[] } } };
    const clientName = socket.getPeerCertificate?.().subject?.CN;
    const request: FakeRequest = {
      method: incoming.method ?? '',
      path: url.pathname,
      query: url.searchParams,
      authorization,
      contentType: incoming.headers['content-type'],
      body,
      clientName: clientName === undefined ? undefined : String(clientName),
    };
    this.requests.push(request);
    await this.#frozen?.promise;
    const answer = (status: number, value: unknown, headers: Record<string, string> = {}) => {
      const zip = incoming.headers['accept-encoding'] === 'gzip';
      const text = JSON.stringify(value);
      response.writeHead(status, {
        'Content-Type': 'application/json',
        ...(zip ? { 'Content-Encoding': 'gzip' } : {}),
        ...headers,
      });
      response.end(zip ? gzipSync(text) : text);
    };
    const refuse = (code: number, reason: string, message: string) =>
      answer(code, { kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Failure', message, reason, code });

    const overridden = this.override?.(request);
    if (overridden !== undefined) return answer(overridden.status, overridden.body, overridden.headers);
    if (this.tokens !== undefined && !this.tokens.has(authorization?.replace(/^Bearer /, '') ?? '')) {
      return refuse(401, 'Unauthorized', 'Unauthorized');
    }
    const pod = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)$/.exec(request.path);
    if (pod !== null) {
      const nodeName = this.pods.get(`${pod[1]}/${pod[2]}`);
      if (nodeName === undefined) return refuse(404, 'NotFound', `pods "${pod[2]}" not found`);
      return answer(200, { kind: 'Pod', metadata: { name: pod[2] }, spec: nodeName === '' ? {} : { nodeName } });
    }
    const one = /^\/api\/v1\/nodes\/([^/]+)(\/status)?$/.exec(request.path);
    if (one?.[1] !== undefined) {
      const node = this.#nodes.get(decodeURIComponent(one[1]));
      if (node === undefined) return refuse(404, 'NotFound', `nodes "${one[1]}" not found`);
      if (request.method === 'GET') return answer(200, node);
      if (request.contentType !== 'application/strategic-merge-patch+json') {
        return refuse(415, 'UnsupportedMediaType', `the body of the request was in ${request.contentType}`);
      }
      this.put(merged(node, JSON.parse(body) as FakeNode));
      return answer(200, this.#nodes.get(node.metadata.name));
    }
    if (request.path !== '/api/v1/nodes')
      return refuse(404, 'NotFound', 'the server could not find the requested resource');
    if (url.searchParams.get('watch') === 'true') return this.#watch(request, response, refuse);
    this.#list(request, answer, refuse);
  }

  #list(
    { query }: FakeRequest,
    answer: (status: number, value: unknown) => void,
    refuse: (code: number, reason: string, message: string) => void,
  ): void {
    const limit = Number(query.get('limit') ?? 0) || Number.POSITIVE_INFINITY;
    const [epoch, offset] = (query.get('continue') ?? `${this.#continueEpoch}:0`).split(':').map(Number) as [
      number,
      number,
    ];
    if (epoch !== this.#continueEpoch) {
      refuse(410, 'Expired', 'The provided continue parameter is too old');
      return;
    }
    const all = [...this.#nodes.values()];
    const items = all.slice(offset, offset + limit);
    const next = offset + items.length < all.length ? `${epoch}:${offset + items.length}` : '';
    answer(200, {
      kind: 'NodeList',
      apiVersion: 'v1',
      metadata: { resourceVersion: String(this.#version), continue: next },
      items,
    });
  }

  #watch(
    { query }: FakeRequest,
    response: ServerResponse,
    refuse: (code: number, reason: string, message: string) => void,
  ): void {
    const from = Number(query.get('resourceVersion'));
    const expired = from < this.#forgotten;
    if (expired && this.expiredAs === 'status') {
      refuse(410, 'Expired', `too old resource version: ${from}`);
      return;
    }
    response.writeHead(200, { 'Content-Type': 'application/json' });
    response.flushHeaders();
    if (expired) {
      const object = {
        kind: 'Status',
        status: 'Failure',
        reason: 'Expired',
        code: 410,
        message: `too old resource version: ${from}`,
      };
      response.end(`${JSON.stringify({ type: 'ERROR', object })}\n`);
      return;
    }
    for (const { version, line } of this.#history) if (version > from) response.write(line);
    const watch: Watch = { response, dead: false };
    this.#watches.add(watch);
    response.on('close', () => this.#watches.delete(watch));
  }
}

/** A strategic merge of what agents patch: annotations by key, conditions by type. */
function merged(node: FakeNode, patch: Partial<FakeNode>): FakeNode {
  const annotations = { ...node.metadata.annotations, ...patch.metadata?.annotations };
  const conditions = [...(node.status?.conditions ?? [])];
  for (const condition of patch.status?.conditions ?? []) {
    const at = conditions.findIndex((one) => one.type === condition.type);
    if (at < 0) conditions.push(condition);
    else conditions[at] = { ...conditions[at], ...condition };
  }
  return { ...node, metadata: { ...node.metadata, annotations }, status: { ...node.status, conditions } };
}
