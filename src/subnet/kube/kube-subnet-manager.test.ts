import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FakeKubeApi, type FakeNode } from '../../../test/fakes/fake-kube-api.ts';
import { eventually, eventuallyHolds, PATIENCE_MS } from '../../../test/netns/waiting.ts';
import { backendKind } from '../../backend/registry.ts';
import type { NodeEvent } from '../../events/node-event.ts';
import { formatIpv4, parseIpv4 } from '../../ip/ipv4.ts';
import { formatIpv6, parseIpv6 } from '../../ip/ipv6.ts';
import { type Lease, type LeaseAttrs, leaseKey } from '../../lease/lease.ts';
import { describeReport, type SubnetReport } from '../report.ts';
import type { LeaseUpdate, OwnLeaseEvent } from '../subnet-manager.ts';
import { DEFAULT_ANNOTATION_PREFIX } from './annotations.ts';
import type { KubeSubnetManager, KubeTiming } from './kube-subnet-manager.ts';
import { type OpenKubeSubnetManagerOptions, openKubeSubnetManager } from './open-kube-subnet-manager.ts';

const P = `${DEFAULT_ANNOTATION_PREFIX}/`;
const UDP = { Network: '10.244.0.0/16', Backend: { Type: 'udp' } };
const DUAL = { Network: '10.244.0.0/16', EnableIPv6: true, IPv6Network: 'fd10:244::/56', Backend: { Type: 'vxlan' } };
const FAST: KubeTiming = {
  reflector: { retry: { firstMs: 2, maxMs: 10 } },
  refusal: { everyMs: 2, forMs: 300 },
  nodePollMs: 2,
  nodeLogMs: 60_000,
};

let dir: string;
before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-kube-manager-'));
});
after(() => rm(dir, { recursive: true, force: true }));

function attrs(last: number, more: Partial<LeaseAttrs> = {}): LeaseAttrs {
  return {
    publicAddresses: { ipv4: parseIpv4(`10.98.0.${last}`), ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
    ...more,
  };
}

/** A Node as its kubelet registers it. */
function bare(name: string, podCidrs: readonly string[] = [], annotations: Record<string, string> = {}): FakeNode {
  const spec = podCidrs[0] === undefined ? {} : { podCIDR: podCidrs[0], podCIDRs: [...podCidrs] };
  return { apiVersion: 'v1', kind: 'Node', metadata: { name, annotations }, spec };
}

/** A Node on which flannel runs in udp mode. */
function peer(name: string, podCidr: string, publicIp: string, more: Record<string, string> = {}): FakeNode {
  return bare(name, [podCidr], {
    [`${P}kube-subnet-manager`]: 'true',
    [`${P}backend-type`]: '',
    [`${P}backend-data`]: 'null',
    [`${P}public-ip`]: publicIp,
    ...more,
  });
}

/** A fake server with one agent's manager on it. */
class Bench implements AsyncDisposable {
  readonly fake: FakeKubeApi;
  readonly reports: SubnetReport[] = [];
  readonly signal: AbortSignal;
  readonly #abort = new AbortController();
  readonly #managers: KubeSubnetManager[] = [];
  readonly #netConfPath: string;

  private constructor(fake: FakeKubeApi, netConfPath: string) {
    this.fake = fake;
    this.#netConfPath = netConfPath;
    this.signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(PATIENCE_MS)]);
  }

  static async start(netConf: object = UDP): Promise<Bench> {
    const path = join(dir, `net-conf-${Math.random()}.json`);
    await writeFile(path, JSON.stringify(netConf));
    return new Bench(await FakeKubeApi.start(), path);
  }

  async open(options: Partial<OpenKubeSubnetManagerOptions> = {}): Promise<KubeSubnetManager> {
    const manager = await openKubeSubnetManager(
      {
        backends: backendKind,
        kubeconfigFile: '',
        apiUrl: this.fake.url,
        nodeName: 'own',
        annotationPrefix: DEFAULT_ANNOTATION_PREFIX,
        netConfPath: this.#netConfPath,
        setNodeNetworkUnavailable: true,
        version: 'test',
        report: (report) => this.reports.push(report),
        timing: FAST,
        ...options,
      },
      this.signal,
    );
    this.#managers.push(manager);
    return manager;
  }

  /** The manager's lease under `wanted`. */
  async acquire(manager: KubeSubnetManager, wanted: LeaseAttrs = attrs(1)): Promise<Lease> {
    return manager.acquireLease(await manager.networkConfig(this.signal), wanted, this.signal);
  }

  async watch(manager: KubeSubnetManager): Promise<AsyncIterator<LeaseUpdate>> {
    return manager.watchLeases(await manager.networkConfig(this.signal), this.signal)[Symbol.asyncIterator]();
  }

  hold(manager: KubeSubnetManager, lease: Lease): AsyncIterator<OwnLeaseEvent> {
    return manager.holdLease(lease, this.signal)[Symbol.asyncIterator]();
  }

  annotation(name: string, key: string): string | undefined {
    return this.fake.node(name)?.metadata.annotations?.[`${P}${key}`];
  }

  lines(): string[] {
    return this.reports.map((report) => describeReport(report).text);
  }

  patches(): object[] {
    return this.fake.requests.filter(({ method }) => method === 'PATCH').map(({ body }) => JSON.parse(body));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error('the test is over'));
    for (const manager of this.#managers) await manager[Symbol.asyncDispose]();
    await this.fake[Symbol.asyncDispose]();
  }
}

