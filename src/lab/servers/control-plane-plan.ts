import { join } from 'node:path';
import type { KeyPair } from './certs.ts';
import type { KubeProgram } from './kube-build.ts';

const ROLES = ['etcd', 'etcdPeer', 'api', 'controllerManager', 'scheduler'] as const;
type Role = (typeof ROLES)[number];
type ControlPlanePorts = Readonly<Record<Role, number>>;

/** What they are where nobody else has any. */
export const USUAL_PORTS: ControlPlanePorts = {
  etcd: 2379,
  etcdPeer: 2380,
  api: 6443,
  controllerManager: 10_257,
  scheduler: 10_259,
};

/** @param free one port after the other, as many as there are roles. */
export async function portsFrom(free: (count: number) => Promise<readonly number[]>): Promise<ControlPlanePorts> {
  const ports = await free(ROLES.length);
  return Object.fromEntries(ROLES.map((role, i) => [role, ports[i]!])) as Record<Role, number>;
}

/** Paths of what is there before a server starts. */
export interface ControlPlaneFiles {
  /** What servers write is below it. */
  readonly dir: string;
  readonly caFile: string;
  readonly serving: KeyPair;
  /** Of service account tokens. */
  readonly signing: { readonly keyFile: string; readonly publicKeyFile: string };
  readonly tokens: string;
  readonly auditPolicy: string;
  readonly kubeconfigs: { readonly controllerManager: string; readonly scheduler: string };
}

export interface ControlPlanePlan {
  readonly ports: ControlPlanePorts;
  readonly files: ControlPlaneFiles;
  /** At which clients reach the API server. */
  readonly address: string;
  /** Whether it listens on all addresses, instead of on 127.0.0.1 alone. */
  readonly listensOnAll: boolean;
  /** Comma-separated for dual-stack, both. */
  readonly clusterCidr: string;
  readonly serviceCidr: string;
  /** As kube-controller-manager takes them. */
  readonly controllers: string;
  readonly apiServerArgs: readonly string[];
  readonly controllerManagerArgs: readonly string[];
}

export function etcdUrlOf({ etcd }: ControlPlanePorts): string {
  return `http://127.0.0.1:${etcd}`;
}

export function auditLogOf(dir: string): string {
  return join(dir, 'audit.log');
}

export function etcdArgv({ ports, files }: ControlPlanePlan): string[] {
  const [url, peerUrl] = [etcdUrlOf(ports), `http://127.0.0.1:${ports.etcdPeer}`];
  return [
    'etcd',
    `--data-dir=${join(files.dir, 'etcd')}`,
    '--unsafe-no-fsync',
    '--log-level=warn',
    `--listen-client-urls=${url}`,
    `--advertise-client-urls=${url}`,
    `--listen-peer-urls=${peerUrl}`,
    `--initial-advertise-peer-urls=${peerUrl}`,
    `--initial-cluster=default=${peerUrl}`,
  ];
}

type Program = (name: KubeProgram) => string;

export function apiServerArgv(plan: ControlPlanePlan, program: Program): string[] {
  const { ports, files, address, listensOnAll } = plan;
  return [
    program('kube-apiserver'),
    `--etcd-servers=${etcdUrlOf(ports)}`,
    `--bind-address=${listensOnAll ? '0.0.0.0' : '127.0.0.1'}`,
    `--advertise-address=${address}`,
    // A loopback address is refused as an endpoint of the service `kubernetes`.
    ...(listensOnAll ? [] : ['--endpoint-reconciler-type=none']),
    `--secure-port=${ports.api}`,
    `--tls-cert-file=${files.serving.certFile}`,
    `--tls-private-key-file=${files.serving.keyFile}`,
    `--client-ca-file=${files.caFile}`,
    `--token-auth-file=${files.tokens}`,
    '--service-account-issuer=https://kubernetes.default.svc',
    `--service-account-key-file=${files.signing.publicKeyFile}`,
    `--service-account-signing-key-file=${files.signing.keyFile}`,
    `--service-cluster-ip-range=${plan.serviceCidr}`,
    '--authorization-mode=Node,RBAC',
    '--allow-privileged=true',
    `--cert-dir=${join(files.dir, 'apiserver')}`,
    `--audit-policy-file=${files.auditPolicy}`,
    `--audit-log-path=${auditLogOf(files.dir)}`,
    '--kubelet-preferred-address-types=InternalIP',
    ...plan.apiServerArgs,
  ];
}

export function controllerManagerArgv(plan: ControlPlanePlan, program: Program): string[] {
  const { ports, files, clusterCidr } = plan;
  return [
    program('kube-controller-manager'),
    `--kubeconfig=${files.kubeconfigs.controllerManager}`,
    '--allocate-node-cidrs=true',
    `--cluster-cidr=${clusterCidr}`,
    `--service-cluster-ip-range=${plan.serviceCidr}`,
    ...(clusterCidr.includes(',') ? ['--node-cidr-mask-size-ipv6=64'] : []),
    `--service-account-private-key-file=${files.signing.keyFile}`,
    `--root-ca-file=${files.caFile}`,
    '--leader-elect=false',
    '--bind-address=127.0.0.1',
    `--secure-port=${ports.controllerManager}`,
    `--cert-dir=${join(files.dir, 'controller-manager')}`,
    `--controllers=${plan.controllers}`,
    ...plan.controllerManagerArgs,
  ];
}

export function schedulerArgv({ ports, files }: ControlPlanePlan, program: Program): string[] {
  return [
    program('kube-scheduler'),
    `--kubeconfig=${files.kubeconfigs.scheduler}`,
    '--leader-elect=false',
    '--bind-address=127.0.0.1',
    `--secure-port=${ports.scheduler}`,
    `--cert-dir=${join(files.dir, 'scheduler')}`,
    '--authentication-tolerate-lookup-failure',
  ];
}
