import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { WeftError } from '../../errors.ts';
import { OBJECT_BOUNDS } from '../../lease/go-json.ts';
import { parseJsonWithin } from '../../lease/json-value.ts';
import { trace } from '../../trace.ts';
import type { KubeAccess } from './kube-access.ts';

export interface ApiRequest {
  readonly method: 'GET' | 'PATCH' | 'POST';
  /** Absolute, e.g. `/api/v1/nodes`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Beside those of the connection. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: { readonly contentType: string; readonly text: string };
  /** Ask for a compressed answer: for lists, which shrink tenfold. */
  readonly gzip?: boolean;
  /** Silence of this length while the body is read ends it with an error. Default {@link RESPONSE_TIMEOUT_MS}. */
  readonly idleTimeoutMs?: number;
}

/** For the status line of an answer, and unless a request says otherwise for each piece of its body. */
const RESPONSE_TIMEOUT_MS = 30_000;
const MAX_ERROR_BYTES = 64 << 10;

/** The API server answered, with an error (a `Status` object). */
export class ApiStatusError extends Error {
  override readonly name = 'ApiStatusError';
  readonly status: number;
  /** E.g. `NotFound`, `Expired`; empty when the answer was no Status. */
  readonly reason: string;
  readonly retryAfterMs: number | undefined;

  constructor(what: string, status: number, reason: string, message: string, retryAfterMs?: number) {
    super(`${what}: ${status}${message === '' ? '' : ` ${message}`}`);
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether asking again unchanged can help: overload and failures of the server, not refusals. */
  get temporary(): boolean {
    return this.status >= 500 || this.status === 429 || this.status === 408 || this.status === 409;
  }
}

/** No answer: refused, reset, timed out, not trusted. */
export class ApiConnectionError extends Error {
  override readonly name = 'ApiConnectionError';
}

/** A small HTTP client for one API server. Safe for use by several callers at once. */
export class KubeApi implements Disposable {
  readonly #access: KubeAccess;
  readonly #userAgent: string;

  constructor(access: KubeAccess, userAgent: string) {
    this.#access = access;
    this.#userAgent = userAgent;
  }

  /** For messages. */
  get server(): string {
    return this.#access.server.href;
  }

  /**
   * Sends a request and resolves with the body's chunks once a 2xx answer has begun. A 401 is tried once more with
   * fresh credentials, since tokens are rotated under us.
   *
   * @throws ApiStatusError, ApiConnectionError, WeftError WEFT_KUBE_CONFIG, the signal's reason. Reading the body can
   *   throw ApiConnectionError and the signal's reason as well.
   */
  async stream(request: ApiRequest, signal: AbortSignal): Promise<AsyncIterable<Buffer>> {
    let response = await this.#send(request, signal);
    if (response.statusCode === 401) {
      await this.#statusError(request, response, signal);
      this.#access.forgetCredentials();
      response = await this.#send(request, signal);
    }
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw await this.#statusError(request, response, signal);
    return this.#chunks(request, response, signal);
  }

  /** The answer as JSON. @throws what {@link stream} throws. */
  async json(request: ApiRequest, signal: AbortSignal): Promise<unknown> {
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of await this.stream(request, signal)) {
      bytes += chunk.length;
      if (bytes > OBJECT_BOUNDS.length) {
        throw new ApiConnectionError(
          `${this.#shown(request)}: the answer is longer than ${OBJECT_BOUNDS.length} bytes`,
        );
      }
      parts.push(chunk);
    }
    try {
      return parseJsonWithin(Buffer.concat(parts).toString('utf8'), OBJECT_BOUNDS);
    } catch (error) {
      throw new ApiConnectionError(`${this.#shown(request)}: the answer is not JSON`, { cause: error });
    }
  }

  [Symbol.dispose](): void {
    this.#access[Symbol.dispose]();
  }