async function next<T>(source: AsyncIterator<T>): Promise<T> {
  const step = await source.next();
  assert.ok(step.done !== true, 'it ended');
  return step.value;
}

/** An update, in short. */
function short(update: LeaseUpdate): string {
  const one = (lease: Lease): string => {
    const {
      publicAddresses: { ipv4: publicIp, ipv6: publicIpv6 },
    } = lease.attrs;
    const addresses = [
      publicIp === undefined ? '' : formatIpv4(publicIp),
      publicIpv6 === undefined ? '' : formatIpv6(publicIpv6),
    ];
    return `${leaseKey(lease)}@${addresses.filter(Boolean).join('+')}`;
  };
  if (update.type === 'snapshot') return `snapshot ${update.leases.map(one).sort().join(' ')}`.trimEnd();
  return update.type === 'set' ? `set ${one(update.lease)}` : `removed ${update.key}`;
}

async function settled(condition: () => boolean): Promise<void> {
  await eventually(String(condition), condition);
}

describe('acquiring', () => {
  test('publishes the annotations of flannel, once, and takes the pod CIDR', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    assert.equal(manager.name, 'Kubernetes Subnet Manager - own');
    const lease = await bench.acquire(manager);
    assert.equal(leaseKey(lease), '10.244.3.0-24');
    assert.deepEqual(lease.attrs, attrs(1));
    await bench.acquire(manager);
    assert.deepEqual(bench.patches(), [
      {
        metadata: {
          annotations: {
            [`${P}backend-data`]: 'null',
            [`${P}backend-type`]: '',
            [`${P}kube-subnet-manager`]: 'true',
            [`${P}public-ip`]: '10.98.0.1',
          },
        },
      },
    ]);
  });

  test('another prefix for the annotations', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    await bench.acquire(await bench.open({ annotationPrefix: 'example.com/net' }));
    assert.equal(bench.fake.node('own')?.metadata.annotations?.['example.com/net-public-ip'], '10.98.0.1');
  });

  test('waits for the Node, then for its pod CIDR, and says so once', async () => {
    await using bench = await Bench.start();
    const manager = await bench.open();
    const pending = bench.acquire(manager);
    await settled(() => bench.lines().some((line) => line.startsWith('node "own" does not exist')));
    bench.fake.put(bare('own'));
    await settled(() => bench.lines().some((line) => line.startsWith('node "own" pod cidr not assigned')));
    const reads = bench.fake.requests.length;
    await settled(() => bench.fake.requests.length > reads + 5);
    bench.fake.put(bare('own', ['10.244.9.0/24']));
    assert.equal(leaseKey(await pending), '10.244.9.0-24');
    assert.equal(bench.lines().filter((line) => line.includes('pod cidr not assigned')).length, 1);
  });

  test('a node that waits long for its pod CIDR says so in its condition, until it is ready', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own'));
    const manager = await bench.open();
    const acquiring = bench.acquire(manager);
    const condition = () => bench.fake.node('own')?.status?.conditions?.[0];
    await settled(() => condition() !== undefined);
    assert.deepEqual([condition()?.status, condition()?.reason], ['True', 'FlannelNoPodCidr']);
    assert.match(String(condition()?.message), /pod cidr not assigned.*--allocate-node-cidrs/);
    const node = bench.fake.node('own')!;
    bench.fake.put({ ...node, spec: { podCIDR: '10.244.3.0/24', podCIDRs: ['10.244.3.0/24'] } });
    await manager.completeLease(await acquiring, bench.signal);
    assert.equal(condition()?.status, 'False');
    assert.equal(bench.fake.node('own')?.status?.conditions?.length, 1);
  });

  test('a pod CIDR outside the network needs a human', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.99.0.0/24']));
    await assert.rejects(bench.acquire(await bench.open()), {
      code: 'WEFT_KUBE_NODE',
      message: /doesn't contain "10\.99\.0\.0\/24" PodCIDR/,
    });
    assert.deepEqual(bench.patches(), []);
  });

  test('an overwritten address is what peers see; the lease keeps the address of the interface', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24'], { [`${P}public-ip-overwrite`]: '172.18.0.2' }));
    const lease = await bench.acquire(await bench.open());
    assert.equal(bench.annotation('own', 'public-ip'), '172.18.0.2');
    assert.deepEqual(lease.attrs, attrs(1));
    assert.ok(
      bench.lines().includes(`Overriding public ip with '172.18.0.2' from node annotation '${P}public-ip-overwrite'`),
    );
  });

  test('a server in trouble is waited for; one that refuses is given half a minute', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    let troubles = 2;
    bench.fake.override = ({ method }) =>
      method === 'PATCH' && troubles-- > 0
        ? { status: 503, body: { kind: 'Status', reason: 'ServiceUnavailable', message: 'not now' } }
        : undefined;
    await bench.acquire(manager);
    const failures = bench.reports.filter((report) => report.type === 'store-failed');
    assert.equal(failures.length, 2);
    assert.match(failures[0]!.error.message, /PATCH .*\/api\/v1\/nodes\/own\/status: 503 not now/);

    bench.fake.override = ({ method }) =>
      method === 'PATCH'
        ? { status: 403, body: { kind: 'Status', reason: 'Forbidden', message: 'nodes "own" is forbidden' } }
        : undefined;
    const before = bench.patches().length;
    await assert.rejects(bench.acquire(manager, attrs(2)), {
      code: 'WEFT_KUBE_REFUSED',
      message: /^timeout contacting kube-api, failed to patch node "own"\. Error: .*nodes "own" is forbidden/,
      hint: /patch on nodes\/status/,
    });
    assert.ok(bench.patches().length >= before + 2, 'it was tried again');
  });

  test('alloc reads the own Node alone, from wherever it is at hand', async () => {
    await using bench = await Bench.start({ Network: '10.244.0.0/16', Backend: { Type: 'alloc' } });
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    const lease = await bench.acquire(manager);
    assert.ok(bench.lines().includes('Node controller skips sync'));
    const updates = await bench.watch(manager);
    assert.deepEqual(await next(updates), { type: 'snapshot', leases: [] });
    const held = bench.hold(manager, lease).next();
    await manager[Symbol.asyncDispose]();
    assert.equal((await held).done, true);
    assert.deepEqual(
      bench.fake.requests.map(({ method, path, query }) => `${method} ${path}?${query}`),
      ['GET /api/v1/nodes/own?resourceVersion=0', 'PATCH /api/v1/nodes/own/status?'],
    );
  });
});

