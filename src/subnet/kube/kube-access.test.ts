import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { FakeKubeApi } from '../../../test/fakes/fake-kube-api.ts';
import { CertificateAuthority, type KeyPair } from '../../lab/servers/certs.ts';
import type { SubnetReport } from '../report.ts';
import { type KubeAccessOptions, loadKubeAccess } from './kube-access.ts';
import { KubeApi } from './kube-api.ts';
import { proxyFromEnvironment } from './proxy.ts';

let dir: string;
let ca: CertificateAuthority;
let server: KeyPair;
let client: KeyPair;
const { signal } = new AbortController();

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'weft-access-'));
  ca = await CertificateAuthority.create(join(dir, 'pki'), 'private CA');
  server = await ca.issueServer('api', ['127.0.0.1', 'kubernetes.default.svc']);
  client = await ca.issueClient('flannel-client');
});
after(() => rm(dir, { recursive: true, force: true }));

function secure(): Promise<FakeKubeApi> {
  return FakeKubeApi.start({ tls: { ...server, clientCaFile: ca.certFile } });
}

/** Writes a kubeconfig into the folder; its name is returned. */
async function kubeconfig(fake: FakeKubeApi, user: object, cluster: object = {}): Promise<string> {
  const file = join(dir, `${Math.random()}.kubeconfig`);
  const caData = (await readFile(ca.certFile)).toString('base64');
  const config = {
    clusters: [
      { name: 'other', cluster: { server: 'https://192.0.2.1' } },
      { name: 'c', cluster: { server: fake.url, 'certificate-authority-data': caData, ...cluster } },
    ],
    users: [{ name: 'u', user }],
    contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
    'current-context': 'x',
  };
  await writeFile(file, JSON.stringify(config));
  return file;
}

async function open(
  options: Partial<KubeAccessOptions>,
  report: (report: SubnetReport) => void = () => {},
): Promise<KubeApi> {
  return new KubeApi(
    await loadKubeAccess({ kubeconfigFile: '', apiUrl: '', env: {}, ...options }, report),
    'flanneld/test',
  );
}

async function ask(api: KubeApi): Promise<void> {
  await api.json({ method: 'GET', path: '/api/v1/nodes' }, signal);
}

