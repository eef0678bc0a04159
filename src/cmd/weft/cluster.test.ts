import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { FakeInspection } from '../../../test/fakes/fake-inspection.ts';
import { createApp } from '../../api/app.ts';
import { clusterClients } from './cluster.ts';

const TOKEN = 'token-of-the-agents-16';
const signal = new AbortController().signal;

/** An API server with pods, a Secret and a pod proxy, to agents behind it. */
class Cluster implements AsyncDisposable {
  readonly requests: IncomingMessage[] = [];
  pods: object[] = ['node-b', 'node-a'].map((nodeName) => ({
    metadata: { name: `kube-flannel-${nodeName}`, namespace: 'kube-flannel' },
    spec: { nodeName, containers: [{ ports: [{ name: 'weft-api', containerPort: 9_000 }] }] },
  }));
  secret: object | undefined = { data: { token: Buffer.from(`${TOKEN}\n`).toString('base64') } };
  forbidden: RegExp = /never/;
  readonly #app = createApp({ inspection: new FakeInspection(), signal });
  readonly #server = createServer(async (request, response) => {
    this.requests.push(request);
    const url = new URL(request.url ?? '', 'http://x');
    const send = (status: number, body: object) => response.writeHead(status).end(JSON.stringify(body));
    const proxied = /^\/api\/v1\/namespaces\/kube-flannel\/pods\/kube-flannel-node-[ab]:9000\/proxy(.*)$/.exec(
      url.pathname,
    );
    if (this.forbidden.test(url.pathname))
      return send(403, { kind: 'Status', reason: 'Forbidden', message: 'not you' });
    if (url.pathname === '/api/v1/pods') return send(200, { items: this.pods });
    if (url.pathname.endsWith('/secrets/weft-api'))
      return send(this.secret ? 200 : 404, this.secret ?? { kind: 'Status' });
    if (proxied === null) return send(404, {});
    if (request.headers['weft-api-token'] !== TOKEN) return send(401, { error: 'the token is wrong' });
    const answer = await this.#app.request(`${proxied[1]}${url.search}`);
    return response.writeHead(answer.status).end(await answer.text());
  });
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async start(): Promise<Cluster> {
    const cluster = new Cluster(await mkdtemp(join(tmpdir(), 'weft-cluster-')));
    await new Promise<void>((resolve) => cluster.#server.listen(0, '127.0.0.1', resolve));
    const server = `http://127.0.0.1:${(cluster.#server.address() as AddressInfo).port}`;
    const config = {
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u' } }],
      clusters: [{ name: 'c', cluster: { server } }],
      users: [{ name: 'u', user: { token: 'of-the-user' } }],
    };
    await writeFile(cluster.kubeconfig, JSON.stringify(config));
    return cluster;
  }

  get kubeconfig(): string {
    return join(this.#directory, 'config');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    await rm(this.#directory, { recursive: true });
  }
}

describe('the agents of a cluster', () => {
  it('are asked through the pod proxy, by the user’s own rights and the token of the Secret', async () => {
    await using cluster = await Cluster.start();
    const clients = await clusterClients({ kubeconfig: cluster.kubeconfig }, undefined, signal);
    assert.deepEqual(
      clients.map(({ name }) => name),
      ['node-a', 'node-b'],
    );
    assert.equal((await clients[0]!.get('/self', signal)).host, 'node-1');
    assert.deepEqual(
      [...new Set(cluster.requests.map(({ headers }) => headers.authorization))],
      ['Bearer of-the-user'],
    );
    assert.equal(cluster.requests[0]!.url, '/api/v1/pods?labelSelector=app%3Dflannel');
    await clusterClients({ kubeconfig: cluster.kubeconfig }, 'node-b', signal);
    assert.match(cluster.requests.map(({ url }) => url).join(' '), /fieldSelector=spec\.nodeName%3Dnode-b/);
  });

  it('are those of their own namespace: pods that somebody calls so elsewhere answer for none of them', async () => {
    await using cluster = await Cluster.start();
    const ask = () => clusterClients({ kubeconfig: cluster.kubeconfig }, undefined, signal);
    const podsIn = (namespace: string, nodeName: string) => ({
      metadata: { name: `evil-${nodeName}`, namespace },
      spec: { nodeName, containers: [] },
    });
    const own = cluster.pods;
    // The API server lists by namespace.
    cluster.pods = [podsIn('a-first', 'node-a'), ...own, podsIn('z-last', 'node-c')];
    const clients = await ask();
    assert.deepEqual(
      clients.map(({ name }) => name),
      ['node-a', 'node-b'],
    );
    assert.equal((await clients[0]!.get('/self', signal)).host, 'node-1');
    assert.ok(cluster.requests.every(({ url }) => !/a-first|z-last/.test(url ?? '')));
    cluster.pods = [podsIn('a-first', 'node-a'), podsIn('networking', 'node-b')];
    await assert.rejects(ask, {
      code: 'WEFT_USAGE',
      message: 'pods with the label app=flannel are in a-first, networking, and not in kube-flannel or kube-system',
      hint: /--namespace/,
    });
    assert.ok(cluster.requests.every(({ url }) => !/a-first|networking/.test(url ?? '')));
  });

  it('are not asked without Secret, pods or permission, and it is said what to do', async () => {
    await using cluster = await Cluster.start();
    const ask = async () => {
      const [client] = await clusterClients({ kubeconfig: cluster.kubeconfig }, undefined, signal);
      await client!.get('/self', signal);
    };
    cluster.secret = undefined;
    await assert.rejects(ask, {
      code: 'WEFT_API_REFUSED',
      hint: /kubectl -n kube-flannel create secret generic weft-api/,
    });
    cluster.secret = { data: { token: Buffer.from('another').toString('base64') } };
    await assert.rejects(ask, { code: 'WEFT_API_REFUSED', message: /401/ });
    cluster.forbidden = /secrets/;
    await assert.rejects(ask, { code: 'WEFT_API_REFUSED', message: /403 not you/ });
    cluster.forbidden = /never/;
    cluster.pods = [];
    await assert.rejects(ask, { code: 'WEFT_API_UNREACHABLE', message: /no pod with the label app=flannel/ });
  });
});
