import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { checkServerIdentity } from 'node:tls';
import {
  type CallOptions,
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  type ClientDuplexStream,
  credentials,
  Metadata,
  status,
} from '@grpc/grpc-js';
import { WeftError } from '../../errors.ts';
import { OBJECT_BOUNDS } from '../../lease/go-json.ts';
import { trace } from '../../trace.ts';
import {
  methodOf,
  type RequestOf,
  type ResponseOf,
  type UnaryMethodName,
  type WatchRequest,
  type WatchResponse,
} from './etcd-api.ts';
import { EtcdError, etcdError, wantsToken } from './etcd-error.ts';

export interface EtcdClientOptions {
  /** URLs, `http://127.0.0.1:2379`; without a scheme it is https exactly when a TLS file is given. At least one. */
  readonly endpoints: readonly string[];
  /** PEM files. Key and certificate only together; the authority also alone. The system's authorities when not given. */
  readonly keyFile?: string;
  readonly certFile?: string;
  readonly caFile?: string;
  /** An empty name means no user. */
  readonly username?: string;
  readonly password?: string;
  /** How long one endpoint may take to answer before the next is asked; 5 seconds unless given. */
  readonly requestTimeoutMs?: number;
  /** After how long a silence a connection must show that it lives; 20 seconds unless given. etcd forbids less than 5. */
  readonly keepaliveMs?: number;
}

interface Endpoint {
  /** As the user gave it. */
  readonly text: string;
  /** A name, or an address without brackets. */
  readonly host: string;
  readonly target: string;
  readonly secure: boolean;
}

/** A name that nobody has (RFC 2606). The certificate is compared with the address all the same: #credentials. */
const NO_NAME = 'address.invalid';

/** A watch may be silent for hours: a peer that vanished must be noticed all the same. */
const KEEPALIVE_MS = 20_000;

const CHANNEL_OPTIONS: ChannelOptions = {
  // As of an object of Kubernetes. One key of etcd holds less (--max-request-bytes), and lists are asked for in pages.
  'grpc.max_receive_message_length': OBJECT_BOUNDS.length,
  // Each client is closed after its first failure, so a channel of its own, not one shared by address.
  'grpc.use_local_subchannel_pool': 1,
  'grpc.service_config_disable_resolution': 1,
  // A proxy for the web is never meant for etcd.
  'grpc.enable_http_proxy': 0,
};

/**
 * Requests to an etcd cluster: every endpoint is tried once, the one that answered last first; a failed connection is
 * made anew, and with it the TLS files are read anew. Users are authenticated when the server asks for it. What fails on
 * all endpoints rejects with an EtcdError: whoever calls decides whether and when to try again.
 */
export class EtcdClient implements Disposable {
  readonly #options: EtcdClientOptions;
  readonly #endpoints: readonly Endpoint[];
  readonly #clients = new Map<Endpoint, Client>();
  readonly #requestTimeoutMs: number;
  /** Index of the endpoint that is asked first. */
  #preferred = 0;
  #token: string | undefined;

  /** @throws WeftError WEFT_USAGE when an endpoint is no URL. */
  constructor(options: EtcdClientOptions) {
    this.#options = options;
    const tls = [options.keyFile, options.certFile, options.caFile].some((file) => file !== undefined && file !== '');
    this.#endpoints = options.endpoints.map((text) => parseEndpoint(text, tls));
    if (this.#endpoints.length === 0) throw new WeftError('WEFT_USAGE', 'etcd: no endpoint is given');
    this.#requestTimeoutMs = options.requestTimeoutMs ?? 5_000;
  }

  /** The endpoints to which everything, passwords included, goes in clear text. */
  get insecureEndpoints(): readonly string[] {
    return this.#endpoints.filter((endpoint) => !endpoint.secure).map((endpoint) => endpoint.text);
  }

  /** @param attempted for messages, as in "reading the leases from etcd". */
  async call<M extends UnaryMethodName>(
    method: M,
    request: RequestOf<M>,
    attempted: string,
    signal: AbortSignal,
  ): Promise<ResponseOf<M>> {
    let failure: unknown;
    for (let tries = 0; tries < this.#endpoints.length; tries++) {
      const endpoint = this.#current();
      try {
        return await this.#withToken(endpoint, signal, (metadata) =>
          this.#unary(endpoint, method, request, metadata, attempted, signal),
        );
      } catch (error) {
        signal.throwIfAborted();
        failure = error;
        if (!(error instanceof EtcdError)) throw error;
        if (!error.temporary) throw error;
        this.#moveOn(endpoint);
      }
    }
    throw failure;
  }