describe('a kubeconfig', () => {
  test('with a token and a private CA', async () => {
    await using fake = await secure();
    fake.tokens = new Set(['secret']);
    using api = await open({ kubeconfigFile: await kubeconfig(fake, { token: 'secret' }) });
    await ask(api);
    assert.equal(fake.requests[0]?.authorization, 'Bearer secret');
    using wrong = await open({ kubeconfigFile: await kubeconfig(fake, { token: 'wrong' }) });
    await assert.rejects(ask(wrong), { name: 'ApiStatusError', status: 401 });
  });

  test('without the private CA is not trusted, unless told to be', async () => {
    await using fake = await secure();
    const none = { 'certificate-authority-data': undefined };
    using api = await open({ kubeconfigFile: await kubeconfig(fake, {}, none) });
    await assert.rejects(ask(api), { name: 'ApiConnectionError', message: /certificate/ });
    const insecure = { ...none, 'insecure-skip-tls-verify': true };
    using careless = await open({ kubeconfigFile: await kubeconfig(fake, {}, insecure) });
    await ask(careless);
  });

  test('with a CA file beside it, and the name that the certificate is for', async () => {
    await using fake = await secure();
    const cluster = { 'certificate-authority-data': undefined, 'certificate-authority': 'pki/ca.crt' };
    const named = { ...cluster, 'tls-server-name': 'kubernetes.default.svc' };
    using api = await open({ kubeconfigFile: await kubeconfig(fake, {}, named) });
    await ask(api);
    const misnamed = { ...cluster, 'tls-server-name': 'elsewhere.example' };
    using other = await open({ kubeconfigFile: await kubeconfig(fake, {}, misnamed) });
    await assert.rejects(ask(other), { name: 'ApiConnectionError', message: /elsewhere\.example/ });
  });

  test('with a client certificate, which is used anew when its files change', async () => {
    await using fake = await secure();
    const file = join(dir, 'rotating.crt');
    const key = join(dir, 'rotating.key');
    const install = async (pair: KeyPair): Promise<void> => {
      await writeFile(file, await readFile(pair.certFile));
      await writeFile(key, await readFile(pair.keyFile));
    };
    await install(client);
    const user = { 'client-certificate': 'rotating.crt', 'client-key': 'rotating.key' };
    using api = await open({ kubeconfigFile: await kubeconfig(fake, user) });
    await ask(api);
    await install(await ca.issueClient('its-successor'));
    await ask(api);
    assert.deepEqual(
      fake.requests.map(({ clientName }) => clientName),
      ['flannel-client', 'its-successor'],
    );
  });

  test('with a token file, which is read anew for every request', async () => {
    await using fake = await secure();
    await writeFile(join(dir, 'token-file'), 'first\n');
    using api = await open({ kubeconfigFile: await kubeconfig(fake, { tokenFile: 'token-file', token: 'unused' }) });
    fake.tokens = new Set(['first']);
    await ask(api);
    await writeFile(join(dir, 'token-file'), 'second\n');
    fake.tokens = new Set(['second']);
    await ask(api);
  });

  test('with user name and password, and impersonation', async () => {
    await using fake = await secure();
    const seen: (string | string[] | undefined)[] = [];
    fake.override = () => undefined;
    const user = {
      username: 'u',
      password: 'p',
      as: 'system:flannel',
      'as-groups': ['a', 'b'],
      'as-user-extra': { 'x/y': ['1'] },
    };
    const access = await loadKubeAccess(
      { kubeconfigFile: await kubeconfig(fake, user), apiUrl: '', env: {} },
      () => {},
    );
    const { headers } = await access.prepare(signal);
    seen.push(
      headers.Authorization,
      headers['Impersonate-User'],
      headers['Impersonate-Group'],
      headers['Impersonate-Extra-x%2Fy'],
    );
    assert.deepEqual(seen, ['Basic dTpw', 'system:flannel', ['a', 'b'], ['1']]);
    access[Symbol.dispose]();
  });

  test('whose server another URL replaces', async () => {
    await using fake = await secure();
    fake.tokens = new Set(['secret']);
    const file = await kubeconfig(fake, { token: 'secret' }, { server: 'https://192.0.2.1:6443' });
    using api = await open({ kubeconfigFile: file, apiUrl: fake.url });
    await ask(api);
    using bare = await open({ kubeconfigFile: file, apiUrl: `127.0.0.1:${fake.port}` });
    await ask(bare);
  });

  test('with an auth-provider is left to the client library', async () => {
    await using fake = await secure();
    const payload = Buffer.from(JSON.stringify({ exp: Date.now() / 1_000 + 3_600 })).toString('base64url');
    const idToken = `e30.${payload}.signature`;
    const provider = {
      name: 'oidc',
      config: { 'id-token': idToken, 'client-id': 'c', 'idp-issuer-url': 'https://192.0.2.1' },
    };
    using api = await open({ kubeconfigFile: await kubeconfig(fake, { 'auth-provider': provider }) });
    await ask(api);
    assert.equal(fake.requests[0]?.authorization, `Bearer ${idToken}`);
  });

  test('that cannot be used says why', async () => {
    await using fake = await secure();
    const text = async (content: string): Promise<string> => {
      const file = join(dir, 'bad.kubeconfig');
      await writeFile(file, content);
      return file;
    };
    const broken: [string, RegExp][] = [
      [join(dir, 'absent'), /absent.*ENOENT/],
      [await text('{"current-context": "none"}'), /context was not found for specified context: none/],
    ];
    for (const [file, message] of broken) {
      await assert.rejects(open({ kubeconfigFile: file }), { code: 'WEFT_KUBE_CONFIG', message });
    }
    await assert.rejects(open({ kubeconfigFile: await text(': : :') }), { code: 'WEFT_KUBE_CONFIG' });
    await assert.rejects(open({ kubeconfigFile: await text('{}') }), {
      code: 'WEFT_KUBE_CONFIG',
      message: /no API server is configured/,
    });
    const terminal = { exec: { command: 'x', interactiveMode: 'Always' } };
    await assert.rejects(open({ kubeconfigFile: await kubeconfig(fake, terminal) }), { message: /wants a terminal/ });
    using api = await open({ kubeconfigFile: await kubeconfig(fake, { tokenFile: 'gone' }) });
    await assert.rejects(ask(api), { code: 'WEFT_KUBE_CONFIG', message: /could not read .*gone/ });
  });
});

