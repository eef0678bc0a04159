import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { loadAll } from 'js-yaml';
import { startApiServer } from '../../src/api/server.ts';
import { clusterClients } from '../../src/cmd/weft/cluster.ts';
import type { ClusterReport } from '../../src/cmd/weft/cluster-test.ts';
import { parseFlanneldOptions } from '../../src/config/flanneld-options.ts';
import type { KubeObject } from '../../src/lab/servers/kube-client.ts';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { run, start } from '../../src/linux/run.ts';
import type { Overview } from '../../src/ui/overview.ts';
import { FakeInspection } from '../fakes/fake-inspection.ts';
import { weft } from '../netns/lab-command.ts';
import { eventuallyHolds, LineFeed } from '../netns/waiting.ts';

const NAMESPACE = 'kube-flannel';
const TOKEN = 'token-of-the-agents-16';
const signal = AbortSignal.timeout(300_000);

interface DaemonSet extends KubeObject {
  readonly spec: {
    readonly template: {
      readonly spec: {
        readonly containers: readonly {
          readonly args: readonly string[];
          readonly ports: readonly { readonly name: string; readonly containerPort: number }[];
        }[];
      };
    };
  };
}

const read = (path: string): Promise<string> => readFile(new URL(`../../${path}`, import.meta.url), 'utf8');

/** The API server proxies to no loopback address. */
function ownAddress(): string {
  const found = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === 'IPv4' && !internal);
  assert.ok(found !== undefined, 'this machine has an IPv4 address that is not loopback');
  return found.address;
}

