import { readFile } from 'node:fs/promises';
import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { isIPv6 } from 'node:net';
import { join } from 'node:path';
import { WeftError } from '../../errors.ts';
import type { ReportSink } from '../report.ts';
import { type ExecCredential, runExecPlugin } from './exec-credential.ts';
import { type KubeconfigContext, readKubeconfig } from './kubeconfig.ts';
import { proxyFromEnvironment } from './proxy.ts';

export interface KubeAccessOptions {
  /** `--kubeconfig-file`; empty: not given. */
  readonly kubeconfigFile: string;
  /** `--kube-api-url`; empty: not given. Replaces the kubeconfig's server. */
  readonly apiUrl: string;
  /** Default `process.env`. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Where a pod finds its token and CA. */
  readonly serviceAccountDir?: string;
}

/** How the next request is to be sent. */
export interface PreparedRequest {
  readonly agent: HttpAgent;
  readonly headers: Readonly<Record<string, string | string[]>>;
}

/** The way to one API server: where it is, whom we trust, who we are. */
export interface KubeAccess extends Disposable {
  /** Without a trailing slash; may have a path. */
  readonly server: URL;
  /** Reads token, CA and certificate files again, so that rotated ones are used at once. */
  prepare(signal: AbortSignal): Promise<PreparedRequest>;
  /** After a 401: the next `prepare` asks the exec plugin again. */
  forgetCredentials(): void;
  /** After a failed connection: others that idle in the pool may have died of the same cause, without a sign of it. */
  dropIdleConnections(): void;
}

const SERVICE_ACCOUNT_DIR = '/var/run/secrets/kubernetes.io/serviceaccount';
/** An exec credential is renewed this long before it expires. */
const EXPIRY_MARGIN_MS = 10_000;

/**
 * The rules of client-go's BuildConfigFromFlags: neither flag → the pod's service account; otherwise the kubeconfig,
 * with the URL in place of its server. @throws WeftError WEFT_KUBE_CONFIG.
 */
export async function loadKubeAccess(options: KubeAccessOptions, report: ReportSink): Promise<KubeAccess> {
  const env = options.env ?? process.env;
  if (options.kubeconfigFile === '' && options.apiUrl === '') {
    report({
      type: 'note',
      severity: 'warning',
      text: 'Neither --kubeconfig nor --master was specified.  Using the inClusterConfig.  This might not work.',
    });
    return inCluster(env, options.serviceAccountDir ?? SERVICE_ACCOUNT_DIR);
  }
  const context: Identity = options.kubeconfigFile === '' ? ANONYMOUS : await readKubeconfig(options.kubeconfigFile);
  const server = serverUrl(options.apiUrl || (context.server ?? ''), context);
  const proxyUrl = context.proxyUrl ?? proxyFromEnvironment(server, env);
  if (context.authProvider !== undefined || proxyUrl?.startsWith('socks')) {
    return libraryAccess(options.kubeconfigFile, server, proxyUrl);
  }
  return new FileAccess(server, { ...context, proxyUrl });
}

const ANONYMOUS: Identity = { impersonation: {}, skipTlsVerify: false };

/** What {@link FileAccess} needs of a context: a pod has no more than a CA and a token file. */
type Identity = Partial<KubeconfigContext> & Pick<KubeconfigContext, 'impersonation' | 'skipTlsVerify'>;

async function inCluster(env: Readonly<Record<string, string | undefined>>, dir: string): Promise<KubeAccess> {
  const host = env.KUBERNETES_SERVICE_HOST;
  const port = env.KUBERNETES_SERVICE_PORT;
  const failed = (what: string, cause?: unknown): WeftError =>
    new WeftError('WEFT_KUBE_CONFIG', `fail to create kubernetes config: ${what}`, {
      hint: 'Run it in a pod with a service account (automountServiceAccountToken), or give --kubeconfig-file.',
      cause,
    });
  if (!host || !port) {
    throw failed(
      'unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined',
    );
  }
  const tokenFile = join(dir, 'token');
  const caFile = join(dir, 'ca.crt');
  for (const file of [tokenFile, caFile]) {
    await readFile(file).catch((error: Error) => {
      throw failed(error.message, error);
    });
  }
  const server = new URL(`https://${isIPv6(host) ? `[${host}]` : host}:${port}`);
  const proxyUrl = proxyFromEnvironment(server, env);
  return new FileAccess(server, { tokenFile, caFile, impersonation: {}, skipTlsVerify: false, proxyUrl });
}

/** A server without a scheme gets https when there is something to verify it with, as client-go does. */
function serverUrl(text: string, context: Partial<KubeconfigContext>): URL {
  const secure = context.caFile ?? context.caData ?? context.certFile ?? context.certData ?? context.skipTlsVerify;
  const full = text.includes('://') ? text : `${secure ? 'https' : 'http'}://${text}`;
  const url = text === '' ? undefined : URL.parse(full);
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new WeftError(
      'WEFT_KUBE_CONFIG',
      text === ''
        ? 'fail to create kubernetes config: no API server is configured: the kubeconfig has no current-context and --kube-api-url is not set'
        : `fail to create kubernetes config: "${text}" is not the URL of an API server`,
      { hint: 'Give the API server as https://host:port.' },
    );
  }
  url.pathname = url.pathname.replace(/\/+$/, '');
  return url;
}

/** Tokens, certificates and an exec plugin, over node:https alone. */
class FileAccess implements KubeAccess {
  readonly server: URL;
  readonly #identity: Identity;
  #agent: { readonly key: string; readonly agent: HttpAgent } | undefined;
  #credential: ExecCredential | undefined;

