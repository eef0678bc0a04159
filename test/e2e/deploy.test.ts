import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { loadAll } from 'js-yaml';
import { parseFlanneldOptions } from '../../src/config/flanneld-options.ts';
import { FLANNEL_USER } from '../../src/lab/servers/flannel-account.ts';
import { KubeClient, KubeClientError, type KubeObject } from '../../src/lab/servers/kube-client.ts';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import { run } from '../../src/linux/run.ts';
import {
  annotationPatch,
  networkAvailablePatch,
  networkUnavailablePatch,
  STRATEGIC_MERGE_PATCH,
} from '../../src/subnet/kube/node-patch.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';
import { type DeployTools, deployTools } from './deploy-tools.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const CHART = join(ROOT, 'deploy/helm/flannel');
const NAMESPACE = 'kube-flannel';

interface Container {
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly ports?: readonly unknown[];
  readonly securityContext?: {
    readonly privileged?: boolean;
    readonly allowPrivilegeEscalation?: boolean;
    readonly readOnlyRootFilesystem?: boolean;
    readonly capabilities: { readonly add: readonly string[]; readonly drop?: readonly string[] };
  };
  readonly volumeMounts: readonly unknown[];
  readonly livenessProbe?: { readonly httpGet: unknown };
  readonly readinessProbe?: { readonly httpGet: unknown };
}

interface PodSpec {
  readonly securityContext?: unknown;
  readonly initContainers: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes: readonly unknown[];
  readonly imagePullSecrets?: readonly unknown[];
  readonly nodeSelector?: Readonly<Record<string, string>>;
}

interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template: { readonly spec: PodSpec } };
}

const parse = (yaml: string): Manifest[] => (loadAll(yaml) as (Manifest | null)[]).filter((object) => object !== null);
const manifest = parse(await readFile(join(ROOT, 'deploy/kube-flannel.yml'), 'utf8'));

const policy = parse(await readFile(join(ROOT, 'deploy/own-node-policy/policy.yml'), 'utf8'));

/** By kind; JSON inside a ConfigMap as what it says, for its layout may differ. */
function contentOf(objects: readonly Manifest[]): Record<string, unknown> {
  const content = objects.map((object) => {
    if (object.data === undefined) return [object.kind, object];
    const data = Object.entries(object.data).map(([key, text]) => [key, JSON.parse(text) as unknown]);
    return [object.kind, { ...object, data: Object.fromEntries(data) }];
  });
  return Object.fromEntries(content);
}

const podOf = (objects: readonly Manifest[]): PodSpec =>
  objects.find(({ kind }) => kind === 'DaemonSet')!.spec!.template.spec;
const netConfOf = (objects: readonly Manifest[]): unknown =>
  JSON.parse(objects.find(({ kind }) => kind === 'ConfigMap')!.data!['net-conf.json']!);

/** A JSON patch, as `kubectl patch --type=json` applies it; of its operations those that documents use. */
function applyPatch(object: object, patch: string): void {
  for (const { op, path, value } of JSON.parse(patch) as { op: string; path: string; value: unknown }[]) {
    const names = path.split('/').slice(1);
    const last = names.pop()!;
    const parent = names.reduce<Record<string, unknown>>(
      (each, name) => each[name] as Record<string, unknown>,
      object as Record<string, unknown>,
    );
    if (op === 'remove') delete parent[last];
    else if (Array.isArray(parent) && last === '-') parent.push(value);
    else parent[last] = value;
  }
}

let tools: DeployTools;
let folder: string;
before(async () => {
  tools = await deployTools();
  folder = await mkdtemp(join(tmpdir(), 'weft-deploy-'));
});
after(() => rm(folder, { recursive: true, force: true }));

