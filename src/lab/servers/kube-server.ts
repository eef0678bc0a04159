import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, isIPv6 } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, run } from '../../linux/run.ts';
import { CertificateAuthority, createSigningKey, type KeyPair } from './certs.ts';
import { freePorts } from './free-ports.ts';
import { kubernetesBinaries } from './kube-build.ts';
import { KubeClient, type KubeNode, type KubeObject } from './kube-client.ts';
import { launcherOf, type ServerPlace } from './server-place.ts';
import { ServerProcess } from './server-process.ts';

/** The API server listens on all addresses when one is given. */
export interface KubeClusterOptions extends ServerPlace {
  /** Default 10.244.0.0/16; comma-separated for dual-stack. */
  readonly clusterCidr?: string;
  /** Default 10.96.0.0/16. */
  readonly serviceCidr?: string;
  /** Default: those that assign pod CIDRs and keep service accounts. `*` for all, as real pods need. */
  readonly controllers?: string;
  /** Without it nothing assigns pod CIDRs. Default true. */
  readonly controllerManager?: boolean;
  /** Default false. */
  readonly scheduler?: boolean;
  readonly apiServerArgs?: readonly string[];
  readonly controllerManagerArgs?: readonly string[];
  /** Whether flannel's namespace, service account and rights are made: false where a manifest brings them. Default true. */
  readonly flannelAccount?: boolean;
  readonly say?: (line: string) => void;
}

export interface KubeServers {
  readonly etcd: ServerProcess;
  readonly apiServer: ServerProcess;
  readonly controllerManager: ServerProcess;
  readonly scheduler: ServerProcess;
}

/** One request as the API server saw it (audit.k8s.io/v1, level Request). */
export interface AuditEvent {
  readonly stage: string;
  readonly verb: string;
  readonly requestURI: string;
  readonly userAgent: string;
  readonly user: { readonly username: string };
  readonly objectRef?: { readonly resource: string; readonly subresource?: string; readonly name?: string };
  readonly requestObject?: unknown;
  readonly responseStatus?: { readonly code?: number };
}

export interface KubeconfigUser {
  readonly token?: string;
  readonly tokenFile?: string;
  readonly clientCertificate?: KeyPair;
  /** Written as it is under `exec`. */
  readonly exec?: unknown;
}

const FLANNEL_NAMESPACE = 'kube-flannel';
export const FLANNEL_USER = `system:serviceaccount:${FLANNEL_NAMESPACE}:flannel`;
const DEFAULT_CONTROLLERS =
  'node-ipam-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,namespace-controller,garbage-collector-controller';

/**
 * A real control plane: etcd, kube-apiserver, kube-controller-manager and, when asked for, kube-scheduler. Any number of
 * them can run at once.
 */
export class KubeCluster implements AsyncDisposable {
  /** Kubeconfigs, certificates, logs. */
  readonly dir: string;
  /** For agents; valid inside `netns` when there is one. */
  readonly url: string;
  readonly etcdUrl: string;
  readonly ca: CertificateAuthority;
  /** With all rights; works from this process also when the servers are in a namespace. */
  readonly admin: KubeClient;
  readonly servers: KubeServers;
  /** Of Kubernetes, e.g. `v1.36.3`. */
  readonly version: string;
  readonly adminToken: string;
  readonly #relay: Child | undefined;

  private constructor(made: {
    dir: string;
    url: string;
    etcdUrl: string;
    ca: CertificateAuthority;
    admin: KubeClient;
    adminToken: string;
    servers: KubeServers;
    version: string;
    relay: Child | undefined;
  }) {
    this.dir = made.dir;
    this.url = made.url;
    this.etcdUrl = made.etcdUrl;
    this.ca = made.ca;
    this.admin = made.admin;
    this.adminToken = made.adminToken;
    this.servers = made.servers;
    this.version = made.version;
    this.#relay = made.relay;
  }

  /**
   * Starts the servers and, unless told otherwise, creates flannel's namespace, service account and minimal rights.
   * @throws WeftError WEFT_COMMAND_MISSING when a program is missing, with what to install; Error with the end of a
   *   server's log when it does not start.
   */
  static async start(options: KubeClusterOptions = {}): Promise<KubeCluster> {
    const { netns, address = '127.0.0.1', clusterCidr = '10.244.0.0/16', serviceCidr = '10.96.0.0/16' } = options;
    const kubernetes = await kubernetesBinaries(options.say);
    const launch = launcherOf(options);
    const dir = options.directory ?? (await mkdtemp(join(tmpdir(), 'weft-kube-')));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rm(dir, { recursive: true, force: true }));