describe('what is known of the own Node', () => {
  test('the addresses that people wrote there', async () => {
    await using bench = await Bench.start();
    bench.fake.put({
      ...bare('own', ['10.244.3.0/24'], {
        [`${P}node-public-ip`]: '203.0.113.7',
        [`${P}node-public-ipv6`]: '2001:db8::7',
      }),
      status: {
        addresses: [
          { type: 'Hostname', address: 'own' },
          { type: 'InternalIP', address: '10.98.0.1' },
          { type: 'InternalIP', address: 'fd98::1' },
        ],
      },
    });
    const manager = await bench.open();
    assert.deepEqual(await manager.nodeAddresses(bench.signal), {
      publicAddresses: { ipv4: '203.0.113.7', ipv6: '2001:db8::7' },
      internalIps: ['10.98.0.1', 'fd98::1'],
    });
  });

  test('the backend data of an earlier run', async () => {
    await using bench = await Bench.start();
    bench.fake.put(
      peer('own', '10.244.3.0/24', '10.98.0.1', { [`${P}backend-data`]: '{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}' }),
    );
    const manager = await bench.open();
    assert.deepEqual(await manager.storedBackendData(bench.signal), {
      ipv4: '{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}',
      ipv6: undefined,
    });
  });
});

describe('completing', () => {
  test('sets the condition, unless told not to', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const quiet = await bench.open({ setNodeNetworkUnavailable: false });
    await quiet.completeLease(await bench.acquire(quiet), bench.signal);
    assert.equal(bench.fake.node('own')?.status?.conditions?.length, 0);
    const manager = await bench.open();
    await manager.completeLease(await bench.acquire(manager), bench.signal);
    const [condition] = bench.fake.node('own')?.status?.conditions ?? [];
    assert.equal(condition?.type, 'NetworkUnavailable');
    assert.equal(condition.status, 'False');
    assert.equal(condition.reason, 'FlannelIsUp');
    assert.match(String(condition.lastHeartbeatTime), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  });

  test('a start that failed is said in the same condition, until one succeeds', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const condition = () => bench.fake.node('own')?.status?.conditions ?? [];
    const quiet = await bench.open({ setNodeNetworkUnavailable: false });
    await quiet.reportUnavailable('FlannelTunMissing', 'no /dev/net/tun', bench.signal);
    assert.deepEqual(condition(), []);
    const manager = await bench.open();
    await manager.reportUnavailable('FlannelTunMissing', 'no /dev/net/tun', bench.signal);
    const [{ type, status, reason, message } = { type: '' }] = condition();
    assert.deepEqual(
      [type, status, reason, message],
      ['NetworkUnavailable', 'True', 'FlannelTunMissing', 'no /dev/net/tun'],
    );
    await manager.completeLease(await bench.acquire(manager), bench.signal);
    assert.deepEqual(
      condition().map((one) => [one.type, one.status, one.reason]),
      [['NetworkUnavailable', 'False', 'FlannelIsUp']],
    );
  });
});