describe('an exec plugin', () => {
  const V1 = 'client.authentication.k8s.io/v1';

  /** Prints the ExecCredential that `credential.json` holds, and notes what it was told. */
  async function plugin(name: string, status: object, apiVersion = V1): Promise<object> {
    await writeFile(join(dir, `${name}.json`), JSON.stringify({ apiVersion, kind: 'ExecCredential', status }));
    const script = `const fs=require('node:fs');fs.appendFileSync('${join(dir, name)}.log',process.env.KUBERNETES_EXEC_INFO+'\\n');process.stdout.write(fs.readFileSync('${join(dir, name)}.json'))`;
    return {
      apiVersion: V1,
      command: process.execPath,
      args: ['-e', script],
      env: [{ name: 'A', value: 'b' }],
      provideClusterInfo: true,
    };
  }

  async function told(
    name: string,
  ): Promise<{ kind: string; spec: { interactive: boolean; cluster: { server: string } } }[]> {
    return (await readFile(join(dir, `${name}.log`), 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  }

  test('gives a token that lasts until it is refused or expires', async () => {
    await using fake = await secure();
    fake.tokens = new Set(['one']);
    const exec = await plugin('token', { token: 'one' });
    using api = await open({ kubeconfigFile: await kubeconfig(fake, { exec }) });
    await ask(api);
    await ask(api);
    assert.equal((await told('token')).length, 1);
    const [info] = await told('token');
    assert.equal(info?.kind, 'ExecCredential');
    assert.equal(info.spec.interactive, false);
    assert.equal(info.spec.cluster.server, fake.url);
    // Rotated before its time: the first answer is 401, the second is ours.
    fake.tokens = new Set(['two']);
    const expired = new Date(Date.now() + 5_000).toISOString();
    await plugin('token', { token: 'two', expirationTimestamp: expired });
    await ask(api);
    assert.equal((await told('token')).length, 2);
    // It would expire in a moment: it is asked again.
    await ask(api);
    assert.equal((await told('token')).length, 3);
  });

  test('gives a client certificate', async () => {
    await using fake = await secure();
    const clientCertificateData = await readFile(client.certFile, 'utf8');
    const clientKeyData = await readFile(client.keyFile, 'utf8');
    const exec = await plugin('certificate', { clientCertificateData, clientKeyData });
    using api = await open({ kubeconfigFile: await kubeconfig(fake, { exec }) });
    await ask(api);
    assert.equal(fake.requests[0]?.clientName, 'flannel-client');
  });

  test('that fails is named, with its hint', async () => {
    await using fake = await secure();
    const failing = async (exec: object, message: RegExp): Promise<void> => {
      using api = await open({ kubeconfigFile: await kubeconfig(fake, { exec: { installHint: 'get it', ...exec } }) });
      await assert.rejects(ask(api), { code: 'WEFT_KUBE_CONFIG', message, hint: 'get it' });
    };
    await failing({ apiVersion: V1, command: 'no-such-plugin' }, /exec: no-such-plugin: .*no such program/);
    await failing({ apiVersion: V1, command: 'false' }, /exec: false: .*exit code 1/);
    await failing({ apiVersion: V1, command: 'true' }, /did not print JSON/);
    await failing(await plugin('empty', {}), /neither a token nor a client certificate/);
    await failing(
      await plugin('old', { token: 'x' }, 'client.authentication.k8s.io/v1beta1'),
      /did not print an ExecCredential of/,
    );
  });
});

describe('inside a pod', () => {
  test('the service account is used, with its token as it is now', async () => {
    await using fake = await secure();
    await writeFile(join(dir, 'token'), 'pod-token');
    await writeFile(join(dir, 'ca.crt'), await readFile(ca.certFile));
    const reports: SubnetReport[] = [];
    const env = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: String(fake.port) };
    using api = await open({ env, serviceAccountDir: dir }, (report) => reports.push(report));
    fake.tokens = new Set(['pod-token']);
    await ask(api);
    fake.tokens = new Set(['rotated']);
    await writeFile(join(dir, 'token'), 'rotated');
    await ask(api);
    assert.ok(reports.some((report) => report.type === 'note' && /Using the inClusterConfig/.test(report.text)));
  });

  test('without a service account, or outside a pod, it is an error', async () => {
    await assert.rejects(open({}), {
      code: 'WEFT_KUBE_CONFIG',
      message: /KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined/,
    });
    const env = { KUBERNETES_SERVICE_HOST: '127.0.0.1', KUBERNETES_SERVICE_PORT: '1' };
    await assert.rejects(open({ env, serviceAccountDir: join(dir, 'nowhere') }), {
      code: 'WEFT_KUBE_CONFIG',
      message: /ENOENT/,
    });
  });
});

describe('proxies', () => {
  test('requests go through the one of the environment', async () => {
    await using fake = await secure();
    const targets: string[] = [];
    const proxy = createServer();
    proxy.on('connect', (request, socket, head) => {
      targets.push(request.url ?? '');
      const upstream = connect(fake.port, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        upstream.write(head);
        upstream.pipe(socket).pipe(upstream);
      });
      upstream.on('error', () => socket.destroy());
      socket.on('error', () => upstream.destroy());
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    try {
      const file = await kubeconfig(fake, {}, { server: 'https://kubernetes.default.svc:6443' });
      const env = { HTTPS_PROXY: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}` };
      using api = await open({ kubeconfigFile: file, env });
      await ask(api);
      assert.deepEqual(targets, ['kubernetes.default.svc:6443']);
    } finally {
      proxy.close();
      proxy.closeAllConnections();
    }
  });

  test('NO_PROXY has the meaning that Go gives it', () => {
    const proxy = 'http://proxy:3128';
    const through = (server: string, noProxy: string) =>
      proxyFromEnvironment(new URL(server), { HTTPS_PROXY: proxy, NO_PROXY: noProxy });
    for (const noProxy of ['', '10.97.0.0/16', '10.96.0.2', 'example.com', '10.96.0.1:6443', 'fd00::/8']) {
      assert.equal(through('https://10.96.0.1', noProxy), proxy, noProxy);
    }
    for (const noProxy of ['*', '10.96.0.0/16', 'x, 10.96.0.1', '10.96.0.1:443']) {
      assert.equal(through('https://10.96.0.1', noProxy), undefined, noProxy);
    }
    assert.equal(through('https://[fd10::1]:6443', 'fd10::/64'), undefined);
    assert.equal(through('https://[fd10::1]:6443', '[fd10::1]:6443'), undefined);
    assert.equal(through('https://[fd10::1]:6443', 'fd10::2'), proxy);
    assert.equal(through('https://api.example.com', 'example.com'), undefined);
    assert.equal(through('https://example.com', 'example.com'), undefined);
    assert.equal(through('https://api.example.com', '.example.com'), undefined);
    assert.equal(through('https://api.example.com', '*.example.com'), undefined);
    assert.equal(through('https://example.com', '.example.com'), proxy);
    assert.equal(through('https://anexample.com', 'example.com'), proxy);
    for (const local of ['https://localhost', 'https://127.0.0.1:6443', 'https://[::1]'])
      assert.equal(through(local, ''), undefined);
    assert.equal(proxyFromEnvironment(new URL('http://api'), { HTTPS_PROXY: proxy }), undefined);
    assert.equal(proxyFromEnvironment(new URL('http://api'), { http_proxy: 'proxy:1' }), 'http://proxy:1');
  });
});