it('a user with no more rights than CLI.md names asks agents through the pod proxy of a real API server', async () => {
  await using cluster = await KubeCluster.start({ flannelAccount: true });
  const { admin } = cluster;
  const tokenFile = join(cluster.dir, 'agent-token');
  await writeFile(tokenFile, TOKEN);
  const address = ownAddress();
  const problems: string[] = [];
  const inspection = new FakeInspection();
  const serve = (of: FakeInspection) =>
    startApiServer(
      {
        ...{ inspection: of, socketPath: undefined, peerUid: () => undefined, ownUid: 0 },
        listen: { host: address, port: 0, tokenFile },
        onProblem: (text) => problems.push(text),
      },
      signal,
    );
  await using agent = await serve(inspection);
  const create = (collection: string, object: object) => admin.create(collection, object as KubeObject);
  const named = (name: string) => ({ metadata: { name, namespace: NAMESPACE } });
  await cluster.createNodes(['worker-1', 'worker-2'], signal);
  const pods = `/api/v1/namespaces/${NAMESPACE}/pods`;
  const createPod = async (name: string, nodeName: string, port: number): Promise<void> => {
    await create(pods, {
      metadata: { name, namespace: NAMESPACE, labels: { app: 'flannel' } },
      spec: {
        ...{ nodeName, serviceAccountName: 'flannel', automountServiceAccountToken: false },
        containers: [{ name: 'flannel', image: 'none', ports: [{ name: 'weft-api', containerPort: port }] }],
      },
    });
    await admin.patch(`${pods}/${name}/status`, {
      status: { phase: 'Running', podIP: address, podIPs: [{ ip: address }] },
    });
  };
  await createPod('kube-flannel-x', 'worker-1', agent.port!);

  const documents = loadAll(await read('deploy/kube-flannel.yml')) as (KubeObject & { readonly spec?: unknown })[];
  const daemonSet = documents.find(({ kind }) => kind === 'DaemonSet')!;
  const daemonSets = `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets`;
  await create(daemonSets, daemonSet);
  const [, patch] =
    /patch daemonset (?:kube-flannel-ds) --type=json -p '(\[\n.*?\])'/s.exec(await read('docs/CLI.md')) ?? [];
  const patched = await admin.patch<DaemonSet>(`${daemonSets}/kube-flannel-ds`, JSON.parse(patch!), 'json');
  const [container] = patched.spec.template.spec.containers;
  const parsed = parseFlanneldOptions(container!.args, {});
  assert.ok(parsed.kind === 'run');
  assert.deepEqual(parsed.options.apiListen, { address: '', port: 8287, tokenFile: '/etc/weft-api/token' });
  assert.ok(container!.ports.some(({ name, containerPort }) => name === 'weft-api' && containerPort === 8287));

  // Whoever asks: what docs/CLI.md says it needs, in this namespace alone.
  await create(`/api/v1/namespaces/${NAMESPACE}/serviceaccounts`, named('viewer'));
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}`;
  await create(`${rbac}/roles`, {
    ...named('viewer'),
    rules: [
      { apiGroups: [''], resources: ['pods'], verbs: ['list'] },
      { apiGroups: [''], resources: ['secrets'], resourceNames: ['weft-api'], verbs: ['get'] },
      { apiGroups: [''], resources: ['pods/proxy'], verbs: ['get'] },
    ],
  });
  await create(`${rbac}/rolebindings`, {
    ...named('viewer'),
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'viewer' },
    subjects: [{ kind: 'ServiceAccount', name: 'viewer', namespace: NAMESPACE }],
  });
  const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec: { expirationSeconds: 3_600 } };
  const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/viewer/token`;
  const { status } = await admin.json<{ status: { token: string } }>('POST', path, request);
  const flags = { kubeconfig: await cluster.kubeconfig('viewer', { token: status.token }), namespace: NAMESPACE };

  await assert.rejects(clusterClients(flags, undefined, signal), {
    code: 'WEFT_API_REFUSED',
    hint: /create secret generic weft-api/,
  });
  const secret = { ...named('weft-api'), stringData: { token: 'not the one of the agents' } };
  await create(`/api/v1/namespaces/${NAMESPACE}/secrets`, secret);
  const [wrong] = await clusterClients(flags, 'worker-1', signal);
  await assert.rejects(wrong!.get('/self', signal), { code: 'WEFT_API_REFUSED', message: /401.*the token is wrong/ });
  await admin.patch(`/api/v1/namespaces/${NAMESPACE}/secrets/weft-api`, { stringData: { token: TOKEN } });

  const [client] = await clusterClients(flags, undefined, signal);
  assert.equal(client?.name, 'worker-1');
  assert.deepEqual(await client.get('/self', signal), inspection.self());
  assert.equal((await client.get('/peers', signal, { limit: '1' })).peers.length, 1);
  inspection.events.add({ kind: 'ready', severity: 'info', subject: 'node', text: 'through the proxy' });
  for await (const { text } of client.events(0, signal)) {
    assert.equal(text, 'through the proxy');
    break;
  }

  // The second node's probes of the first get no answer.
  const second = new FakeInspection();
  const [model] = second.list;
  const probe = {
    measuredAtMs: second.peers().atMs,
    problem: 'no way back',
    fault: 'one-way',
    remedy: 'look',
  } as const;
  second.own = { ...second.own, node: 'worker-2', lease: { ...second.own.lease!, subnets: ['10.244.2.0/24'] } };
  second.list = [{ ...model!, id: '10.244.1.0/24', subnets: ['10.244.1.0/24'], holder: 'worker-1', probe }];
  await using other = await serve(second);
  await createPod('kube-flannel-y', 'worker-2', other.port!);
  const junit = join(cluster.dir, 'junit.xml');
  const inCluster = ['--cluster', '--kubeconfig', flags.kubeconfig, '--namespace', NAMESPACE];
  const tested = await run([...weft, 'test', ...inCluster, '--json', '--junit', junit], { okExitCodes: [1], signal });
  const report = JSON.parse(tested.stdout) as ClusterReport;
  assert.deepEqual(
    report.pairs.map(({ from, to, status, problem }) => [from, to, status, problem?.fault]),
    [
      ['worker-1', 'worker-2', 'ok', undefined],
      ['worker-2', 'worker-1', 'broken', 'one-way'],
    ],
  );
  assert.match(await readFile(junit, 'utf8'), /classname="weft\.worker-2" name="worker-1"><failure type="one-way"/);
  const text = await run([...weft, 'test', ...inCluster, 'worker-2'], { okExitCodes: [1], signal });
  assert.match(text.stdout, /^✖ worker-2 → worker-1 by fast-path on flannel0: one-way: no way back$/m);
  second.list = [{ ...model!, id: '10.244.1.0/24', subnets: ['10.244.1.0/24'], holder: 'worker-1' }];
  await run([...weft, 'test', ...inCluster], { signal });

  // The first node cannot reach one of its peers; both have refused an entry of the store.
  const shown = await run([...weft, 'status', ...inCluster], { okExitCodes: [1], signal });
  assert.match(shown.stdout, /^✖ worker-1 {2}1 problem, 1 warning, .*\n! worker-2 {2}1 warning, /);
  assert.match(shown.stdout, /\n\n== worker-1\nAgent +ready on [\s\S]*\n\n1 of 2 nodes are healthy\.\n$/);
  assert.doesNotMatch(shown.stdout, /^== worker-2$/m);
  const { list } = inspection;
  inspection.list = list.filter(({ path: way }) => way !== 'skipped');
  const well = await run([...weft, 'status', ...inCluster], { signal });
  assert.match(well.stdout, /^! worker-1 .*\n! worker-2 .*\n\n2 of 2 nodes are healthy\.\n$/);
  inspection.list = list;
  const json = await run([...weft, 'status', ...inCluster, '--json'], { okExitCodes: [1], signal });
  const { agents } = JSON.parse(json.stdout) as {
    readonly agents: readonly { readonly name: string; readonly self: unknown; readonly peers: unknown }[];
  };
  assert.deepEqual(
    agents.map(({ name, self, peers }) => [name, self, peers]),
    [
      ['worker-1', inspection.self(), list],
      ['worker-2', second.self(), second.list],
    ],
  );

  const at = (node: string) => ['--node', node, ...inCluster.filter((word) => word !== '--cluster')];
  const peers = await run([...weft, 'peers', ...at('worker-2')], { signal });
  assert.match(peers.stdout, /^SUBNET .*\n10\.244\.1\.0\/24 +worker-1 +fast-path /);
  const refused = await run([...weft, 'peers', ...at('worker-9')], { okExitCodes: [1], signal });
  assert.match(refused.stderr, /no pod with the label app=flannel was found on the node worker-9/);

  const archive = join(cluster.dir, 'report.tar.gz');
  await run([...weft, 'bugreport', ...inCluster, '-o', archive], { signal });
  const { stdout: names } = await run(['tar', 'tzf', archive], { signal });
  for (const name of ['worker-1/api/self.json', 'worker-2/api/events.json', 'worker-2/status.txt'])
    assert.match(names, new RegExp(`^weft-bugreport-agents-[^/]+/${name}$`, 'm'));
  const { stdout: texts } = await run(['tar', 'xzOf', archive], { signal });
  assert.match(texts, /"text": "through the proxy"/);
  assert.ok(!texts.includes(TOKEN) && !texts.includes('not read'), texts);

  // The page, which holds that user's rights for whoever opens it.
  await using page = await start([...weft, 'ui', ...inCluster, '--port', '0'], { stdout: 'pipe', signal });
  const { text: printed } = await new LineFeed(page.stdout!).find((line) => line.startsWith('weft ui: '));
  const opened = new URL(printed.slice('weft ui: '.length));
  const authorization = `Bearer ${new URLSearchParams(opened.hash.slice(1)).get('token')}`;
  const look = async <T>(at: string): Promise<T> => {
    const answer = await fetch(new URL(at, opened), { headers: { authorization }, signal });
    return (await answer.json()) as T;
  };
  assert.deepEqual(await look('/hosts'), [{ name: 'worker-1' }, { name: 'worker-2' }]);
  assert.deepEqual(await look('/hosts/worker-2/api/v1/self'), second.self());
  const answering = async (): Promise<string[]> =>
    (await look<Overview>('/overview')).hosts.filter(({ state }) => state === 'ready').map(({ name }) => name);
  assert.deepEqual(await answering(), ['worker-1', 'worker-2']);

  assert.deepEqual(problems, []);
  await agent[Symbol.asyncDispose]();
  await assert.rejects(client.get('/self', signal), { code: 'WEFT_API_UNREACHABLE' });
  await eventuallyHolds(async () => assert.deepEqual(await answering(), ['worker-2']));
});