describe('events of the own Node', () => {
  const event = (count: number): NodeEvent => ({
    ...{ reason: 'FlannelLeaseLost', type: 'Warning', message: 'lost', count },
    ...{ firstAtMs: 1_000, lastAtMs: 1_000 * count },
  });

  test('are created, counted and created again when they were forgotten, and a refusal is a value', async () => {
    await using bench = await Bench.start();
    const manager = await bench.open();
    let status = 201;
    const told: string[] = [];
    bench.fake.override = ({ method, path, contentType, body }) => {
      if (!path.startsWith('/api/v1/namespaces/default/events')) return undefined;
      told.push(
        `${method} ${path.replace(/.*events/, '')} ${contentType} ${(JSON.parse(body) as { count: number }).count}`,
      );
      return { status: method === 'PATCH' && status === 201 ? 404 : status, body: {} };
    };
    assert.equal(await manager.tellEvent(event(1), bench.signal), 'told');
    assert.match(told.splice(0).join(), /^POST {2}application\/json 1$/);
    assert.equal(await manager.tellEvent(event(2), bench.signal), 'told');
    assert.match(
      told.splice(0).join(),
      /^PATCH \/own\.[0-9a-f]{16} application\/strategic-merge-patch\+json 2,POST {2}application\/json 2$/,
    );
    status = 200;
    assert.equal(await manager.tellEvent(event(3), bench.signal), 'told');
    assert.equal(told.splice(0).length, 1);
    status = 409;
    assert.equal(await manager.tellEvent(event(1), bench.signal), 'told', 'an earlier try came through');
    status = 403;
    assert.equal(await manager.tellEvent(event(1), bench.signal), 'refused');
    status = 500;
    await assert.rejects(manager.tellEvent(event(1), bench.signal), /500/);
  });
});