    const ports = netns === undefined ? await freePorts(5) : [2379, 2380, 6443, 10257, 10259];
    const [etcdPort, peerPort, apiPort, controllerPort, schedulerPort] = ports as [
      number,
      number,
      number,
      number,
      number,
    ];
    const host = isIPv6(address) ? `[${address}]` : address;
    const url = `https://${host}:${apiPort}`;
    const etcdUrl = `http://127.0.0.1:${etcdPort}`;
    const peerUrl = `http://127.0.0.1:${peerPort}`;

    const ca = await CertificateAuthority.create(join(dir, 'pki'), 'weft test CA');
    const names = [
      'kubernetes',
      'kubernetes.default',
      'kubernetes.default.svc',
      'localhost',
      '127.0.0.1',
      firstOf(serviceCidr),
    ];
    const [server, signing] = await Promise.all([
      ca.issueServer('kube-apiserver', [...new Set([...names, address])]),
      createSigningKey(join(dir, 'pki'), 'service-account'),
    ]);
    const tokens = { admin: token(), controllerManager: token(), scheduler: token() };
    await writeFile(
      join(dir, 'tokens.csv'),
      `${tokens.admin},admin,1,system:masters\n${tokens.controllerManager},system:kube-controller-manager,2,system:masters\n${tokens.scheduler},system:kube-scheduler,3,system:masters\n`,
    );
    await writeFile(join(dir, 'audit-policy.yaml'), AUDIT_POLICY);
    await mkdir(join(dir, 'log'));
    const kubeconfig = (name: string, user: KubeconfigUser) =>
      writeKubeconfig(join(dir, `${name}.kubeconfig`), `https://127.0.0.1:${apiPort}`, ca.certFile, user);
    const controllerKubeconfig = await kubeconfig('kube-controller-manager', { token: tokens.controllerManager });
    const schedulerKubeconfig = await kubeconfig('kube-scheduler', { token: tokens.scheduler });

    const socketPath = netns === undefined ? undefined : join(dir, 'api.sock');
    const relay =
      netns === undefined || socketPath === undefined
        ? undefined
        : await launch(
            ['socat', `UNIX-LISTEN:${socketPath},fork,mode=600`, `TCP:127.0.0.1:${apiPort}`],
            join(dir, 'log', 'relay.log'),
            undefined,
          );
    if (relay !== undefined) cleanup.use(relay);
    const admin = cleanup.use(
      new KubeClient({
        url: `https://127.0.0.1:${apiPort}`,
        ca: await readFile(ca.certFile, 'utf8'),
        token: tokens.admin,
        socketPath,
      }),
    );