  async #send(request: ApiRequest, signal: AbortSignal): Promise<IncomingMessage> {
    signal.throwIfAborted();
    const { agent, headers } = await this.#access.prepare(signal);
    const url = this.#url(request);
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
    return new Promise<IncomingMessage>((resolve, reject) => {
      const message = send(url, {
        method: request.method,
        agent,
        signal,
        headers: {
          ...headers,
          ...request.headers,
          'User-Agent': this.#userAgent,
          Accept: 'application/json',
          ...(request.gzip ? { 'Accept-Encoding': 'gzip' } : {}),
          ...(request.body
            ? { 'Content-Type': request.body.contentType, 'Content-Length': Buffer.byteLength(request.body.text) }
            : {}),
        },
      });
      const timer = setTimeout(
        () => message.destroy(new Error(`no answer within ${RESPONSE_TIMEOUT_MS} ms`)),
        RESPONSE_TIMEOUT_MS,
      );
      const startedAt = performance.now();
      const report = (outcome: string): void =>
        trace(6, () => {
          const { origin, pathname, search } = url;
          const ms = (performance.now() - startedAt).toFixed(1);
          return `${request.method} ${origin}${pathname}${search}: ${outcome} after ${ms} ms`;
        });
      message.once('response', (response) => {
        report(`${response.statusCode} ${response.statusMessage}`);
        clearTimeout(timer);
        resolve(response);
      });
      // Not `once`: a second error may follow, and one without a listener would end the process.
      message.on('error', (error) => {
        report(error.message);
        clearTimeout(timer);
        reject(this.#failure(request, error, signal));
      });
      message.end(request.body?.text);
    });
  }

  async *#chunks(request: ApiRequest, response: IncomingMessage, signal: AbortSignal): AsyncGenerator<Buffer> {
    const idleMs = request.idleTimeoutMs ?? RESPONSE_TIMEOUT_MS;
    const body: Readable = response.headers['content-encoding'] === 'gzip' ? response.pipe(createGunzip()) : response;
    // `pipe` forwards data, not failures.
    if (body !== response) response.on('error', (error) => body.destroy(error)).on('aborted', () => body.destroy());
    const onIdle = () => response.destroy(new Error(`nothing was received for ${idleMs} ms`));
    const iterator: AsyncIterator<Buffer> = body[Symbol.asyncIterator]();
    try {
      for (;;) {
        // Only the waiting is timed: a slow consumer is not the server's silence.
        const timer = setTimeout(onIdle, idleMs);
        let next: IteratorResult<Buffer>;
        try {
          next = await iterator.next();
        } finally {
          clearTimeout(timer);
        }
        if (next.done) break;
        yield next.value;
      }
      if (!response.complete) throw new Error('the connection was closed in the middle of the answer');
    } catch (error) {
      throw this.#failure(request, error, signal);
    } finally {
      response.destroy();
      body.destroy();
    }
  }

  /** Reads an error answer to its end, which also returns the connection to the agent. */
  async #statusError(request: ApiRequest, response: IncomingMessage, signal: AbortSignal): Promise<ApiStatusError> {
    const parts: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.#chunks(request, response, signal)) {
      bytes += chunk.length;
      if (bytes <= MAX_ERROR_BYTES) parts.push(chunk);
    }
    const text = Buffer.concat(parts).toString('utf8');
    const status = parseStatus(text);
    const retryAfter = Number(response.headers['retry-after']);
    return new ApiStatusError(
      this.#shown(request),
      response.statusCode ?? 0,
      status.reason,
      status.message ?? text.trim().slice(0, 300),
      Number.isFinite(retryAfter) && response.headers['retry-after'] !== undefined ? retryAfter * 1_000 : undefined,
    );
  }

  #failure(request: ApiRequest, error: unknown, signal: AbortSignal): unknown {
    if (signal.aborted) return signal.reason;
    if (error instanceof WeftError || error instanceof ApiStatusError || error instanceof ApiConnectionError)
      return error;
    this.#access.dropIdleConnections();
    const what = error instanceof Error ? error.message || error.name : String(error);
    return new ApiConnectionError(`${this.#shown(request)}: ${what}`, { cause: error });
  }

  #url(request: ApiRequest): URL {
    const url = new URL(this.#access.server);
    url.pathname = `${url.pathname.replace(/\/$/, '')}${request.path}`;
    url.search = new URLSearchParams(request.query).toString();
    return url;
  }

  #shown(request: ApiRequest): string {
    return `${request.method} ${this.#url(request).href}`;
  }
}

function parseStatus(text: string): { readonly reason: string; readonly message: string | undefined } {
  try {
    const status: unknown = JSON.parse(text);
    if (typeof status !== 'object' || status === null) return { reason: '', message: undefined };
    const { reason, message } = status as Record<string, unknown>;
    return { reason: String(reason ?? ''), message: message === undefined ? undefined : String(message) };
  } catch {
    return { reason: '', message: undefined };
  }
}
