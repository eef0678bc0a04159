import { readFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
// Not the package's entry point: that one loads every generated API model, 80 MiB of resident memory against 1 for this
// file. What needs the whole of it (auth-provider users, SOCKS proxies) loads it on demand, in kube-access.ts.
import { newClusters, newContexts, newUsers } from '@kubernetes/client-node/dist/config_types.js';
import { load } from 'js-yaml';
import { WeftError } from '../../errors.ts';
import { firstInvisible } from '../../invisible.ts';
import { checkKubeconfigTypes, KUBECONFIG_SCHEMA } from './kubeconfig-types.ts';

/** A kubeconfig's `users[].user.exec` (client.authentication.k8s.io). */
export interface ExecPlugin {
  readonly apiVersion: string;
  /** Absolute, or a bare name to be found in the PATH. */
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly provideClusterInfo: boolean;
  readonly installHint: string | undefined;
}

/** The cluster and user of a kubeconfig's current context; every path in it is absolute. */
export interface KubeconfigContext {
  /** Empty when the file names no cluster; then `--kube-api-url` must. */
  readonly server: string;
  readonly caFile: string | undefined;
  readonly caData: string | undefined;
  readonly tlsServerName: string | undefined;
  readonly skipTlsVerify: boolean;
  readonly proxyUrl: string | undefined;
  readonly token: string | undefined;
  /** Read again for every request; wins over `token`. */
  readonly tokenFile: string | undefined;
  readonly certFile: string | undefined;
  readonly certData: string | undefined;
  readonly keyFile: string | undefined;
  readonly keyData: string | undefined;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly impersonation: Readonly<Record<string, string | string[]>>;
  readonly exec: ExecPlugin | undefined;
  /** `auth-provider`, e.g. oidc: left to the client library. */
  readonly authProvider: string | undefined;
}

const NO_CONTEXT: KubeconfigContext = {
  server: '',
  caFile: undefined,
  caData: undefined,
  tlsServerName: undefined,
  skipTlsVerify: false,
  proxyUrl: undefined,
  token: undefined,
  tokenFile: undefined,
  certFile: undefined,
  certData: undefined,
  keyFile: undefined,
  keyData: undefined,
  username: undefined,
  password: undefined,
  impersonation: {},
  exec: undefined,
  authProvider: undefined,
};

/**
 * Reads a kubeconfig file. Its relative paths count from the folder it lies in. A file without a current context gives
 * an empty context, as client-go does.
 *
 * @throws WeftError WEFT_KUBE_CONFIG.
 */
export async function readKubeconfig(file: string): Promise<KubeconfigContext> {
  const invalid = (what: string, cause?: unknown): WeftError =>
    new WeftError(
      'WEFT_KUBE_CONFIG',
      `fail to create kubernetes config: error loading config file "${file}": ${what}`,
      {
        hint: 'Correct --kubeconfig-file, or leave it out inside a pod to use its service account.',
        cause,
      },
    );
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error), error);
  }
  try {
    const document = load(text, { schema: KUBECONFIG_SCHEMA });
    checkKubeconfigTypes(document);
    return currentContext(document, dirname(resolve(file)));
  } catch (error) {
    const odd = firstInvisible(text.replace(/^\ufeff/, ''));
    const what = error instanceof Error ? error.message : String(error);
    throw invalid(odd === undefined ? what : `${what} (${odd})`, error);
  }
}

function currentContext(document: unknown, folder: string): KubeconfigContext {
  const config = mapping(document);
  const name = textOf(config['current-context']) ?? '';
  if (name === '') return NO_CONTEXT;
  const context = newContexts(config.contexts).find((one) => one.name === name);
  if (context === undefined) throw new Error(`context was not found for specified context: ${name}`);
  const cluster = newClusters(config.clusters).find((one) => one.name === context.cluster);
  if (cluster === undefined) throw new Error(`cluster "${context.cluster}" of context "${name}" does not exist`);
  const user = newUsers(config.users).find((one) => one.name === context.user);
  if (user === undefined && context.user) throw new Error(`user "${context.user}" of context "${name}" does not exist`);
  // What the library's own reader leaves out or gets wrong (it takes a token file once, from the working directory).
  const rawUsers = Array.isArray(config.users) ? config.users.map(mapping) : [];
  const raw = mapping(rawUsers.find((one) => one.name === context.user)?.user);
  const path = (value: string | null | undefined) => (value ? resolve(folder, value) : undefined);
  const provider = mapping(user?.authProvider);
  return {
    server: cluster.server,
    caFile: path(cluster.caFile),
    caData: cluster.caData || undefined,
    tlsServerName: cluster.tlsServerName || undefined,
    skipTlsVerify: cluster.skipTLSVerify,
    proxyUrl: cluster.proxyUrl || undefined,
    token: user?.token || undefined,
    tokenFile: path(textOf(raw.tokenFile)),
    certFile: path(user?.certFile),
    certData: user?.certData || undefined,
    keyFile: path(user?.keyFile),
    keyData: user?.keyData || undefined,
    username: user?.username || undefined,
    password: user?.password || undefined,
    impersonation: impersonationHeaders(raw),
    exec: user?.exec ? execPlugin(mapping(user.exec), folder) : undefined,
    authProvider: user?.authProvider ? (textOf(provider.name) ?? 'unnamed') : undefined,
  };
}

function impersonationHeaders(user: Record<string, unknown>): Record<string, string | string[]> {
  const headers: Record<string, string | string[]> = {};
  const name = textOf(user.as);
  if (name === undefined) return headers;
  headers['Impersonate-User'] = name;
  const uid = textOf(user['as-uid']);
  if (uid !== undefined) headers['Impersonate-Uid'] = uid;
  const groups = texts(user['as-groups']);
  if (groups.length > 0) headers['Impersonate-Group'] = groups;
  for (const [key, values] of Object.entries(mapping(user['as-user-extra']))) {
    headers[`Impersonate-Extra-${encodeURIComponent(key)}`] = texts(values);
  }
  return headers;
}

function execPlugin(exec: Record<string, unknown>, folder: string): ExecPlugin {
  const command = textOf(exec.command);
  if (command === undefined) throw new Error('the user has an exec section without a command');
  const apiVersion = textOf(exec.apiVersion) ?? 'client.authentication.k8s.io/v1';
  if (exec.interactiveMode === 'Always') {
    throw new Error(`the exec plugin ${command} wants a terminal (interactiveMode: Always); flanneld has none`);
  }
  const env = (Array.isArray(exec.env) ? exec.env.map(mapping) : []).map((one): [string, string] => [
    String(one.name),
    String(one.value ?? ''),
  ]);
  return {
    apiVersion,
    command: command.includes('/') ? resolve(folder, command) : command,
    args: texts(exec.args),
    env: Object.fromEntries(env),
    provideClusterInfo: exec.provideClusterInfo === true,
    installHint: textOf(exec.installHint),
  };
}

function mapping(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