  constructor(server: URL, identity: Identity) {
    this.server = server;
    this.#identity = identity;
  }

  async prepare(signal: AbortSignal): Promise<PreparedRequest> {
    const { caFile, caData, certFile, certData, keyFile, keyData } = this.#identity;
    const [ca, cert, key] = await Promise.all([
      contentOf(caFile, caData),
      contentOf(certFile, certData),
      contentOf(keyFile, keyData),
    ]);
    const exec = await this.#execCredential(ca, signal);
    return {
      agent: this.#agentFor(ca, exec?.cert ?? cert, exec?.key ?? key),
      headers: { ...this.#identity.impersonation, ...(await this.#authorization(exec)) },
    };
  }

  forgetCredentials(): void {
    this.#credential = undefined;
  }

  dropIdleConnections(): void {
    for (const sockets of Object.values(this.#agent?.agent.freeSockets ?? {})) {
      for (const socket of sockets ?? []) socket.destroy();
    }
  }

  [Symbol.dispose](): void {
    this.#agent?.agent.destroy();
    this.#agent = undefined;
  }

  async #authorization(exec: ExecCredential | undefined): Promise<Record<string, string>> {
    const { token, tokenFile, username, password } = this.#identity;
    const bearer = exec?.token ?? (tokenFile === undefined ? token : (await contentOf(tokenFile, undefined))?.trim());
    if (bearer) return { Authorization: `Bearer ${bearer}` };
    if (username === undefined) return {};
    return { Authorization: `Basic ${Buffer.from(`${username}:${password ?? ''}`).toString('base64')}` };
  }

  async #execCredential(ca: string | undefined, signal: AbortSignal): Promise<ExecCredential | undefined> {
    const { exec, tlsServerName, skipTlsVerify, proxyUrl } = this.#identity;
    if (exec === undefined) return undefined;
    const expiresAtMs = this.#credential?.expiresAtMs;
    if (expiresAtMs !== undefined && expiresAtMs - EXPIRY_MARGIN_MS <= Date.now()) this.#credential = undefined;
    const caData = ca === undefined ? undefined : Buffer.from(ca).toString('base64');
    const info = { server: this.server.href.replace(/\/$/, ''), tlsServerName, skipTlsVerify, caData, proxyUrl };
    this.#credential ??= await runExecPlugin(exec, info, signal);
    return this.#credential;
  }

  /** One agent, so that requests share connections, until a certificate changes. */
  #agentFor(ca: string | undefined, cert: string | undefined, clientKey: string | undefined): HttpAgent {
    const key = JSON.stringify([ca, cert, clientKey]);
    if (this.#agent?.key === key) return this.#agent.agent;
    const { skipTlsVerify, tlsServerName, proxyUrl } = this.#identity;
    const options = {
      keepAlive: true,
      keepAliveMsecs: 30_000,
      // Closes connections that nobody uses: one that died unseen would cost the next request its whole time-out.
      timeout: 20_000,
      ...(proxyUrl === undefined ? {} : { proxyEnv: { HTTPS_PROXY: proxyUrl, HTTP_PROXY: proxyUrl } }),
    };
    const agent =
      this.server.protocol === 'http:'
        ? new HttpAgent(options)
        : new HttpsAgent({
            ...options,
            ...(ca === undefined ? {} : { ca }),
            ...(cert === undefined ? {} : { cert }),
            ...(clientKey === undefined ? {} : { key: clientKey }),
            ...(skipTlsVerify ? { rejectUnauthorized: false } : {}),
            ...(tlsServerName === undefined ? {} : { servername: tlsServerName }),
          });
    // The old agent is left to finish what it carries (a watch stays authenticated as it was opened).
    this.#agent = { key, agent };
    return agent;
  }
}

async function contentOf(file: string | undefined, base64: string | undefined): Promise<string | undefined> {
  if (file === undefined) return base64 === undefined ? undefined : Buffer.from(base64, 'base64').toString('utf8');
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new WeftError('WEFT_KUBE_CONFIG', `could not read ${file} for the connection to the Kubernetes API`, {
      cause: error,
      hint: `${error instanceof Error ? error.message : error}. Check the paths in the kubeconfig.`,
    });
  }
}

/** auth-provider users (oidc, …) and SOCKS proxies: the client library does them, at the price of loading all of it. */
async function libraryAccess(file: string, server: URL, proxyUrl: string | undefined): Promise<KubeAccess> {
  const { KubeConfig } = await import('@kubernetes/client-node/dist/config.js');
  const config = new KubeConfig();
  if (file !== '') config.loadFromFile(file);
  const cluster = config.getCurrentCluster();
  const user = config.getCurrentUser();
  const base = server.href.replace(/\/$/, '');
  config.loadFromClusterAndUser(
    {
      skipTLSVerify: false,
      ...cluster,
      name: 'cluster',
      server: base,
      ...(proxyUrl === undefined ? {} : { proxyUrl }),
    },
    { ...user, name: 'user' },
  );
  return {
    server,
    async prepare() {
      const options: Parameters<typeof config.applyToHTTPSOptions>[0] = { headers: {} };
      await config.applyToHTTPSOptions(options);
      if (!(options.agent instanceof HttpAgent)) throw new Error('the client library gave no agent');
      return { agent: options.agent, headers: options.headers as Record<string, string> };
    },
    forgetCredentials() {},
    dropIdleConnections() {},
    [Symbol.dispose]() {},
  };
}
