import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect, isIPv6 } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Child, run } from '../../linux/run.ts';
import { CertificateAuthority, createSigningKey } from './certs.ts';
import {
  apiServerArgv,
  auditLogOf,
  type ControlPlaneFiles,
  type ControlPlanePlan,
  controllerManagerArgv,
  etcdArgv,
  etcdUrlOf,
  portsFrom,
  schedulerArgv,
  USUAL_PORTS,
} from './control-plane-plan.ts';
import { createFlannelAccount, FLANNEL_NAMESPACE, FLANNEL_USER } from './flannel-account.ts';
import { freePorts } from './free-ports.ts';
import { type KubeProgram, kubernetesBinaries } from './kube-build.ts';
import { KubeClient, type KubeNode } from './kube-client.ts';
import { type KubeconfigUser, writeKubeconfig } from './kubeconfig-file.ts';
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

/** Of the API server, beside its address and that of its service. */
const SERVER_NAMES = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc', 'localhost', '127.0.0.1'];
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
    const ports = netns === undefined ? await portsFrom(freePorts) : USUAL_PORTS;
    // From the servers' own namespace.
    const ownUrl = `https://127.0.0.1:${ports.api}`;
    const ca = await CertificateAuthority.create(join(dir, 'pki'), 'weft test CA');
    const names = new Set([...SERVER_NAMES, firstOf(serviceCidr), address]);
    const tokens = { admin: token(), controllerManager: token(), scheduler: token() };
    const files = await writeFiles(dir, ca, names, tokens, ownUrl);
    await mkdir(join(dir, 'log'));

    const socketPath = netns === undefined ? undefined : join(dir, 'api.sock');
    const relay =
      netns === undefined || socketPath === undefined
        ? undefined
        : await launch(
            ['socat', `UNIX-LISTEN:${socketPath},fork,mode=600`, `TCP:127.0.0.1:${ports.api}`],
            join(dir, 'log', 'relay.log'),
            undefined,
          );
    if (relay !== undefined) cleanup.use(relay);
    const admin = cleanup.use(
      new KubeClient({ url: ownUrl, ca: await readFile(ca.certFile, 'utf8'), token: tokens.admin, socketPath }),
    );

    const plan: ControlPlanePlan = {
      ...{ ports, files, address, listensOnAll: options.address !== undefined, clusterCidr, serviceCidr },
      controllers: options.controllers ?? DEFAULT_CONTROLLERS,
      apiServerArgs: options.apiServerArgs ?? [],
      controllerManagerArgs: options.controllerManagerArgs ?? [],
    };
    const serverOf = (name: KubeProgram, argv: readonly string[], ready: () => Promise<boolean>): ServerProcess =>
      new ServerProcess(name, { argv, logFile: join(dir, 'log', `${name}.log`), launch, ready });
    const listening = (port: number) => () => listens(netns, port);
    const { program } = kubernetes;
    const servers: KubeServers = {
      etcd: serverOf('etcd', etcdArgv(plan), listening(ports.etcd)),
      apiServer: serverOf(
        'kube-apiserver',
        apiServerArgv(plan, program),
        async () => (await admin.json<string>('GET', '/readyz')) === 'ok',
      ),
      controllerManager: serverOf(
        'kube-controller-manager',
        controllerManagerArgv(plan, program),
        listening(ports.controllerManager),
      ),
      scheduler: serverOf('kube-scheduler', schedulerArgv(plan, program), listening(ports.scheduler)),
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
      ...{ dir, ca, admin, servers, relay },
      url: `https://${isIPv6(address) ? `[${address}]` : address}:${ports.api}`,
      etcdUrl: etcdUrlOf(ports),
      adminToken: tokens.admin,
      version: kubernetes.version,
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
    const text = await readFile(auditLogOf(this.dir), 'utf8').catch(() => '');
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

/** @param names of the API server. @param ownUrl at which the other servers reach it. */
async function writeFiles(
  dir: string,
  ca: CertificateAuthority,
  names: ReadonlySet<string>,
  tokens: Readonly<Record<'admin' | 'controllerManager' | 'scheduler', string>>,
  ownUrl: string,
): Promise<ControlPlaneFiles> {
  const users = [
    `${tokens.admin},admin,1,system:masters`,
    `${tokens.controllerManager},system:kube-controller-manager,2,system:masters`,
    `${tokens.scheduler},system:kube-scheduler,3,system:masters`,
  ];
  const [tokensFile, auditPolicy] = [join(dir, 'tokens.csv'), join(dir, 'audit-policy.yaml')];
  const kubeconfig = (name: string, token: string): Promise<string> =>
    writeKubeconfig(join(dir, `${name}.kubeconfig`), ownUrl, ca.certFile, { token });
  const [serving, signing, controllerManager, scheduler] = await Promise.all([
    ca.issueServer('kube-apiserver', [...names]),
    createSigningKey(join(dir, 'pki'), 'service-account'),
    kubeconfig('kube-controller-manager', tokens.controllerManager),
    kubeconfig('kube-scheduler', tokens.scheduler),
    writeFile(tokensFile, users.map((user) => `${user}\n`).join('')),
    writeFile(auditPolicy, AUDIT_POLICY),
  ]);
  return {
    ...{ dir, caFile: ca.certFile, serving, signing, tokens: tokensFile, auditPolicy },
    kubeconfigs: { controllerManager, scheduler },
  };
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
