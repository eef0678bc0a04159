import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { NodeEvents } from '../../src/agent/node-events.ts';
import { backendKind } from '../../src/backend/registry.ts';
import type { NetworkConfig } from '../../src/config/network-config.ts';
import type { NewEvent } from '../../src/events/event.ts';
import { EventRing } from '../../src/events/event-ring.ts';
import { formatIpv4, parseIpv4 } from '../../src/ip/ipv4.ts';
import { formatIpv6, parseIpv6 } from '../../src/ip/ipv6.ts';
import { FLANNEL_USER } from '../../src/lab/servers/flannel-account.ts';
import type { KubeNode, KubeObject } from '../../src/lab/servers/kube-client.ts';
import { type AuditEvent, KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { type Lease, type LeaseAttrs, leaseKey } from '../../src/lease/lease.ts';
import { DEFAULT_ANNOTATION_PREFIX } from '../../src/subnet/kube/annotations.ts';
import type { KubeSubnetManager, KubeTiming } from '../../src/subnet/kube/kube-subnet-manager.ts';
import { openKubeSubnetManager } from '../../src/subnet/kube/open-kube-subnet-manager.ts';
import type { SubnetReport } from '../../src/subnet/report.ts';
import { golden } from '../fakes/golden.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';
import { TcpProxy } from './etcd-proxy.ts';
import { flannelPart, flannelPartOf, goldenAudit, goldenNodes, requestKind } from './golden-nodes.ts';

/** flannel on real Kubernetes servers, without packets: one manager in the place of each agent. */

const P = `${DEFAULT_ANNOTATION_PREFIX}/`;
const PATIENCE_MS = 60_000;

let cluster: KubeCluster;
before(async () => {
  cluster = await KubeCluster.start();
});
after(() => cluster[Symbol.asyncDispose]());

function attrs(publicIp: string, more: Partial<LeaseAttrs> = {}): LeaseAttrs {
  return {
    publicAddresses: { ipv4: parseIpv4(publicIp), ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
    ...more,
  };
}

interface AgentOptions {
  readonly node: string;
  readonly netConf?: object;
  readonly kubeconfigFile?: string;
  readonly env?: Record<string, string>;
  readonly pod?: { readonly podName: string; readonly podNamespace: string };
  readonly apiUrl?: string;
  readonly serviceAccountDir?: string;
  readonly timing?: Partial<KubeTiming>;
}

/** What an agent does with its subnet manager, up to the picture of all leases. */
class Agent implements AsyncDisposable {
  readonly manager: KubeSubnetManager;
  readonly config: NetworkConfig;
  readonly reports: SubnetReport[] = [];
  /** Public addresses by lease key. */
  readonly picture = new Map<string, string>();
  readonly withdrawn: string[] = [];
  readonly #abort: AbortController;
  #changed = Promise.withResolvers<void>();
  #following: Promise<void> | undefined;

  private constructor(
    manager: KubeSubnetManager,
    config: NetworkConfig,
    reports: SubnetReport[],
    abort: AbortController,
  ) {
    this.manager = manager;
    this.config = config;
    this.reports = reports;
    this.#abort = abort;
  }

  static async start(options: AgentOptions): Promise<Agent> {
    const netConfPath = join(cluster.dir, `net-conf-${Math.random()}.json`);
    await writeFile(
      netConfPath,
      JSON.stringify(options.netConf ?? { Network: '10.244.0.0/16', Backend: { Type: 'udp' } }),
    );
    const abort = new AbortController();
    const reports: SubnetReport[] = [];
    let agent: Agent | undefined;
    const manager = await openKubeSubnetManager(
      {
        backends: backendKind,
        kubeconfigFile:
          options.kubeconfigFile ?? (options.serviceAccountDir === undefined ? await cluster.flannelKubeconfig() : ''),
        apiUrl: options.apiUrl ?? '',
        nodeName: options.node,
        env: options.env ?? {},
        ...options.pod,
        annotationPrefix: DEFAULT_ANNOTATION_PREFIX,
        netConfPath,
        setNodeNetworkUnavailable: true,
        version: 'v0.0.0-weft',
        report: (report) => {
          reports.push(report);
          if (agent !== undefined) agent.#wake();
        },
        ...(options.serviceAccountDir === undefined ? {} : { serviceAccountDir: options.serviceAccountDir }),
        ...(options.timing === undefined ? {} : { timing: options.timing }),
      },
      AbortSignal.any([abort.signal, AbortSignal.timeout(PATIENCE_MS)]),
    );
    agent = new Agent(manager, await manager.networkConfig(abort.signal), reports, abort);
    return agent;
  }

  /** As an agent starts: interface, lease, condition, peers. */
  async join(publicIp: string, more: Partial<LeaseAttrs> = {}): Promise<Lease> {
    const { signal } = this.#abort;
    await this.manager.nodeAddresses(signal);
    const lease = await this.manager.acquireLease(this.config, attrs(publicIp, more), signal);
    await this.manager.completeLease(lease, signal);
    this.follow();
    return lease;
  }

  follow(): void {
    this.#following = this.#follow();
  }

  async until(what: string, wanted: (picture: ReadonlyMap<string, string>) => boolean): Promise<void> {
    const late = AbortSignal.timeout(PATIENCE_MS);
    const tooLate = new Promise<never>((_, reject) => {
      late.addEventListener('abort', () =>
        reject(new Error(`${what}: not seen; known are ${JSON.stringify([...this.picture])}`)),
      );
    });
    while (!wanted(this.picture)) await Promise.race([this.#changed.promise, tooLate]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error('the agent was stopped'));
    await this.#following;
    await this.manager[Symbol.asyncDispose]();
  }

  async #follow(): Promise<void> {
    for await (const update of this.manager.watchLeases(this.config, this.#abort.signal)) {
      if (update.type === 'snapshot') {
        const keys = new Set<string>(update.leases.map(leaseKey));
        for (const key of this.picture.keys()) if (!keys.has(key)) this.#remove(key);
        for (const lease of update.leases) this.#set(lease);
      } else if (update.type === 'set') {
        this.#set(update.lease);
      } else {
        this.#remove(update.key);
      }
      this.#wake();
    }
  }

  /** Whoever waits in `until` looks again. */
  #wake(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #set(lease: Lease): void {
    const {
      publicAddresses: { ipv4: publicIp, ipv6: publicIpv6 },
    } = lease.attrs;
    this.picture.set(leaseKey(lease), publicIp === undefined ? formatIpv6(publicIpv6!) : formatIpv4(publicIp));
  }

  #remove(key: string): void {
    this.picture.delete(key);
    this.withdrawn.push(key);
  }
}

/** Ready-made Nodes with pod CIDRs, and no others. */
async function nodes(...names: string[]): Promise<KubeNode[]> {
  await cluster.admin.delete('/api/v1/nodes');
  return cluster.createNodes(names, AbortSignal.timeout(PATIENCE_MS));
}

/** The key of the lease that a Node's pod CIDR gives. */
function keyOf(node: KubeNode | undefined): string {
  return node?.spec.podCIDR?.replace('/', '-') ?? '';
}

/** A Node as a flannel peer leaves it. */
function peerAnnotations(publicIp: string): Record<string, string> {
  return {
    [`${P}kube-subnet-manager`]: 'true',
    [`${P}backend-type`]: '',
    [`${P}backend-data`]: 'null',
    [`${P}public-ip`]: publicIp,
  };
}

describe('beside a recorded flannel', () => {
  test('udp: the same kinds of requests, the same patches, annotations and conditions', async () => {
    const recorded = goldenAudit('udp');
    await using own = await KubeCluster.start();
    const names = ['node1', 'node2', 'node3'];
    await own.createNodes(names, AbortSignal.timeout(PATIENCE_MS));
    const netConfPath = join(own.dir, 'net-conf.json');
    await writeFile(netConfPath, golden('udp', '01-net-conf.json'));
    const kubeconfigFile = await own.flannelKubeconfig();
    const { signal } = new AbortController();
    for (const [i, node] of names.entries()) {
      await using manager = await openKubeSubnetManager(
        {
          backends: backendKind,
          kubeconfigFile,
          apiUrl: '',
          nodeName: node,
          annotationPrefix: DEFAULT_ANNOTATION_PREFIX,
          netConfPath,
          setNodeNetworkUnavailable: true,
          version: 'v0.0.0-weft',
        },
        signal,
      );
      const config = await manager.networkConfig(signal);
      await manager.nodeAddresses(signal);
      const lease = await manager.acquireLease(config, attrs(`10.98.0.1${i + 1}`), signal);
      // The watch must have begun before it is ended, to be in the record.
      for await (const update of manager.watchLeases(config, signal)) {
        const own_ = update.type === 'set' ? [update.lease] : update.type === 'snapshot' ? update.leases : [];
        if (own_.some((one) => leaseKey(one) === leaseKey(lease))) break;
      }
      await manager.completeLease(lease, signal);
    }

    const requests = (await own.audit()).filter(
      ({ stage }) => stage === 'ResponseComplete' || stage === 'ResponseStarted',
    );
    assert.ok(requests.every(({ user }) => user.username === FLANNEL_USER));
    assert.deepEqual(
      requests.map(({ responseStatus }) => responseStatus?.code).filter((code) => code !== 200),
      [],
      'everything was allowed by the rights of flannel',
    );
    assert.deepEqual([...new Set(requests.map(requestKind))].sort(), [...new Set(recorded.map(requestKind))].sort());
    const lists = requests.filter(({ verb }) => verb === 'list').map(({ requestURI }) => requestURI);
    assert.deepEqual([...new Set(lists)], ['/api/v1/nodes?limit=500&resourceVersion=0']);
    const watches = (from: readonly AuditEvent[]) =>
      from.filter(({ verb }) => verb === 'watch').map(({ requestURI }) => requestURI.replaceAll(/=\d+/g, '=N'));
    assert.deepEqual(new Set(watches(requests)), new Set(watches(recorded)));
    const patches = (from: readonly AuditEvent[]) =>
      from
        .filter(({ verb }) => verb === 'patch')
        .map(({ requestURI, requestObject }) => `${requestURI} ${JSON.stringify(requestObject)}`)
        .map((line) => line.replaceAll(/\d{4}-\d\d-\d\dT[\d:]+Z/g, 'TIME'))
        .sort();
    assert.deepEqual(patches(requests), patches(recorded));
    assert.ok(requests.every(({ userAgent }) => userAgent.startsWith('flanneld/')));

    for (const expected of goldenNodes('udp')) {
      const node = await own.admin.node(expected.name);
      assert.deepEqual(flannelPart(node), flannelPartOf(expected));
      assert.deepEqual(node.spec.podCIDRs, expected.podCIDRs);
    }
  });

  test('vxlan dual-stack and host-gw: the same annotations', async () => {
    for (const [scenario, netConf, type, data] of [
      [
        'vxlan-dual',
        { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd10:244::/56', Backend: { Type: 'vxlan' } },
        'vxlan',
        true,
      ],
      ['host-gw', { Network: '10.244.0.0/16', Backend: { Type: 'host-gw' } }, 'host-gw', false],
    ] as const) {
      for (const expected of goldenNodes(scenario)) {
        await cluster.admin.delete('/api/v1/nodes');
        await cluster.admin.createNode(expected.name, { podCidrs: expected.podCIDRs });
        const annotation = (key: string) => expected.annotations[`${P}${key}`];
        const parsed = (key: string) => JSON.parse(annotation(key) ?? 'null') ?? undefined;
        await using agent = await Agent.start({ node: expected.name, netConf });
        await agent.join(annotation('public-ip') ?? '', {
          backendType: type,
          publicAddresses: {
            ipv4: parseIpv4(annotation('public-ip') ?? ''),
            ipv6: parseIpv6(annotation('public-ipv6') ?? ''),
          },
          backendData: {
            ipv4: data ? parsed('backend-data') : undefined,
            ipv6: data ? parsed('backend-v6-data') : undefined,
          },
        });
        assert.deepEqual(flannelPart(await cluster.admin.node(expected.name)), flannelPartOf(expected));
      }
    }
  });
});

describe('ways to the API server', () => {
  test('inside a pod, with the name of the node from the pod', async () => {
    const [node] = await nodes('node1');
    const pod = {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'kube-flannel-ds-x', namespace: 'kube-flannel' },
      spec: { nodeName: 'node1', serviceAccountName: 'flannel', containers: [{ name: 'c', image: 'none' }] },
    };
    await cluster.admin.create('/api/v1/namespaces/kube-flannel/pods', pod);
    const { hostname, port } = new URL(cluster.url);
    await using agent = await Agent.start({
      node: '',
      serviceAccountDir: await cluster.serviceAccountDir(),
      env: {
        KUBERNETES_SERVICE_HOST: hostname,
        KUBERNETES_SERVICE_PORT: port,
      },
      pod: { podName: 'kube-flannel-ds-x', podNamespace: 'kube-flannel' },
    });
    assert.equal(agent.manager.nodeName, 'node1');
    assert.equal(leaseKey(await agent.join('10.98.0.11')), keyOf(node));
  });

  test('a client certificate', async () => {
    const [node] = await nodes('node1');
    const clientCertificate = await cluster.ca.issueClient('flannel-admin', 'system:masters');
    await using agent = await Agent.start({
      node: 'node1',
      kubeconfigFile: await cluster.kubeconfig('certificate', { clientCertificate }),
    });
    assert.equal(leaseKey(await agent.join('10.98.0.11')), keyOf(node));
  });

  test('an exec plugin', async () => {
    const [node] = await nodes('node1');
    const apiVersion = 'client.authentication.k8s.io/v1';
    const credential = { apiVersion, kind: 'ExecCredential', status: { token: await cluster.flannelToken() } };
    await using agent = await Agent.start({
      node: 'node1',
      kubeconfigFile: await cluster.kubeconfig('exec', {
        exec: { apiVersion, command: 'echo', args: [JSON.stringify(credential)], interactiveMode: 'Never' },
      }),
    });
    assert.equal(leaseKey(await agent.join('10.98.0.11')), keyOf(node));
  });

  test('too few rights: the message names them', async () => {
    await nodes('node1');
    const token = await tokenOf('nobody');
    const kubeconfigFile = await cluster.kubeconfig('nobody', { token });
    await assert.rejects(
      Agent.start({ node: '', kubeconfigFile, pod: { podName: 'p', podNamespace: 'kube-flannel' } }),
      {
        code: 'WEFT_KUBE_REFUSED',
        message: /error retrieving pod spec for 'kube-flannel\/p'.*cannot get resource "pods"/,
      },
    );
  });

  async function tokenOf(account: string): Promise<string> {
    const accounts = '/api/v1/namespaces/kube-flannel/serviceaccounts';
    await cluster.admin.create(accounts, { metadata: { name: account } });
    const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: {} };
    const answer = await cluster.admin.json<{ status: { token: string } }>(
      'POST',
      `${accounts}/${account}/token`,
      request,
    );
    return answer.status.token;
  }
});

describe('a watch never ends for good', () => {
  test('the API server is killed and started again, with changes of all kinds meanwhile', async () => {
    const [first, second, third] = await nodes('node1', 'node2', 'node3');
    await cluster.admin.annotateNode('node2', peerAnnotations('10.98.0.12'));
    await cluster.admin.annotateNode('node3', peerAnnotations('10.98.0.13'));
    await using agent = await Agent.start({ node: 'node1' });
    await agent.join('10.98.0.11');
    await agent.until('all three', (picture) => picture.size === 3);
    await cluster.servers.apiServer.kill();
    await agent.until('the outage', () => agent.reports.some(({ type }) => type === 'store-failed'));
    await cluster.servers.apiServer.start();
    await cluster.admin.annotateNode('node2', { [`${P}public-ip`]: '10.98.0.22' });
    await cluster.admin.deleteNode('node3');
    await agent.until(
      'the changes',
      (picture) => picture.get(keyOf(second)) === '10.98.0.22' && !picture.has(keyOf(third)),
    );
    assert.equal(agent.picture.get(keyOf(first)), '10.98.0.11');
    assert.deepEqual(agent.withdrawn, [keyOf(third)]);
  });

  test('its version is forgotten while it is cut off: 410 Gone', async () => {
    const [, second, third] = await nodes('node1', 'node2', 'node3');
    await cluster.admin.annotateNode('node2', peerAnnotations('10.98.0.12'));
    await cluster.admin.annotateNode('node3', peerAnnotations('10.98.0.13'));
    await using proxy = await TcpProxy.start(cluster.url);
    const apiUrl = `https://127.0.0.1:${new URL(proxy.url).port}`;
    const timing = { reflector: { retry: { firstMs: 50, maxMs: 500 } } };
    await using agent = await Agent.start({ node: 'node1', apiUrl, timing });
    await agent.join('10.98.0.11');
    await agent.until('all three', (picture) => picture.size === 3);
    proxy.cut();
    await cluster.admin.annotateNode('node2', { [`${P}public-ip`]: '10.98.0.22' });
    await cluster.admin.deleteNode('node3');
    // A server that was started anew knows no history from before.
    await cluster.servers.apiServer.kill();
    await cluster.servers.apiServer.start();
    proxy.heal();
    await agent.until(
      'the changes',
      (picture) => picture.get(keyOf(second)) === '10.98.0.22' && !picture.has(keyOf(third)),
    );
    assert.deepEqual(agent.withdrawn, [keyOf(third)]);
    const relisted = agent.reports.filter(
      (report) => report.type === 'note' && /no longer known to the server/.test(report.text),
    );
    assert.equal(relisted.length, 1);
  });

  test('its connection goes silent, as behind a firewall that has forgotten it', async () => {
    const [, second] = await nodes('node1', 'node2');
    await using proxy = await TcpProxy.start(cluster.url);
    const apiUrl = `https://127.0.0.1:${new URL(proxy.url).port}`;
    await using agent = await Agent.start({ node: 'node1', apiUrl, timing: { reflector: { silenceMs: 500 } } });
    await agent.join('10.98.0.11');
    await agent.until('itself', (picture) => picture.size === 1);
    proxy.swallow();
    await cluster.admin.annotateNode('node2', peerAnnotations('10.98.0.12'));
    await agent.until('the peer', (picture) => picture.has(keyOf(second)));
    assert.deepEqual(agent.withdrawn, []);
  });

  test('its time limit comes again and again', async () => {
    const [, second] = await nodes('node1', 'node2');
    await using agent = await Agent.start({ node: 'node1', timing: { reflector: { watchSeconds: [1, 1] } } });
    await agent.join('10.98.0.11');
    const before = (await watchesSoFar()).length;
    await eventually('three more watches', async () => (await watchesSoFar()).length >= before + 3);
    await cluster.admin.annotateNode('node2', peerAnnotations('10.98.0.12'));
    await agent.until('the peer', (picture) => picture.has(keyOf(second)));
    assert.deepEqual(
      agent.reports.filter(({ type }) => type === 'store-failed' || type === 'resynchronised'),
      [],
    );
  });

  test('its token is revoked, and replaced in the file', async () => {
    const [, second] = await nodes('node1', 'node2');
    const dir = await cluster.serviceAccountDir();
    const { hostname, port } = new URL(cluster.url);
    const env = { NODE_NAME: 'node1', KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port };
    await using agent = await Agent.start({
      node: 'node1',
      serviceAccountDir: dir,
      env,
      timing: { reflector: { watchSeconds: [1, 1], retry: { firstMs: 50, maxMs: 500 } } },
    });
    await agent.join('10.98.0.11');
    // Tokens are bound to the account, which is another one now.
    const accounts = '/api/v1/namespaces/kube-flannel/serviceaccounts';
    await cluster.admin.delete(`${accounts}/flannel`);
    await cluster.admin.create(accounts, { metadata: { name: 'flannel' } });
    const refused = () =>
      agent.reports.some((report) => report.type === 'store-failed' && /401/.test(report.error.message));
    await eventually('the token is refused', refused);
    await writeFile(join(dir, 'token'), await cluster.flannelToken());
    await cluster.admin.annotateNode('node2', peerAnnotations('10.98.0.12'));
    await agent.until('the peer', (picture) => picture.has(keyOf(second)));
    assert.deepEqual(agent.withdrawn, []);
  });

  async function watchesSoFar(): Promise<AuditEvent[]> {
    return (await cluster.audit()).filter(({ verb, stage }) => verb === 'watch' && stage === 'ResponseComplete');
  }
});

describe('the own Node', () => {
  test('is waited for until the controller manager gives it a pod CIDR', async () => {
    await cluster.admin.delete('/api/v1/nodes');
    await cluster.servers.controllerManager.stop();
    try {
      await using agent = await Agent.start({ node: 'late', timing: { nodePollMs: 50 } });
      const pending = agent.join('10.98.0.11');
      await cluster.admin.createNode('late');
      const waiting = () =>
        agent.reports.some((report) => report.type === 'note' && /pod cidr not assigned/.test(report.text));
      await eventually('it waits for a pod CIDR', waiting);
      await cluster.servers.controllerManager.start();
      assert.equal(leaseKey(await pending), keyOf(await cluster.admin.node('late')));
    } finally {
      if (cluster.servers.controllerManager.pid === undefined) await cluster.servers.controllerManager.start();
    }
  });

  test('gets its annotations and its condition back when it was deleted and made again', async () => {
    await nodes('node1');
    await using agent = await Agent.start({ node: 'node1' });
    const lease = await agent.join('10.98.0.11');
    const held = agent.manager.holdLease(lease, AbortSignal.timeout(PATIENCE_MS))[Symbol.asyncIterator]();
    const pending = held.next();
    await cluster.admin.deleteNode('node1');
    await cluster.admin.createNode('node1', { podCidrs: [leaseKey(lease).replace('-', '/')] });
    assert.deepEqual((await pending).value, { type: 'renewed', lease });
    const node = await cluster.admin.waitForNode(
      'node1',
      ({ status }) => (status.conditions ?? []).length > 0,
      AbortSignal.timeout(PATIENCE_MS),
    );
    assert.equal(node.metadata.annotations?.[`${P}public-ip`], '10.98.0.11');
    assert.equal(node.status.conditions?.find(({ type }) => type === 'NetworkUnavailable')?.status, 'False');
    await held.return?.(undefined);
  });

  test('has the events that an operator must know, once the account may write them', async () => {
    await nodes('node1');
    const role = '/apis/rbac.authorization.k8s.io/v1/clusterroles/flannel';
    const { rules } = await cluster.admin.get<KubeObject & { rules: readonly object[] }>(role);
    const setRules = (all: readonly object[]) =>
      cluster.admin.json('PATCH', role, { rules: all }, 'application/merge-patch+json');
    await using agent = await Agent.start({ node: 'node1' });
    const ring = new EventRing();
    const warnings: string[] = [];
    const told: string[] = [];
    const start = () =>
      new NodeEvents({
        events: ring,
        tell: async (event, signal) => {
          const answer = await agent.manager.tellEvent(event, signal);
          told.push(`${answer} ${event.count}`);
          return answer;
        },
        log: { warn: (text) => void warnings.push(text), verbose: (_, text) => assert.fail(text) },
      });
    const broken: NewEvent = {
      kind: 'forwarder-failed',
      severity: 'error',
      subject: 'flannel0',
      text: 'flannel0 is gone',
    };
    {
      await using _without = start();
      ring.add(broken);
      await eventually('a refusal', () => (warnings.length > 0 ? true : undefined));
      assert.deepEqual(told, ['refused 1']);
    }
    await setRules([...rules, { apiGroups: [''], resources: ['events'], verbs: ['create', 'patch'] }]);
    try {
      // The server's authorizer follows its roles a moment later.
      const probe = {
        reason: 'FlannelReady',
        type: 'Normal',
        message: 'x',
        firstAtMs: 0,
        lastAtMs: 0,
        count: 1,
      } as const;
      const { signal } = new AbortController();
      await eventually('the right', async () =>
        (await agent.manager.tellEvent(probe, signal)) === 'told' ? true : undefined,
      );
      await using _events = start();
      /** As `kubectl describe node` asks. */
      const seen = async (): Promise<string[]> => {
        const query =
          'fieldSelector=involvedObject.kind%3DNode%2CinvolvedObject.name%3Dnode1%2CinvolvedObject.uid%3Dnode1';
        const { items } = await cluster.admin.json<{
          items: readonly { reason: string; type: string; message: string; count: number }[];
        }>('GET', `/api/v1/events?${query}`);
        return items.map(({ reason, type, message, count }) => `${type} ${reason} ${message} ${count}`).sort();
      };
      const shows = (...expected: string[]) =>
        eventuallyHolds(async () => assert.deepEqual(await seen(), ['Normal FlannelReady x 1', ...expected].sort()));
      ring.add(broken);
      await shows('Warning FlannelDataPathBroken flannel0 is gone 1');
      ring.add(broken);
      await shows('Warning FlannelDataPathBroken flannel0 is gone 2');
      await cluster.admin.delete('/api/v1/namespaces/default/events');
      ring.add(broken);
      ring.add({ kind: 'forwarder-started', severity: 'info', subject: 'flannel0', text: 'flannel0 is back' });
      await agent.manager.tellEvent(probe, signal);
      await shows(
        'Warning FlannelDataPathBroken flannel0 is gone 3',
        'Normal FlannelDataPathMended flannel0 is back 1',
      );
      assert.equal(warnings.length, 1);
    } finally {
      await setRules(rules);
    }
  });

  test('public-ip-overwrite set before the start ends up in public-ip', async () => {
    await nodes('node1');
    await cluster.admin.annotateNode('node1', { [`${P}public-ip-overwrite`]: '172.18.0.2' });
    await using agent = await Agent.start({ node: 'node1' });
    await agent.join('10.98.0.11');
    assert.equal((await cluster.admin.node('node1')).metadata.annotations?.[`${P}public-ip`], '172.18.0.2');
  });
});