  /**
   * One watch on one endpoint, until it breaks (rejects with an EtcdError), the server cancels it (the last response says
   * so), or `signal` fires (ends quietly). Continuing from the right revision is the caller's part.
   */
  async *watch(
    request: WatchRequest,
    attempted: string,
    signal: AbortSignal,
  ): AsyncGenerator<WatchResponse, void, void> {
    if (signal.aborted) return;
    const endpoint = this.#current();
    let stream: ClientDuplexStream<WatchRequest, WatchResponse> | undefined;
    const cancel = (): void => stream?.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      const metadata = await this.#metadata(endpoint, signal);
      // A member that lost its leader cancels the watch instead of keeping it without news.
      metadata.set('hasleader', 'true');
      const { path, requestSerialize, responseDeserialize } = methodOf('Watch');
      stream = this.#client(endpoint).makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata);
      // Cancelling makes the stream emit an error, also when nobody reads it any more.
      stream.on('error', () => {});
      stream.write(request);
      for await (const message of stream) {
        const response = message as WatchResponse;
        trace(
          6,
          () =>
            `Watch ${endpoint.text}: ${response.events.length} events, ${response.canceled ? 'canceled' : 'goes on'}`,
        );
        // The token may be what the server did not like; it says so in the reason only sometimes. Before the yield: who
        // gets a cancellation may not come back.
        if (response.canceled && response.compact_revision === '0') this.#token = undefined;
        yield response;
        if (response.canceled) return;
      }
      if (!signal.aborted) throw etcdError(attempted, endpoint.text, new Error('the server ended the watch'));
    } catch (error) {
      if (signal.aborted) return;
      const failure = error instanceof WeftError ? error : etcdError(attempted, endpoint.text, error);
      if (wantsToken(failure)) this.#token = undefined;
      this.#moveOn(endpoint);
      throw failure;
    } finally {
      signal.removeEventListener('abort', cancel);
      stream?.cancel();
    }
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  #current(): Endpoint {
    return this.#endpoints[this.#preferred % this.#endpoints.length]!;
  }

  /** Leaves an endpoint, unless somebody else already has, and its connection. */
  #moveOn(endpoint: Endpoint): void {
    this.#clients.get(endpoint)?.close();
    this.#clients.delete(endpoint);
    if (this.#current() === endpoint) this.#preferred = (this.#preferred + 1) % this.#endpoints.length;
  }

  #client(endpoint: Endpoint): Client {
    let client = this.#clients.get(endpoint);
    if (client === undefined) {
      const keepaliveMs = this.#options.keepaliveMs ?? KEEPALIVE_MS;
      client = new Client(endpoint.target, this.#credentials(endpoint), {
        ...CHANNEL_OPTIONS,
        'grpc.keepalive_time_ms': keepaliveMs,
        'grpc.keepalive_timeout_ms': keepaliveMs / 2,
        // TLS has no way to ask for an address by SNI (RFC 6066): Node refuses to try, and grpc-js always tries.
        ...(isIP(endpoint.host) === 0 ? {} : { 'grpc.ssl_target_name_override': NO_NAME }),
      });
      this.#clients.set(endpoint, client);
    }
    return client;
  }

  #credentials({ secure, host }: Endpoint): ChannelCredentials {
    if (!secure) return credentials.createInsecure();
    const { caFile, keyFile, certFile } = this.#options;
    const [ca, key, cert] = [readPem(caFile, 'cafile'), readPem(keyFile, 'keyfile'), readPem(certFile, 'certfile')];
    try {
      const both = key !== null && cert !== null;
      return credentials.createSsl(ca, both ? key : null, both ? cert : null, {
        checkServerIdentity: (_name, certificate) => checkServerIdentity(host, certificate),
      });
    } catch (error) {
      throw tlsError(
        `reading the TLS files for etcd (${[caFile, keyFile, certFile].filter(Boolean).join(', ')})`,
        error,
      );
    }
  }

  async #withToken<T>(
    endpoint: Endpoint,
    signal: AbortSignal,
    request: (metadata: Metadata) => Promise<T>,
  ): Promise<T> {
    try {
      return await request(await this.#metadata(endpoint, signal));
    } catch (error) {
      // Tokens end: with their time, with the server's restart, with a change of users.
      if (!wantsToken(error) || !this.#hasUser) throw error;
      this.#token = undefined;
      return await request(await this.#metadata(endpoint, signal));
    }
  }

  get #hasUser(): boolean {
    return this.#options.username !== undefined && this.#options.username !== '';
  }

  async #metadata(endpoint: Endpoint, signal: AbortSignal): Promise<Metadata> {
    const metadata = new Metadata();
    if (!this.#hasUser) return metadata;
    this.#token ??= await this.#authenticate(endpoint, signal);
    // Empty: the server has no users switched on.
    if (this.#token !== '') metadata.set('token', this.#token);
    return metadata;
  }

  async #authenticate(endpoint: Endpoint, signal: AbortSignal): Promise<string> {
    const request = { name: this.#options.username ?? '', password: this.#options.password ?? '' };
    const attempted = `authenticating as ${request.name} with etcd`;
    try {
      return (await this.#unary(endpoint, 'Authenticate', request, new Metadata(), attempted, signal)).token;
    } catch (error) {
      if (error instanceof EtcdError && error.grpcCode === status.FAILED_PRECONDITION) return '';
      throw error;
    }
  }

  #unary<M extends UnaryMethodName>(
    endpoint: Endpoint,
    method: M,
    request: RequestOf<M>,
    metadata: Metadata,
    attempted: string,
    signal: AbortSignal,
  ): Promise<ResponseOf<M>> {
    signal.throwIfAborted();
    const client = this.#client(endpoint);
    const { path, requestSerialize, responseDeserialize } = methodOf(method);
    const options: CallOptions = { deadline: Date.now() + this.#requestTimeoutMs };
    const startedAt = performance.now();
    // Neither request nor answer: one of them may hold a password or a token.
    const report = (outcome: string): void =>
      trace(6, () => `${method} ${endpoint.text}: ${outcome} after ${(performance.now() - startedAt).toFixed(1)} ms`);
    return new Promise((resolve, reject) => {
      const cancel = (): void => call.cancel();
      const call = client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        options,
        (error, response) => {
          signal.removeEventListener('abort', cancel);
          report(error === null ? 'answered' : error.message);
          if (signal.aborted) reject(signal.reason);
          else if (error !== null) reject(etcdError(attempted, endpoint.text, error));
          else if (response === undefined) reject(etcdError(attempted, endpoint.text, new Error('an empty answer')));
          else resolve(response);
        },
      );
      signal.addEventListener('abort', cancel, { once: true });
    });
  }
}

function parseEndpoint(text: string, tls: boolean): Endpoint {
  const withScheme = text.includes('://') ? text : `${tls ? 'https' : 'http'}://${text}`;
  const url = URL.parse(withScheme);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:') || url.hostname === '') {
    throw new WeftError(
      'WEFT_USAGE',
      `etcd endpoint ${JSON.stringify(text)}: it is not a URL of the form http://HOST:PORT`,
      {
        hint: 'Give --etcd-endpoints as http://HOST:PORT or https://HOST:PORT, several separated by commas.',
      },
    );
  }
  const secure = url.protocol === 'https:';
  const port = url.port === '' ? (secure ? '443' : '80') : url.port;
  // dns: asks the resolver for names and takes addresses as they are; URL keeps the brackets of IPv6.
  return { text, host: url.hostname.replace(/^\[|\]$/g, ''), target: `dns:${url.hostname}:${port}`, secure };
}

/** `null`, as grpc wants it, when no file is given. */
function readPem(path: string | undefined, flag: string): Buffer | null {
  if (path === undefined || path === '') return null;
  try {
    return readFileSync(path);
  } catch (error) {
    throw tlsError(`reading --etcd-${flag} ${path}`, error);
  }
}

function tlsError(attempted: string, error: unknown): WeftError {
  return new WeftError('WEFT_ETCD_TLS', `${attempted}: ${error instanceof Error ? error.message : String(error)}`, {
    hint: 'Check that the file exists, is readable by this user, and is in PEM format.',
    cause: error,
  });
}
