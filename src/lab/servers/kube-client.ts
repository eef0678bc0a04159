import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';

/** A plain client for labs and tests, apart from the agent's own, which it helps to test. */
export interface KubeClientOptions {
  readonly url: string;
  /** PEM. */
  readonly ca: string;
  readonly token: string;
  /** A UNIX socket that leads to the server, when it is in another network namespace. */
  readonly socketPath?: string | undefined;
}

export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid?: string;
    resourceVersion?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
}

export interface KubeNode extends KubeObject {
  spec: { podCIDR?: string; podCIDRs?: string[] };
  status: {
    addresses?: { type: string; address: string }[];
    conditions?: { type: string; status: string; reason?: string; message?: string }[];
  };
}

export interface NewNode {
  readonly podCidrs?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

export type PatchType = 'strategic-merge' | 'merge' | 'json';

/** An answer other than 2xx. */
export class KubeClientError extends Error {
  readonly status: number;

  constructor(what: string, status: number, text: string) {
    super(`${what}: ${status} ${text.slice(0, 500)}`);
    this.status = status;
  }
}

export class KubeClient implements Disposable {
  readonly #options: KubeClientOptions;
  readonly #agent: Agent;

  constructor(options: KubeClientOptions) {
    this.#options = options;
    const { ca, socketPath } = options;
    this.#agent = new Agent({
      keepAlive: true,
      maxSockets: 32,
      ca,
      ...(socketPath === undefined ? {} : { socketPath }),
    });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  /** @throws KubeClientError, or the connection's error. */
  async json<T>(method: string, path: string, body?: unknown, contentType = 'application/json'): Promise<T> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    const response = await this.#open(method, path, text, contentType);
    const answer = await textOf(response);
    if (!isOk(response)) throw new KubeClientError(`${method} ${path}`, response.statusCode ?? 0, answer);
    // /readyz and its like answer `ok`.
    return response.headers['content-type']?.startsWith('application/json') ? JSON.parse(answer) : (answer as T);
  }

  get<T extends KubeObject>(path: string): Promise<T> {
    return this.json<T>('GET', path);
  }

  create<T extends KubeObject>(collection: string, object: T): Promise<T> {
    return this.json<T>('POST', collection, object);
  }

  patch<T extends KubeObject>(path: string, patch: unknown, type: PatchType = 'strategic-merge'): Promise<T> {
    return this.json<T>('PATCH', path, patch, `application/${type}-patch+json`);
  }

  async delete(path: string): Promise<void> {
    await this.json('DELETE', path);
  }

  async list<T extends KubeObject>(collection: string): Promise<T[]> {
    return (await this.json<{ items: T[] }>('GET', collection)).items;
  }

  node(name: string): Promise<KubeNode> {
    return this.get<KubeNode>(`/api/v1/nodes/${name}`);
  }

  createNode(name: string, { podCidrs, labels, annotations }: NewNode = {}): Promise<KubeNode> {
    return this.create<KubeNode>('/api/v1/nodes', {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: {
        name,
        labels: { 'kubernetes.io/os': 'linux', ...labels },
        ...(annotations === undefined ? {} : { annotations: { ...annotations } }),
      },
      spec: podCidrs?.[0] === undefined ? {} : { podCIDR: podCidrs[0], podCIDRs: [...podCidrs] },
      status: {},
    });
  }

  async deleteNode(name: string): Promise<void> {
    await this.delete(`/api/v1/nodes/${name}`);
  }

  /** `null` removes an annotation. */
  annotateNode(name: string, annotations: Readonly<Record<string, string | null>>): Promise<KubeNode> {
    return this.patch<KubeNode>(`/api/v1/nodes/${name}`, { metadata: { annotations } });
  }

  /** Resolves with the Node's first state, from now on, that is as wanted. @throws the signal's reason. */
  waitForNode(name: string, wanted: (node: KubeNode) => boolean, signal: AbortSignal): Promise<KubeNode> {
    return this.waitFor<KubeNode>('/api/v1/nodes', name, wanted, signal);
  }

  async waitFor<T extends KubeObject>(
    collection: string,
    name: string,
    wanted: (object: T) => boolean,
    signal: AbortSignal,
  ): Promise<T> {
    const selector = `fieldSelector=${encodeURIComponent(`metadata.name=${name}`)}`;
    for (;;) {
      // A list first: a watch without a version has been seen to miss an object that was made just before it.
      const list = await this.json<{ metadata: { resourceVersion: string }; items: T[] }>(
        'GET',
        `${collection}?${selector}`,
      );
      const found = list.items.find(wanted);
      if (found !== undefined) return found;
      const path = `${collection}?watch=true&timeoutSeconds=60&${selector}&resourceVersion=${list.metadata.resourceVersion}`;
      const response = await this.#open('GET', path, undefined, '', signal);
      if (!isOk(response)) throw new KubeClientError(`watch ${path}`, response.statusCode ?? 0, await textOf(response));
      let rest = '';
      try {
        for await (const chunk of response.setEncoding('utf8')) {
          const lines = `${rest}${chunk}`.split('\n');
          rest = lines.pop() ?? '';
          for (const line of lines) {
            const { type, object } = JSON.parse(line) as { type: string; object: T };
            if ((type === 'ADDED' || type === 'MODIFIED') && wanted(object)) return object;
          }
        }
      } finally {
        response.destroy();
      }
    }
  }

  #open(
    method: string,
    path: string,
    text: string | undefined,
    contentType: string,
    signal?: AbortSignal,
  ): Promise<IncomingMessage> {
    const { url, token } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const message = request(new URL(path, url), {
      method,
      agent: this.#agent,
      ...(signal === undefined ? { timeout: 30_000 } : { signal }),
      headers: {
        Authorization: `Bearer ${token}`,
        ...(text === undefined ? {} : { 'Content-Type': contentType, 'Content-Length': Buffer.byteLength(text) }),
      },
    });
    message.on('timeout', () => message.destroy(new Error(`${method} ${path}: no answer within 30 s`)));
    message.on('response', resolve);
    message.on('error', (error) => reject(signal?.aborted ? signal.reason : error));
    message.end(text);
    return promise;
  }
}

function isOk(response: IncomingMessage): boolean {
  return (response.statusCode ?? 0) >= 200 && (response.statusCode ?? 0) < 300;
}

async function textOf(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  return Buffer.concat(parts).toString('utf8');
}