describe('holding', () => {
  test('annotations that somebody changed are written again; nothing is sent otherwise', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    const lease = await bench.acquire(manager);
    const events = bench.hold(manager, lease);
    const pending = next(events);
    const node = bench.fake.node('own')!;
    bench.fake.put({ ...node, metadata: { ...node.metadata, labels: { heart: 'beat' } } });
    const annotations = { ...node.metadata.annotations, [`${P}public-ip`]: '6.6.6.6' };
    bench.fake.put({ ...node, metadata: { ...node.metadata, annotations } });
    assert.equal((await pending).type, 'renewed');
    assert.equal(bench.annotation('own', 'public-ip'), '10.98.0.1');
    assert.deepEqual(bench.patches().slice(1), [{ metadata: { annotations: { [`${P}public-ip`]: '10.98.0.1' } } }]);
  });

  test('an overwrite that the user adds later is applied', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    const events = bench.hold(manager, await bench.acquire(manager));
    const pending = next(events);
    const node = bench.fake.node('own')!;
    const annotations = { ...node.metadata.annotations, [`${P}public-ip-overwrite`]: '172.18.0.2' };
    bench.fake.put({ ...node, metadata: { ...node.metadata, annotations } });
    assert.equal((await pending).type, 'renewed');
    assert.equal(bench.annotation('own', 'public-ip'), '172.18.0.2');
  });

  test('a Node that is made again gets its annotations and its condition again', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    const lease = await bench.acquire(manager);
    await manager.completeLease(lease, bench.signal);
    const events = bench.hold(manager, lease);
    const pending = next(events);
    bench.fake.remove('own');
    await settled(() => bench.lines().some((line) => line.includes('is gone from the API')));
    bench.fake.put(bare('own'));
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    assert.equal((await pending).type, 'renewed');
    assert.equal(bench.annotation('own', 'kube-subnet-manager'), 'true');
    assert.equal(bench.fake.node('own')?.status?.conditions?.[0]?.status, 'False');
  });

  test('with another pod CIDR the lease is lost', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    const events = bench.hold(manager, await bench.acquire(manager));
    const pending = next(events);
    bench.fake.remove('own');
    bench.fake.put(bare('own', ['10.244.77.0/24']));
    const lost = await pending;
    assert.ok(lost.type === 'lost');
    assert.match(lost.reason, /the pod CIDR of node "own" is 10\.244\.77\.0\/24 now/);
    assert.equal((await events.next()).done, true);
    assert.equal(leaseKey(await bench.acquire(manager)), '10.244.77.0-24');
  });

  test('rights that are taken away and given back do not end it', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const manager = await bench.open();
    const events = bench.hold(manager, await bench.acquire(manager));
    const pending = next(events);
    bench.fake.override = ({ method }) =>
      method === 'PATCH' ? { status: 403, body: { kind: 'Status', message: 'forbidden' } } : undefined;
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    await settled(() =>
      bench.reports.some(
        (report) => report.type === 'store-failed' && report.failure === 'Error keeping the annotations',
      ),
    );
    bench.fake.override = undefined;
    assert.equal((await pending).type, 'renewed');
    assert.equal(bench.annotation('own', 'public-ip'), '10.98.0.1');
  });

  test('a plugin for credentials that fails for a while does not end it', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const broken = join(dir, 'plugin-is-broken');
    const script = `if [ -e ${broken} ]; then echo out of order >&2; exit 1; fi; echo '${JSON.stringify({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      status: { token: 'valid' },
    })}'`;
    const kubeconfigFile = join(dir, 'exec.kubeconfig');
    const exec = { apiVersion: 'client.authentication.k8s.io/v1', command: 'sh', args: ['-c', script] };
    await writeFile(
      kubeconfigFile,
      JSON.stringify({
        clusters: [{ name: 'c', cluster: { server: bench.fake.url } }],
        users: [{ name: 'u', user: { exec: { ...exec, interactiveMode: 'Never' } } }],
        contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
        'current-context': 'x',
      }),
    );
    const manager = await bench.open({ kubeconfigFile, apiUrl: '' });
    const events = bench.hold(manager, await bench.acquire(manager));
    const pending = next(events);
    await writeFile(broken, '');
    // The token is not good any more, so that the plugin is asked for another one.
    bench.fake.override = ({ method }) =>
      method === 'PATCH' ? { status: 401, body: { kind: 'Status', message: 'unauthorized' } } : undefined;
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const fails = (): boolean =>
      bench.lines().some((line) => /^Error keeping the annotations .*out of order/.test(line));
    await Promise.race([settled(fails), pending]);
    assert.ok(fails());
    bench.fake.override = undefined;
    await rm(broken);
    assert.equal((await pending).type, 'renewed');
  });
});

