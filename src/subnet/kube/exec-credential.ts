import { WeftError } from '../../errors.ts';
import { run } from '../../linux/run.ts';
import type { ExecPlugin } from './kubeconfig.ts';

/** What a plugin may be told about the cluster (`provideClusterInfo`). */
export interface ExecClusterInfo {
  readonly server: string;
  readonly tlsServerName: string | undefined;
  readonly skipTlsVerify: boolean;
  /** Base64. */
  readonly caData: string | undefined;
  readonly proxyUrl: string | undefined;
}

export interface ExecCredential {
  readonly token: string | undefined;
  /** PEM. */
  readonly cert: string | undefined;
  readonly key: string | undefined;
  readonly expiresAtMs: number | undefined;
}

const PLUGIN_TIMEOUT_MS = 60_000;

/**
 * Runs a kubeconfig's exec plugin once (protocol: client.authentication.k8s.io, ExecCredential on standard output,
 * KUBERNETES_EXEC_INFO in the environment). @throws WeftError WEFT_KUBE_CONFIG.
 */
export async function runExecPlugin(
  plugin: ExecPlugin,
  cluster: ExecClusterInfo,
  signal: AbortSignal,
): Promise<ExecCredential> {
  const info = {
    apiVersion: plugin.apiVersion,
    kind: 'ExecCredential',
    spec: { interactive: false, ...(plugin.provideClusterInfo ? { cluster: clusterInfo(cluster) } : {}) },
  };
  const failed = (what: string, cause?: unknown): WeftError =>
    new WeftError('WEFT_KUBE_CONFIG', `getting credentials: exec: ${plugin.command}: ${what}`, {
      hint: plugin.installHint ?? `Run "${[plugin.command, ...plugin.args].join(' ')}" by hand as this user.`,
      cause,
    });
  let output: string;
  try {
    const env = { ...plugin.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) };
    output = (
      await run([plugin.command, ...plugin.args], { env, timeoutMs: PLUGIN_TIMEOUT_MS, hasSecrets: true, signal })
    ).stdout;
  } catch (error) {
    signal.throwIfAborted();
    throw failed(error instanceof Error ? error.message : String(error), error);
  }
  let credential: { apiVersion?: unknown; kind?: unknown; status?: Record<string, unknown> };
  try {
    credential = JSON.parse(output);
  } catch (error) {
    throw failed('it did not print JSON', error);
  }
  if (credential?.kind !== 'ExecCredential' || credential.apiVersion !== plugin.apiVersion) {
    throw failed(`it did not print an ExecCredential of ${plugin.apiVersion}`);
  }
  const status = credential.status ?? {};
  const text = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);
  const token = text(status.token);
  const cert = text(status.clientCertificateData);
  const key = text(status.clientKeyData);
  if (token === undefined && cert === undefined) throw failed('it returned neither a token nor a client certificate');
  if ((cert === undefined) !== (key === undefined)) throw failed('it returned a certificate or a key, but not both');
  const expiry = text(status.expirationTimestamp);
  const expiresAtMs = expiry === undefined ? undefined : Date.parse(expiry);
  if (Number.isNaN(expiresAtMs)) throw failed(`its expirationTimestamp is not a time: ${expiry}`);
  return { token, cert, key, expiresAtMs };
}

function clusterInfo(cluster: ExecClusterInfo): Record<string, unknown> {
  return {
    server: cluster.server,
    ...(cluster.tlsServerName === undefined ? {} : { 'tls-server-name': cluster.tlsServerName }),
    ...(cluster.skipTlsVerify ? { 'insecure-skip-tls-verify': true } : {}),
    ...(cluster.caData === undefined ? {} : { 'certificate-authority-data': cluster.caData }),
    ...(cluster.proxyUrl === undefined ? {} : { 'proxy-url': cluster.proxyUrl }),
  };
}