/** `helm template` with these values; what it says where it refuses them. */
async function helm(values: object): Promise<{ objects: Manifest[]; refusal: string }> {
  const file = join(folder, 'values.json');
  await writeFile(file, JSON.stringify(values));
  const env = { HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder };
  const argv = [tools.helm, 'template', 'weft', CHART, '--namespace', NAMESPACE, '--values', file];
  const { stdout, stderr, exitCode } = await run(argv, { env, okExitCodes: 'any' });
  return { objects: exitCode === 0 ? parse(stdout) : [], refusal: exitCode === 0 ? '' : stderr };
}

/** As {@link helm}, where it must not refuse. */
async function rendered(values: object = {}): Promise<Manifest[]> {
  const { objects, refusal } = await helm(values);
  assert.equal(refusal, '');
  return objects;
}

it('kustomize makes the manifest', async () => {
  const { stdout } = await run([tools.kustomize, 'build', join(ROOT, 'deploy')]);
  assert.deepEqual(contentOf(parse(stdout)), contentOf(manifest));
});

describe('the Helm chart', () => {
  it('is without a fault for helm lint', async () => {
    await run([tools.helm, 'lint', '--strict', CHART], { env: { HELM_CACHE_HOME: folder } });
  });

  it('makes the manifest by default, but for the namespace, which helm does not leave to charts', async () => {
    const { Namespace: _, ...expected } = contentOf(manifest);
    assert.deepEqual(contentOf(await rendered()), expected);
  });

  // flannel's own cases (chart/kube-flannel/tests).
  it('takes the image, and another one for the CNI plugins', async () => {
    const agent = { image: { repository: 'registry.test/flannel', tag: 'v555.44.3' } };
    const { containers, initContainers } = podOf(await rendered({ flannel: agent }));
    assert.equal(containers[0]?.image, 'registry.test/flannel:v555.44.3');
    assert.equal(initContainers[0]?.image, 'registry.test/flannel:v555.44.3');
    const own = { ...agent, flannel_cni: { image: { repository: 'registry.test/cni', tag: 'v777.66.5' } } };
    const other = podOf(await rendered({ flannel: own }));
    assert.equal(other.containers[0]?.image, 'registry.test/flannel:v555.44.3');
    assert.equal(other.initContainers[0]?.image, 'registry.test/cni:v777.66.5');
  });

  it('hands on the flags, whatever is in them, before its own', async () => {
    const args = ['--ip-masq', '--kube-subnet-mgr', '--iface-regex=^eth"0\\d: #'];
    const [agent] = podOf(await rendered({ flannel: { args } })).containers;
    assert.deepEqual(
      [...agent!.command, ...agent!.args],
      [
        '/opt/bin/flanneld',
        ...[...args, '--healthz-ip=127.0.0.1', '--healthz-port=8081', '--cni-conf-dir=/etc/cni/net.d'],
      ],
    );
  });

  it('gives every container of every rendering what it needs and nothing else', async () => {
    const renderings = [
      manifest,
      parse((await run([tools.kustomize, 'build', join(ROOT, 'deploy')])).stdout),
      await rendered(),
      await rendered({ flannel: { fastPath: true, healthz: { port: 0 }, skipCNIConfigInstallation: true } }),
      await rendered({ netpol: { enabled: true }, podCidrv6: 'fd00:10::/56' }),
    ];
    for (const [index, objects] of renderings.entries()) {
      const pod = podOf(objects);
      assert.deepEqual(pod.securityContext, { seccompProfile: { type: 'RuntimeDefault' } }, `rendering ${index}`);
      for (const { name, securityContext } of [...pod.initContainers, ...pod.containers]) {
        const allowed: Readonly<Record<string, readonly string[]>> = {
          'install-cni-plugin': ['DAC_OVERRIDE', 'MKNOD'],
          'kube-flannel': ['NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE', ...(index === 3 ? ['BPF'] : [])],
        };
        // Another project's, as that has it; off unless asked for.
        if (name === 'kube-network-policies' && index === 4) continue;
        assert.deepEqual(
          securityContext,
          {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            capabilities: { drop: ['ALL'], add: allowed[name] },
          },
          `${name} of rendering ${index}`,
        );
      }
    }
  });

  it('has the capability for the fast path where asked to', async () => {
    const [agent] = podOf(await rendered({ flannel: { fastPath: true } })).containers;
    assert.deepEqual(agent?.securityContext?.capabilities.add, ['NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE', 'BPF']);
  });

  it('is given the bpffs in which the fast path is kept where asked to, as by the patch of INSTALL.md', async () => {
    const text = await readFile(join(ROOT, 'docs/INSTALL.md'), 'utf8');
    const [, patch] =
      /patch daemonset kube-flannel-ds --type=json -p '(\[\n.*?\/sys\/fs\/bpf.*?)'\n```/s.exec(text) ?? [];
    const [volume, mount] = (JSON.parse(patch!) as { value: object }[]).map(({ value }) => value);
    const [without, kept] = [podOf(await rendered()), podOf(await rendered({ flannel: { fastPathKept: true } }))];
    assert.deepEqual(kept.volumes, [...without.volumes, volume]);
    assert.deepEqual(kept.containers[0]!.volumeMounts, [...without.containers[0]!.volumeMounts, mount]);
    assert.deepEqual(kept.initContainers, without.initContainers);
  });

  it('starts the next agent beside the old one where asked to, as by the patch of INSTALL.md', async () => {
    const text = await readFile(join(ROOT, 'docs/INSTALL.md'), 'utf8');
    const [, patch] = /patch daemonset kube-flannel-ds --type=json -p '(\[\n.*?maxSurge.*?)'\n```/s.exec(text) ?? [];
    const daemonSetOf = (objects: readonly Manifest[]) =>
      structuredClone(objects.find(({ metadata }) => metadata.name === 'kube-flannel-ds')!) as never as object;
    const expected = daemonSetOf(await rendered());
    applyPatch(expected, patch!.slice(patch!.lastIndexOf("'[") + 1));
    assert.deepEqual(daemonSetOf(await rendered({ flannel: { handOver: true } })), expected);
    await assert.rejects(rendered({ flannel: { handOver: true }, netpol: { enabled: true } }), /same ports/);
  });

  it('tries the fast path on every node where asked to, as deploy/fast-path-check.yml does', async () => {
    const expected = parse(await readFile(join(ROOT, 'deploy/fast-path-check.yml'), 'utf8'));
    const objects = await rendered({ flannel: { fastPathCheck: true } });
    assert.deepEqual(
      objects.filter(({ metadata }) => metadata.name === 'weft-fast-path-check'),
      expected,
    );
  });

  it('serves the API where asked to, and kustomize with a component does, as by the patch of CLI.md', async () => {
    const text = await readFile(join(ROOT, 'docs/CLI.md'), 'utf8');
    const [, patch] = /patch daemonset kube-flannel-ds --type=json -p '(\[\n.*?)'\n```/s.exec(text) ?? [];
    const isAgent = ({ metadata }: Manifest) => metadata.name === 'kube-flannel-ds';
    const expected = structuredClone(manifest.find(isAgent)!);
    applyPatch(expected, patch!);
    assert.deepEqual((await rendered({ flannel: { api: { port: 8287 } } })).find(isAgent), expected);

    const overlay = join(folder, 'overlay');
    const [resource, component] = ['deploy', 'deploy/api'].map((path) => relative(overlay, join(ROOT, path)));
    await mkdir(overlay);
    const kustomization = { resources: [resource], components: [component] };
    await writeFile(join(overlay, 'kustomization.yaml'), JSON.stringify(kustomization));
    const { stdout } = await run([tools.kustomize, 'build', overlay]);
    assert.deepEqual(parse(stdout).find(isAgent), expected);

    const { args, ports } = podOf(await rendered({ flannel: { api: { port: 9000 }, healthz: { port: 0 } } }))
      .containers[0]!;
    const parsed = parseFlanneldOptions(args, { NODE_NAME: 'n1' });
    assert.ok(parsed.kind === 'run');
    assert.deepEqual(parsed.options.apiListen, { address: '', port: 9000, tokenFile: '/etc/weft-api/token' });
    assert.deepEqual(ports, [{ name: 'weft-api', containerPort: 9000, protocol: 'TCP' }]);
    // Where the pods have no list of ports, the commands ask at the usual one.
    const beside = podOf(await rendered({ flannel: { handOver: true, api: { port: 8287 } } })).containers[0]!;
    assert.deepEqual([beside.ports, beside.args.includes('--api-listen=:8287')], [undefined, true]);
    await assert.rejects(rendered({ flannel: { handOver: true, api: { port: 9000 } } }), /at port 8287/);
  });

  it('has the policy for Nodes where asked to, and kustomize has it beside the base', async () => {
    const isPolicy = ({ kind }: Manifest) => kind.startsWith('ValidatingAdmissionPolicy');
    const objects = await rendered({ flannel: { ownNodePolicy: true } });
    assert.deepEqual(objects.filter(isPolicy), policy);
    assert.deepEqual((await rendered()).filter(isPolicy), []);
    const { stdout } = await run([tools.kustomize, 'build', join(ROOT, 'deploy/own-node-policy')]);
    assert.deepEqual(parse(stdout), policy);
  });

  it("has the agent's prefix of annotations in the policy for Nodes", async () => {
    for (const [prefix, ...flags] of [
      ['flannel.alpha.coreos.com/', '--ip-masq'],
      ['flannel.alpha.coreos.com/', '--kube-annotation-prefix=', '--ip-masq'],
      ['example.test/', '--kube-annotation-prefix=example.test'],
      ['example.test/', '-kube-annotation-prefix=example.test/', '--ip-masq'],
      ['example.test/', '--kube-annotation-prefix', 'example.test', '--ip-masq'],
      ['example.test/own-', '--kube-annotation-prefix=example.test/own'],
      ['example.test/own-', '--kube-annotation-prefix=example.test/own-'],
    ] as const) {
      const args = ['--kube-subnet-mgr', ...flags];
      const objects = await rendered({ flannel: { ownNodePolicy: true, args } });
      const text = JSON.stringify(objects.find(({ kind }) => kind === 'ValidatingAdmissionPolicy'));
      const prefixes = Array.from(text.matchAll(/startsWith\(\\"([^"\\]*)\\"\)/g), ([, found]) => found);
      assert.deepEqual(prefixes, [prefix, prefix], flags.join(' '));
    }
  });

  it('has health port and probes, also on another port', async () => {
    const [agent] = podOf(await rendered({ flannel: { healthz: { port: 9090 } } })).containers;
    assert.deepEqual(agent?.ports, [{ name: 'healthz', containerPort: 9090, protocol: 'TCP' }]);
    assert.ok(agent.args.includes('--healthz-port=9090'));
    assert.deepEqual(agent.livenessProbe?.httpGet, { host: '127.0.0.1', path: '/healthz', port: 'healthz' });
    assert.deepEqual(agent.readinessProbe?.httpGet, { host: '127.0.0.1', path: '/readyz', port: 'healthz' });
  });

  it("shows health and metrics at the node's address, or at all, where asked to, and kubelet asks there", async () => {
    for (const [listen, ip] of [
      ['node', '$(NODE_IP)'],
      ['all', '0.0.0.0'],
    ] as const) {
      const [agent] = podOf(await rendered({ flannel: { healthz: { listen } } })).containers;
      assert.ok(agent!.args.includes(`--healthz-ip=${ip}`));
      // Without a host, kubelet asks the pod's address, which is the node's.
      assert.deepEqual(agent!.readinessProbe?.httpGet, { path: '/readyz', port: 'healthz' });
      const { env } = agent as unknown as { env: { name: string; valueFrom: unknown }[] };
      const nodeIp = env.find(({ name }) => name === 'NODE_IP')?.valueFrom;
      assert.deepEqual(nodeIp, listen === 'node' ? { fieldRef: { fieldPath: 'status.hostIP' } } : undefined);
    }
    assert.match((await helm({ flannel: { healthz: { listen: 'pod' } } })).refusal, /healthz\/listen/);
  });

  it('has none of them with port 0', async () => {
    const [agent] = podOf(await rendered({ flannel: { healthz: { port: 0 } } })).containers;
    const { ports, livenessProbe, readinessProbe } = agent!;
    assert.deepEqual(
      { ports, livenessProbe, readinessProbe },
      { ports: undefined, livenessProbe: undefined, readinessProbe: undefined },
    );
    assert.doesNotMatch(agent!.args.join(' '), /healthz/);
  });

  it('takes pull secrets and a node selector', async () => {
    const global = { imagePullSecrets: [{ name: 'a-test-secret' }] };
    const nodeSelector = { 'eks.amazonaws.com/compute-type': 'hybrid' };
    const pod = podOf(await rendered({ global, flannel: { nodeSelector } }));
    assert.deepEqual(pod.imagePullSecrets, global.imagePullSecrets);
    assert.deepEqual(pod.nodeSelector, nodeSelector);
  });

  it('leaves the CNI configuration to somebody else where asked to', async () => {
    const [agent] = podOf(await rendered({ flannel: { skipCNIConfigInstallation: true } })).containers;
    assert.doesNotMatch(agent!.args.join(' '), /cni-conf-dir/);
  });

  it('makes JSON of any value: quotes, and a tunnelMode that is not quoted twice', async () => {
    const flannel = {
      backend: 'wireguard',
      psk: 'a"b\\c',
      tunnelMode: 'auto',
      backendPort: 51820,
      backendPortv6: 51821,
      mtu: 1420,
      keepaliveInterval: 25,
    };
    assert.deepEqual(netConfOf(await rendered({ flannel })), {
      Network: '10.244.0.0/16',
      EnableNFTables: false,
      Backend: {
        Type: 'wireguard',
        PSK: 'a"b\\c',
        Mode: 'auto',
        ListenPort: 51820,
        ListenPortV6: 51821,
        MTU: 1420,
        PersistentKeepaliveInterval: 25,
      },
    });
    const vxlan = {
      backend: 'vxlan',
      vni: 4096,
      GBP: true,
      directRouting: true,
      macPrefix: '0E-2A',
      backendPort: 8472,
    };
    assert.deepEqual(netConfOf(await rendered({ podCidr: '', podCidrv6: 'fd00:10::/56', flannel: vxlan })), {
      EnableIPv4: false,
      EnableIPv6: true,
      IPv6Network: 'fd00:10::/56',
      EnableNFTables: false,
      Backend: { Type: 'vxlan', VNI: 4096, GBP: true, DirectRouting: true, MacPrefix: '0E-2A', Port: 8472 },
    });
    const udp = { backend: 'udp', backendPort: 8000, vni: 7, enableNFTables: true };
    assert.deepEqual(netConfOf(await rendered({ flannel: udp })), {
      Network: '10.244.0.0/16',
      EnableNFTables: true,
      Backend: { Type: 'udp', Port: 8000 },
    });
  });

  it('refuses what is not a value of it, and a CNI configuration that is not JSON', async () => {
    assert.match(
      (await helm({ flannel: { tunelMode: 'auto' } })).refusal,
      /additional properties 'tunelMode' not allowed/,
    );
    assert.match((await helm({ podCidr: '10.244.0.0' })).refusal, /podCidr/);
    assert.match((await helm({ flannel: { healthz: { port: 70_000 } } })).refusal, /healthz\/port/);
    assert.match((await helm({ flannel: { cniConf: '{"name": ' } })).refusal, /flannel\.cniConf is not JSON/);
  });

  it('adds kube-network-policies', async () => {
    const [, policies] = podOf(await rendered({ netpol: { enabled: true } })).containers;
    assert.deepEqual(
      [policies?.name, ...policies!.command, ...policies!.args],
      ['kube-network-policies', '/bin/netpol', '--hostname-override=$(MY_NODE_NAME)', '--v=2'],
    );
  });
});

describe('a real API server', () => {
  let cluster: KubeCluster;
  before(async () => {
    cluster = await KubeCluster.start({ controllerManager: false });
  });
  after(() => cluster[Symbol.asyncDispose]());

  const collections: Readonly<Record<string, string>> = {
    Namespace: '/api/v1/namespaces',
    ServiceAccount: `/api/v1/namespaces/${NAMESPACE}/serviceaccounts`,
    ConfigMap: `/api/v1/namespaces/${NAMESPACE}/configmaps`,
    ClusterRole: '/apis/rbac.authorization.k8s.io/v1/clusterroles',
    ClusterRoleBinding: '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings',
    DaemonSet: `/apis/apps/v1/namespaces/${NAMESPACE}/daemonsets`,
    ValidatingAdmissionPolicy: '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies',
    ValidatingAdmissionPolicyBinding: '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings',
  };

  /** Server-side apply, which refuses fields that it does not know. */
  async function apply(objects: readonly Manifest[]): Promise<void> {
    for (const object of objects) {
      const path = `${collections[object.kind]}/${object.metadata.name}`;
      const query = 'fieldManager=test&force=true&fieldValidation=Strict';
      // JSON is YAML.
      await cluster.admin.json('PATCH', `${path}?${query}`, object, 'application/apply-patch+yaml');
    }
  }

  it('takes the manifest in place of flannel, and the chart with everything on', async () => {
    // The selector of a DaemonSet cannot be changed: this is flannel's, and so are the labels it selects by.
    const labels = { app: 'flannel', tier: 'node' };
    const container = { name: 'kube-flannel', image: 'flannel' };
    await cluster.admin.create(collections.DaemonSet!, {
      apiVersion: 'apps/v1',
      kind: 'DaemonSet',
      metadata: { name: 'kube-flannel-ds', labels },
      spec: {
        selector: { matchLabels: { app: 'flannel' } },
        template: { metadata: { labels }, spec: { containers: [container] } },
      },
    } as KubeObject);
    await apply(manifest);
    const everything = {
      global: { imagePullSecrets: [{ name: 'a-test-secret' }] },
      podCidrv6: 'fd00:10::/56',
      flannel: {
        fastPath: true,
        fastPathKept: true,
        api: { port: 8287 },
        nodeSelector: { 'kubernetes.io/arch': 'amd64' },
        tolerations: [{ operator: 'Exists' }],
      },
      netpol: { enabled: true },
    };
    await apply(await rendered(everything));
    await apply(manifest);
  });

  it('lets the pods into the namespace for its label, and into no other', async () => {
    const pod = { kind: 'Pod', metadata: { name: 'agent' }, spec: podOf(manifest) };
    await cluster.admin.json('POST', `/api/v1/namespaces/${NAMESPACE}/pods?dryRun=All`, pod);
    const labels = { 'pod-security.kubernetes.io/enforce': 'baseline' };
    await cluster.admin.create('/api/v1/namespaces', { kind: 'Namespace', metadata: { name: 'baseline', labels } });
    const account = { metadata: { name: 'flannel', namespace: 'baseline' } };
    await cluster.admin.create('/api/v1/namespaces/baseline/serviceaccounts', account);
    await assert.rejects(
      cluster.admin.json('POST', '/api/v1/namespaces/baseline/pods?dryRun=All', pod),
      /violates PodSecurity.*hostNetwork/s,
    );
  });

  it('gives the agent the rights it uses and no others', async () => {
    // The test cluster has roles of its own; these are the manifest's.
    await apply(manifest);
    const allowed = async (verb: string, resource: string, subresource?: string): Promise<boolean> => {
      const resourceAttributes = { verb, resource, ...(subresource === undefined ? {} : { subresource }) };
      const { status } = await cluster.admin.json<{ status: { allowed: boolean } }>(
        'POST',
        '/apis/authorization.k8s.io/v1/subjectaccessreviews',
        {
          apiVersion: 'authorization.k8s.io/v1',
          kind: 'SubjectAccessReview',
          spec: { user: FLANNEL_USER, resourceAttributes },
        },
      );
      return status.allowed;
    };
    for (const verb of ['get', 'list', 'watch']) assert.ok(await allowed(verb, 'nodes'), verb);
    assert.ok(await allowed('patch', 'nodes', 'status'));
    for (const verb of ['create', 'patch']) assert.ok(await allowed(verb, 'events'), verb);
    for (const verb of ['update', 'patch', 'delete', 'create']) assert.ok(!(await allowed(verb, 'nodes')), verb);
    for (const verb of ['get', 'list', 'update', 'delete']) assert.ok(!(await allowed(verb, 'events')), verb);
    for (const resource of ['pods', 'secrets', 'configmaps']) assert.ok(!(await allowed('list', resource)), resource);
  });

  it("lets an agent's token change its own Node alone, and only what the agent writes, with the policy", async () => {
    await apply(manifest);
    const pods = `/api/v1/namespaces/${NAMESPACE}/pods`;
    const foreign = { 'example.test/foreign': 'before' };
    for (const node of ['own', 'other']) await cluster.admin.createNode(node, { annotations: foreign });
    const container = { name: 'agent', image: 'agent' };
    await cluster.admin.create(pods, {
      kind: 'Pod',
      metadata: { name: 'agent-on-own' },
      spec: { nodeName: 'own', serviceAccountName: 'flannel', containers: [container] },
    } as KubeObject);
    const { uid } = (await cluster.admin.get<KubeObject>(`${pods}/agent-on-own`)).metadata;
    /** As kubelet asks for it; without a pod, as `kubectl create token` does. */
    const tokenOf = async (boundObjectRef?: object): Promise<KubeClient> => {
      const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/flannel/token`;
      const spec = { expirationSeconds: 3600, ...(boundObjectRef && { boundObjectRef }) };
      const request = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec };
      const { status } = await cluster.admin.json<{ status: { token: string } }>('POST', path, request);
      return new KubeClient({ url: cluster.url, ca: await readFile(cluster.ca.certFile, 'utf8'), token: status.token });
    };
    using bound = await tokenOf({ kind: 'Pod', apiVersion: 'v1', name: 'agent-on-own', uid });
    using free = await tokenOf();
    const change = (client: KubeClient, node: string, what: object) =>
      client.json('PATCH', `/api/v1/nodes/${node}/status`, what, 'application/merge-patch+json');
    const annotate = (client: KubeClient, node: string) =>
      change(client, node, { metadata: { annotations: { 'flannel.alpha.coreos.com/public-ip': '192.0.2.1' } } });
    const isForbidden = (message: RegExp) => (error: unknown) => {
      assert.ok(error instanceof KubeClientError);
      assert.equal(error.status, 403);
      assert.match(error.message, message);
      return true;
    };

    // What the policy is for: the right itself is for all Nodes.
    await annotate(bound, 'other');
    await apply(policy);
    await eventually('the policy is in force', () =>
      annotate(bound, 'other').then(
        () => undefined,
        () => true,
      ),
    );
    await assert.rejects(annotate(bound, 'other'), isForbidden(/its own Node only, and this token is of own/));
    await assert.rejects(annotate(free, 'own'), isForbidden(/this token is of no node/));

    // What kubelet and controllers write, and the agent does not.
    const ready = { type: 'Ready', status: 'True' };
    await change(cluster.admin, 'own', {
      status: {
        ...{ conditions: [ready], capacity: { pods: '110' }, allocatable: { pods: '100' }, volumesInUse: ['a'] },
        ...{ images: [{ names: ['localhost/a:1'], sizeBytes: 1 }], nodeInfo: { kernelVersion: '6.6.0' } },
        daemonEndpoints: { kubeletEndpoint: { Port: 10_250 } },
      },
    });

    // What the agent itself sends.
    for (const patch of [
      annotationPatch({ 'flannel.alpha.coreos.com/backend-type': 'udp' }),
      networkUnavailablePatch(new Date(), 'FlannelTunMissing', 'why'),
      networkAvailablePatch(new Date()),
    ]) {
      await bound.json('PATCH', '/api/v1/nodes/own/status', JSON.parse(patch), STRATEGIC_MERGE_PATCH);
    }
    const owner = { apiVersion: 'v1', kind: 'ConfigMap', name: 'a', uid: '9e107d9d-3720-4bb6-b2c5-0242ac120002' };
    const isNotTheAgents = isForbidden(
      /flannel's annotations and the condition NetworkUnavailable of its Node, and nothing/,
    );
    for (const more of [
      { metadata: { labels: { 'node-role.kubernetes.io/control-plane': '' } } },
      { metadata: { annotations: { 'example.test/own': 'new' } } },
      { metadata: { annotations: { 'example.test/foreign': 'after' } } },
      { metadata: { annotations: { 'example.test/foreign': null } } },
      { metadata: { annotations: { 'flannel.alpha.coreos.com.example.test/a': '' } } },
      { metadata: { finalizers: ['example.test/stay'] } },
      { metadata: { ownerReferences: [owner] } },
      { status: { addresses: [{ type: 'InternalIP', address: '192.0.2.66' }] } },
      { status: { capacity: { pods: '1000' } } },
      { status: { allocatable: { pods: '1000' } } },
      { status: { phase: 'Running' } },
      { status: { daemonEndpoints: { kubeletEndpoint: { Port: 6_443 } } } },
      { status: { nodeInfo: { kernelVersion: '2.6.0' } } },
      { status: { images: [{ names: ['localhost/other:1'], sizeBytes: 1 }] } },
      { status: { images: null } },
      { status: { volumesInUse: ['a', 'b'] } },
      { status: { volumesAttached: [{ name: 'a', devicePath: '/dev/sda' }] } },
      { status: { runtimeHandlers: [{ name: 'other' }] } },
      { status: { conditions: [{ ...ready, status: 'False' }] } },
      { status: { conditions: [ready, { type: 'MemoryPressure', status: 'True' }] } },
      { status: { conditions: [] } },
    ]) {
      await assert.rejects(change(bound, 'own', more), isNotTheAgents, JSON.stringify(more));
    }
    // Nor with a role that has more than the manifest's.
    const metadata = { name: 'whole-nodes' };
    const rules = [{ apiGroups: [''], resources: ['nodes'], verbs: ['patch'] }];
    await cluster.admin.create(collections.ClusterRole!, { metadata, rules } as KubeObject);
    await cluster.admin.create(collections.ClusterRoleBinding!, {
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: metadata.name },
      subjects: [{ kind: 'ServiceAccount', name: 'flannel', namespace: NAMESPACE }],
    } as KubeObject);
    const taint = { spec: { taints: [{ key: 'a', effect: 'NoSchedule' }] } };
    const changeSpec = () => bound.json('PATCH', '/api/v1/nodes/own', taint, 'application/merge-patch+json');
    // The role is known a moment later.
    await eventuallyHolds(() => assert.rejects(changeSpec(), isNotTheAgents));
    // Others are not concerned.
    await change(cluster.admin, 'other', { status: { addresses: [{ type: 'InternalIP', address: '192.0.2.66' }] } });
  });
});