    const process_ = (name: string, argv: string[], ready: () => Promise<boolean>) =>
      new ServerProcess(name, { argv, logFile: join(dir, 'log', `${name}.log`), launch, ready });
    const servers: KubeServers = {
      etcd: process_(
        'etcd',
        [
          'etcd',
          `--data-dir=${join(dir, 'etcd')}`,
          '--unsafe-no-fsync',
          '--log-level=warn',
          `--listen-client-urls=${etcdUrl}`,
          `--advertise-client-urls=${etcdUrl}`,
          `--listen-peer-urls=${peerUrl}`,
          `--initial-advertise-peer-urls=${peerUrl}`,
          `--initial-cluster=default=${peerUrl}`,
        ],
        () => listens(netns, etcdPort),
      ),
      apiServer: process_(
        'kube-apiserver',
        [
          kubernetes.program('kube-apiserver'),
          `--etcd-servers=${etcdUrl}`,
          `--bind-address=${options.address === undefined ? '127.0.0.1' : '0.0.0.0'}`,
          `--advertise-address=${address}`,
          // A loopback address is refused as an endpoint of the service `kubernetes`.
          ...(options.address === undefined ? ['--endpoint-reconciler-type=none'] : []),
          `--secure-port=${apiPort}`,
          `--tls-cert-file=${server.certFile}`,
          `--tls-private-key-file=${server.keyFile}`,
          `--client-ca-file=${ca.certFile}`,
          `--token-auth-file=${join(dir, 'tokens.csv')}`,
          '--service-account-issuer=https://kubernetes.default.svc',
          `--service-account-key-file=${signing.publicKeyFile}`,
          `--service-account-signing-key-file=${signing.keyFile}`,
          `--service-cluster-ip-range=${serviceCidr}`,
          '--authorization-mode=Node,RBAC',
          '--allow-privileged=true',
          `--cert-dir=${join(dir, 'apiserver')}`,
          `--audit-policy-file=${join(dir, 'audit-policy.yaml')}`,
          `--audit-log-path=${join(dir, 'audit.log')}`,
          '--kubelet-preferred-address-types=InternalIP',
          ...(options.apiServerArgs ?? []),
        ],
        async () => (await admin.json<string>('GET', '/readyz')) === 'ok',
      ),
      controllerManager: process_(
        'kube-controller-manager',
        [
          kubernetes.program('kube-controller-manager'),
          `--kubeconfig=${controllerKubeconfig}`,
          '--allocate-node-cidrs=true',
          `--cluster-cidr=${clusterCidr}`,
          `--service-cluster-ip-range=${serviceCidr}`,
          ...(clusterCidr.includes(',') ? ['--node-cidr-mask-size-ipv6=64'] : []),
          `--service-account-private-key-file=${signing.keyFile}`,
          `--root-ca-file=${ca.certFile}`,
          '--leader-elect=false',
          '--bind-address=127.0.0.1',
          `--secure-port=${controllerPort}`,
          `--cert-dir=${join(dir, 'controller-manager')}`,
          `--controllers=${options.controllers ?? DEFAULT_CONTROLLERS}`,
          ...(options.controllerManagerArgs ?? []),
        ],
        () => listens(netns, controllerPort),
      ),
      scheduler: process_(
        'kube-scheduler',
        [
          kubernetes.program('kube-scheduler'),
          `--kubeconfig=${schedulerKubeconfig}`,
          '--leader-elect=false',
          '--bind-address=127.0.0.1',
          `--secure-port=${schedulerPort}`,
          `--cert-dir=${join(dir, 'scheduler')}`,
          '--authentication-tolerate-lookup-failure',
        ],
        () => listens(netns, schedulerPort),
      ),
    };
    for (const one of Object.values(servers) as ServerProcess[]) cleanup.use(one);
    await servers.etcd.start();
    await servers.apiServer.start();
    await Promise.all([
      options.flannelAccount === false ? undefined : createFlannelAccount(admin),
      options.controllerManager === false ? undefined : servers.controllerManager.start(),
      options.scheduler === true ? servers.scheduler.start() : undefined,
    ]);
    const cluster = new KubeCluster({
      dir,
      url,
      etcdUrl,
      ca,
      admin,
      adminToken: tokens.admin,
      servers,
      version: kubernetes.version,
      relay,
    });
    cleanup.move();
    return cluster;
  }

  /** Creates Nodes one at a time, so that their pod CIDRs come in order, and waits until each has its own. */
  async createNodes(names: readonly string[], signal: AbortSignal): Promise<KubeNode[]> {
    const nodes: KubeNode[] = [];
    for (const name of names) {
      await this.admin.createNode(name);
      nodes.push(await this.admin.waitForNode(name, (node) => (node.spec.podCIDRs ?? []).length > 0, signal));
    }
    return nodes;
  }

  /** A token of flannel's service account, which has the rights of flannel's manifest and no more. */
  async flannelToken(seconds = 86_400): Promise<string> {
    const path = `/api/v1/namespaces/${FLANNEL_NAMESPACE}/serviceaccounts/flannel/token`;
    const request = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { expirationSeconds: seconds },
    };
    const answer = await this.admin.json<{ status: { token: string } }>('POST', path, request);
    return answer.status.token;
  }

  /** Writes a kubeconfig for agents; returns its path. */
  async kubeconfig(name: string, user: KubeconfigUser): Promise<string> {
    return writeKubeconfig(join(this.dir, `${name}.kubeconfig`), this.url, this.ca.certFile, user);
  }

  /** A kubeconfig of flannel's service account. */
  async flannelKubeconfig(): Promise<string> {
    return this.kubeconfig('flannel', { token: await this.flannelToken() });
  }

  /** A folder as a pod of flannel's DaemonSet finds it at /var/run/secrets/kubernetes.io/serviceaccount. */
  async serviceAccountDir(): Promise<string> {
    const dir = await mkdtemp(join(this.dir, 'serviceaccount-'));
    await writeFile(join(dir, 'token'), await this.flannelToken());
    await writeFile(join(dir, 'ca.crt'), await readFile(this.ca.certFile));
    await writeFile(join(dir, 'namespace'), FLANNEL_NAMESPACE);
    return dir;
  }

  /** What flannel's service account has asked for so far, in order; only finished requests and begun watches. */
  async audit(): Promise<AuditEvent[]> {
    const text = await readFile(join(this.dir, 'audit.log'), 'utf8').catch(() => '');
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as AuditEvent);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.admin[Symbol.dispose]();
    const { etcd, apiServer, controllerManager, scheduler } = this.servers;
    await Promise.all([etcd, apiServer, controllerManager, scheduler].map((server) => server.kill()));
    await this.#relay?.[Symbol.asyncDispose]();
    await rm(this.dir, { recursive: true, force: true });
  }
}