describe('watching', () => {
  test('peers come, change and go; heart-beats and nodes without flannel are not told', async () => {
    await using bench = await Bench.start();
    bench.fake.put(peer('a', '10.244.1.0/24', '10.98.0.11'));
    bench.fake.put(bare('other', ['10.244.9.0/24']));
    const updates = await bench.watch(await bench.open());
    assert.equal(short(await next(updates)), 'snapshot 10.244.1.0-24@10.98.0.11');
    const node = bench.fake.node('a')!;
    bench.fake.put({ ...node, metadata: { ...node.metadata, labels: { heart: 'beat' } } });
    bench.fake.put(peer('b', '10.244.2.0/24', '10.98.0.12'));
    assert.equal(short(await next(updates)), 'set 10.244.2.0-24@10.98.0.12');
    bench.fake.put(peer('b', '10.244.2.0/24', '10.98.0.22'));
    assert.equal(short(await next(updates)), 'set 10.244.2.0-24@10.98.0.22');
    bench.fake.remove('b');
    assert.equal(short(await next(updates)), 'removed 10.244.2.0-24');
    bench.fake.put(bare('a', ['10.244.1.0/24'], { [`${P}kube-subnet-manager`]: 'false' }));
    assert.equal(short(await next(updates)), 'removed 10.244.1.0-24');
  });

  test('a peer that is made again with another pod CIDR', async () => {
    await using bench = await Bench.start();
    bench.fake.put(peer('a', '10.244.1.0/24', '10.98.0.11'));
    const updates = await bench.watch(await bench.open());
    await next(updates);
    bench.fake.put(peer('a', '10.244.8.0/24', '10.98.0.11'));
    assert.equal(short(await next(updates)), 'removed 10.244.1.0-24');
    assert.equal(short(await next(updates)), 'set 10.244.8.0-24@10.98.0.11');
  });

  test('with both families on, a change of either is seen', async () => {
    await using bench = await Bench.start(DUAL);
    const dual = (v4: string, v6: string) => ({
      ...bare('a', ['10.244.1.0/24', 'fd10:244::/64'], {
        [`${P}kube-subnet-manager`]: 'true',
        [`${P}backend-type`]: 'vxlan',
        [`${P}backend-data`]: '{"VNI":1}',
        [`${P}backend-v6-data`]: '{"VNI":1}',
        [`${P}public-ip`]: v4,
        [`${P}public-ipv6`]: v6,
      }),
    });
    bench.fake.put(dual('10.98.0.11', 'fd98::11'));
    const updates = await bench.watch(await bench.open());
    const key = '10.244.1.0-24&fd10:244::-64';
    assert.equal(short(await next(updates)), `snapshot ${key}@10.98.0.11+fd98::11`);
    bench.fake.put(dual('10.98.0.12', 'fd98::11'));
    assert.equal(short(await next(updates)), `set ${key}@10.98.0.12+fd98::11`);
    bench.fake.put(dual('10.98.0.12', 'fd98::12'));
    assert.equal(short(await next(updates)), `set ${key}@10.98.0.12+fd98::12`);
  });

  test('IPv6 addresses of the lease', async () => {
    await using bench = await Bench.start(DUAL);
    bench.fake.put(bare('own', ['10.244.3.0/24', 'fd10:244:0:3::/64']));
    const data = { VNI: 1, VtepMAC: 'ce:a5:03:3d:6e:8f' };
    const wanted = attrs(1, {
      publicAddresses: { ...attrs(1).publicAddresses, ipv6: parseIpv6('fd98::1') },
      backendType: 'vxlan',
      backendData: { ipv4: data, ipv6: data },
    });
    const manager = await bench.open();
    const lease = await bench.acquire(manager, wanted);
    assert.equal(leaseKey(lease), '10.244.3.0-24&fd10:244:0:3::-64');
    const updates = await bench.watch(manager);
    const first = await next(updates);
    if (first.type === 'snapshot' && first.leases.length === 0)
      assert.deepEqual(await next(updates), { type: 'set', lease });
    else assert.deepEqual(first, { type: 'snapshot', leases: [lease] });
  });

  test('an overwrite that is no address is refused with its name and value, and the last good one stays', async () => {
    await using bench = await Bench.start();
    const key = `${P}public-ip-overwrite`;
    const own = bare('own', ['10.244.3.0/24'], { [key]: '203.0.113.7' });
    bench.fake.put(own);
    const manager = await bench.open();
    const events = bench.hold(manager, await bench.acquire(manager));
    assert.equal(bench.annotation('own', 'public-ip'), '203.0.113.7');
    const pending = events.next();
    const overwrite = (value: string): void => {
      const node = bench.fake.node('own')!;
      const annotations = { ...node.metadata.annotations, [key]: value };
      bench.fake.put({ ...node, metadata: { ...node.metadata, annotations } });
    };
    const said = (value: string): (() => boolean) => {
      const text = `the node annotation ${key}=${JSON.stringify(value)} is refused`;
      return () => bench.lines().some((line) => line.startsWith(text) && line.includes('203.0.113.7 stays published'));
    };
    for (const bad of ['203.0.113.', '127.0.0.1', '224.0.0.1\nE1128 all is lost']) {
      overwrite(bad);
      await eventually(`${bad} to be refused`, () => said(bad)() || undefined);
      assert.equal(bench.annotation('own', 'public-ip'), '203.0.113.7');
    }
    // A manager that starts with it keeps what is published.
    const later = await bench.open();
    await bench.acquire(later);
    assert.equal(bench.annotation('own', 'public-ip'), '203.0.113.7');
    overwrite('203.0.113.8');
    await eventually('the good one', () => bench.annotation('own', 'public-ip') === '203.0.113.8' || undefined);
    await pending;
  });

  test('two nodes with one pod CIDR are told apart by their names, and each has its age', async () => {
    await using bench = await Bench.start();
    const at = (node: FakeNode, creationTimestamp: string): FakeNode => {
      return { ...node, metadata: { ...node.metadata, creationTimestamp } };
    };
    bench.fake.put(at(peer('old', '10.244.1.0/24', '10.98.0.11'), '2026-01-01T00:00:00Z'));
    const updates = await bench.watch(await bench.open());
    await next(updates);
    bench.fake.put(at(peer('new', '10.244.1.0/24', '10.98.0.12'), '2026-01-02T00:00:00Z'));
    const second = await next(updates);
    assert.equal(short(second), 'set 10.244.1.0-24@10.98.0.12');
    assert.deepEqual(second.type === 'set' && second.lease.origin, { holder: 'new', since: Date.UTC(2026, 0, 2) });
    bench.fake.remove('old');
    assert.deepEqual(await next(updates), { type: 'removed', key: '10.244.1.0-24', holder: 'old' });
    bench.fake.remove('new');
    assert.deepEqual(await next(updates), { type: 'removed', key: '10.244.1.0-24', holder: 'new' });
  });

  test('a peer that cannot be read keeps its lease, also over a list of all nodes', async () => {
    await using bench = await Bench.start();
    bench.fake.put(peer('a', '10.244.1.0/24', '10.98.0.11'));
    bench.fake.put(peer('b', '10.244.2.0/24', '10.98.0.12'));
    const updates = await bench.watch(await bench.open());
    await next(updates);
    bench.fake.put(peer('a', '10.244.1.0/24', 'nonsense'));
    bench.fake.put({ ...peer('b', '10.244.2.0/24', ''), metadata: { name: 'b', annotations: 7 as never } });
    await settled(() => bench.reports.filter((report) => report.type === 'entry-unreadable').length === 2);
    bench.fake.compact();
    bench.fake.dropWatches();
    bench.fake.put(peer('c', '10.244.3.0/24', '10.98.0.13'));
    bench.fake.compact();
    const all = '10.244.1.0-24@10.98.0.11 10.244.2.0-24@10.98.0.12 10.244.3.0-24@10.98.0.13';
    let last = '';
    while (last !== `snapshot ${all}`) {
      last = short(await next(updates));
      assert.ok(!last.startsWith('removed'));
    }
  });

  test('a consumer that lags far behind gets everything at once', async () => {
    await using bench = await Bench.start();
    const updates = await bench.watch(await bench.open({ eventQueueDepth: 10 }));
    assert.equal(short(await next(updates)), 'snapshot');
    for (let i = 0; i < 30; i++) bench.fake.put(peer(`n${i}`, `10.244.${i}.0/24`, `10.98.0.${i}`));
    await settled(() => bench.lines().some((line) => line.startsWith('Channel buffer full (EVENT_QUEUE_DEPTH=10)')));
    const seen = new Set<string>();
    let snapshots = 0;
    while (seen.size < 30) {
      const update = await next(updates);
      if (update.type === 'snapshot') {
        snapshots++;
        for (const lease of update.leases) seen.add(leaseKey(lease));
      } else if (update.type === 'set') {
        seen.add(leaseKey(update.lease));
      }
    }
    assert.ok(snapshots > 0);
  });
});

describe('opening', () => {
  test('the name of the node from the pod that this is', async () => {
    await using bench = await Bench.start();
    bench.fake.pods.set('kube-flannel/flannel-x', 'own');
    bench.fake.pods.set('kube-flannel/unscheduled', '');
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    const pod = { nodeName: '', podName: 'flannel-x', podNamespace: 'kube-flannel' };
    assert.equal((await bench.open(pod)).nodeName, 'own');
    const failures: [Partial<OpenKubeSubnetManagerOptions>, object][] = [
      [{ nodeName: '' }, { code: 'WEFT_KUBE_CONFIG', message: 'env variables POD_NAME and POD_NAMESPACE must be set' }],
      [
        { ...pod, podName: 'gone' },
        { code: 'WEFT_KUBE_REFUSED', message: /^error retrieving pod spec for 'kube-flannel\/gone': .*not found/ },
      ],
      [
        { ...pod, podName: 'unscheduled' },
        { code: 'WEFT_KUBE_CONFIG', message: "node name not present in pod spec 'kube-flannel/unscheduled'" },
      ],
    ];
    for (const [broken, error] of failures) await assert.rejects(bench.open(broken), error);
  });

  test('a node cache that does not fill is an error, or tolerated when told so', async () => {
    await using bench = await Bench.start();
    bench.fake.put(bare('own', ['10.244.3.0/24']));
    bench.fake.override = ({ path }) =>
      path === '/api/v1/nodes' ? { status: 403, body: { kind: 'Status', message: 'nodes is forbidden' } } : undefined;
    // What the server has answered can be named once it has.
    let syncTimeoutMs = 50;
    await eventuallyHolds(() =>
      assert.rejects(bench.open({ syncTimeoutMs: (syncTimeoutMs *= 2) }), {
        code: 'WEFT_STORE_UNAVAILABLE',
        message: /^error waiting for nodeController to sync state: .*nodes is forbidden/,
      }),
    );
    const manager = await bench.open({ contWhenCacheNotReady: true, syncTimeoutMs: 50 });
    assert.ok(
      bench.lines().some((line) => line.startsWith('Timed out waiting for node controller sync. Continuing anyway.')),
    );
    assert.equal(leaseKey(await bench.acquire(manager)), '10.244.3.0-24');
    const updates = await bench.watch(manager);
    bench.fake.override = undefined;
    assert.equal(short(await next(updates)), 'snapshot 10.244.3.0-24@10.98.0.1');
  });

  test('names a configuration that is missing or wrong before it asks the API server, which may be away', async () => {
    await using bench = await Bench.start();
    using _frozen = bench.fake.freeze();
    const wrong = join(dir, 'wrong.json');
    await writeFile(wrong, '{"Network": "10.244.0.0"}');
    for (const [netConfPath, expected] of [
      [
        join(dir, 'none.json'),
        /^Couldn't fetch network config: failed to read net conf: ENOENT.*\[WEFT_CONFIG_MISSING\]/,
      ],
      [wrong, /^Couldn't fetch network config: .*wrong\.json: \$\.Network: invalid IPv4 CIDR format/],
    ] as const) {
      void bench.open({ netConfPath }).catch(() => {});
      await settled(() => bench.lines().some((line) => expected.test(line)));
    }
  });

  test('is given up when the signal fires', async () => {
    await using bench = await Bench.start();
    using _frozen = bench.fake.freeze();
    const reason = new Error('stopped');
    const signal = AbortSignal.timeout(20);
    const options = {
      kubeconfigFile: '',
      apiUrl: bench.fake.url,
      nodeName: 'own',
      annotationPrefix: DEFAULT_ANNOTATION_PREFIX,
      netConfPath: 'unused',
      backends: backendKind,
      setNodeNetworkUnavailable: true,
      version: 'test',
    };
    await assert.rejects(openKubeSubnetManager(options, signal), { name: 'TimeoutError' });
    await assert.rejects(openKubeSubnetManager(options, AbortSignal.abort(reason)), reason);
  });
});