const AUDIT_POLICY = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Request
  users: ["${FLANNEL_USER}"]
- level: None
`;

async function createFlannelAccount(admin: KubeClient): Promise<void> {
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  const named = (name: string, namespace?: string) => ({ metadata: { name, ...(namespace ? { namespace } : {}) } });
  await admin.create('/api/v1/namespaces', { kind: 'Namespace', ...named(FLANNEL_NAMESPACE) });
  await admin.create(`/api/v1/namespaces/${FLANNEL_NAMESPACE}/serviceaccounts`, named('flannel', FLANNEL_NAMESPACE));
  const role: KubeObject & { rules: unknown } = {
    ...named('flannel'),
    rules: [
      { apiGroups: [''], resources: ['pods'], verbs: ['get'] },
      { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'list', 'watch'] },
      { apiGroups: [''], resources: ['nodes/status'], verbs: ['patch'] },
    ],
  };
  await admin.create(`${rbac}/clusterroles`, role);
  const binding: KubeObject & { roleRef: unknown; subjects: unknown } = {
    ...named('flannel'),
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'flannel' },
    subjects: [{ kind: 'ServiceAccount', name: 'flannel', namespace: FLANNEL_NAMESPACE }],
  };
  await admin.create(`${rbac}/clusterrolebindings`, binding);
}

/** JSON is YAML. */
async function writeKubeconfig(path: string, server: string, caFile: string, user: KubeconfigUser): Promise<string> {
  const caData = (await readFile(caFile)).toString('base64');
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server, 'certificate-authority-data': caData } }],
    users: [
      {
        name: 'test',
        user: {
          ...(user.token === undefined ? {} : { token: user.token }),
          ...(user.tokenFile === undefined ? {} : { tokenFile: user.tokenFile }),
          ...(user.clientCertificate === undefined
            ? {}
            : {
                'client-certificate': user.clientCertificate.certFile,
                'client-key': user.clientCertificate.keyFile,
              }),
          ...(user.exec === undefined ? {} : { exec: user.exec }),
        },
      },
    ],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'test' } }],
    'current-context': 'test',
  };
  await writeFile(path, JSON.stringify(config, undefined, 2), { mode: 0o600 });
  return path;
}

/** Whether something listens there. */
async function listens(netns: string | undefined, port: number): Promise<boolean> {
  if (netns !== undefined) {
    const argv = ['socat', '-u', '/dev/null', `TCP:127.0.0.1:${port}`];
    return (await run(argv, { netns, okExitCodes: 'any' })).exitCode === 0;
  }
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } finally {
    socket.destroy();
  }
}

function token(): string {
  return randomBytes(16).toString('hex');
}

/** The first address of the first range: the service `kubernetes`. */
function firstOf(cidrs: string): string {
  const [base = ''] = cidrs.split(/[/,]/);
  return isIPv6(base) ? `${base.replace(/::$/, '')}::1` : base.replace(/\.0$/, '.1');
}
