import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { load, loadAll } from 'js-yaml';
import { IMAGE_DEFAULTS, type ImageRoot, imageLabels } from '../scripts/packaging/image-root.ts';
import { backendKind } from '../src/backend/registry.ts';
import { FLANNEL_CONF_LIST, parseConfList, programsOf } from '../src/cni/conf-list.ts';
import { parseFlanneldOptions } from '../src/config/flanneld-options.ts';
import { inspectNetConf } from '../src/config/net-conf.ts';
import { tunRemedy } from '../src/config/tun-remedy.ts';
import { run } from '../src/linux/run.ts';

interface Container {
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly args?: readonly string[];
  readonly securityContext?: SecurityContext;
  readonly livenessProbe?: { readonly httpGet: { readonly host?: string } };
  readonly readinessProbe?: { readonly httpGet: { readonly host?: string } };
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
}

interface SecurityContext {
  readonly privileged?: boolean;
  readonly allowPrivilegeEscalation?: boolean;
  readonly readOnlyRootFilesystem?: boolean;
  readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
}

interface Pod {
  readonly securityContext?: { readonly seccompProfile?: { readonly type: string } };
  readonly initContainers: readonly Container[];
  readonly containers: readonly Container[];
  readonly volumes: readonly { readonly name: string }[];
}

interface Manifest {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly data?: Readonly<Record<string, string>>;
  readonly spec?: { readonly template: { readonly spec: Pod } };
}

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8');
const version = (JSON.parse(read('package.json')) as { version: string }).version;

describe('deploy/kube-flannel.yml', () => {
  const objects = loadAll(read('deploy/kube-flannel.yml')) as Manifest[];
  const named = (kind: string): Manifest => objects.find((object) => object.kind === kind)!;
  const { initContainers, containers, volumes } = named('DaemonSet').spec!.template.spec;
  const agent = containers[0]!;
  const data = named('ConfigMap').data!;

  it('has the objects and names of flannel, which scripts and people know', () => {
    assert.deepEqual(
      objects.map(({ kind, metadata: { namespace, name } }) => `${kind} ${namespace ?? '-'} ${name}`),
      [
        'Namespace - kube-flannel',
        'ServiceAccount kube-flannel flannel',
        'ClusterRole - flannel',
        'ClusterRoleBinding - flannel',
        'ConfigMap kube-flannel kube-flannel-cfg',
        'DaemonSet kube-flannel kube-flannel-ds',
      ],
    );
    assert.deepEqual(Object.keys(data), ['cni-conf.json', 'net-conf.json']);
  });

  it('configures a network that the agent takes without a word', () => {
    const { config, problems, ignoredKeys, warnings } = inspectNetConf(data['net-conf.json']!, {
      validation: 'kube',
      backends: backendKind,
    });
    assert.deepEqual({ problems, ignoredKeys, warnings }, { problems: [], ignoredKeys: [], warnings: [] });
    assert.equal(config?.backend.type, 'udp');
    const plugins = programsOf(parseConfList(data['cni-conf.json']!, 'cni-conf.json'), false);
    assert.deepEqual(plugins, ['bridge', 'host-local', 'portmap']);
  });

  it('has the CNI configuration of flannel 0.28.10', () => {
    const { cniVersion, name, plugins } = JSON.parse(data['cni-conf.json']!);
    assert.deepEqual(
      { cniVersion, name, plugins },
      {
        cniVersion: '1.0.0',
        name: 'cbr0',
        plugins: [
          { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true } },
          { type: 'portmap', capabilities: { portMappings: true } },
        ],
      },
    );
    assert.match(read('deploy/helm/flannel/values.yaml'), /"cniVersion": "1\.0\.0"/);
    assert.equal(FLANNEL_CONF_LIST.cniVersion, cniVersion);
  });

  it('starts the agent with flags it has', () => {
    const parsed = parseFlanneldOptions(agent.args!, { NODE_NAME: 'n1' });
    assert.equal(parsed.kind, 'run');
    assert.deepEqual(parsed.warnings, []);
    assert.equal(parsed.options.subnetManager, 'kube');
    assert.equal(parsed.options.cniConfDir, '/etc/cni/net.d');
  });

  it('mounts the TUN device as the agent says one must, and is not privileged', () => {
    const said = [...tunRemedy('missing', true).matchAll(/`- (\{.*?\})`/g)].map((match) => load(match[1]!));
    const [volume, mount] = said as [{ name: string; hostPath: { path: string } }, Container['volumeMounts'][0]];
    const { name, hostPath } = volumes.find(({ name: found }) => found === volume.name) as typeof volume;
    assert.deepEqual({ name, path: hostPath.path }, { name: volume.name, path: volume.hostPath.path });
    assert.deepEqual(
      agent.volumeMounts.find((found) => found.name === mount.name),
      mount,
    );
    assert.notEqual(agent.securityContext?.privileged, true);
  });

  it('gives every container what it needs and nothing else', () => {
    const hardened = (add: readonly string[]): SecurityContext => ({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'], add },
    });
    assert.deepEqual(named('DaemonSet').spec!.template.spec.securityContext, {
      seccompProfile: { type: 'RuntimeDefault' },
    });
    assert.deepEqual(
      Object.fromEntries(
        [...initContainers, ...containers].map(({ name, securityContext }) => [name, securityContext]),
      ),
      {
        'install-cni-plugin': hardened(['DAC_OVERRIDE', 'MKNOD']),
        'kube-flannel': hardened(['NET_ADMIN', 'NET_RAW', 'DAC_OVERRIDE']),
      },
    );
  });

  it('shows health and metrics to the node alone, where kubelet asks for them', () => {
    const parsed = parseFlanneldOptions(agent.args!, { NODE_NAME: 'n1' });
    assert.ok(parsed.kind === 'run');
    assert.equal(parsed.options.healthzIp, '127.0.0.1');
    for (const probe of [agent.livenessProbe, agent.readinessProbe]) assert.equal(probe?.httpGet.host, '127.0.0.1');
  });

  it('has each volume that is mounted, and mounts each it has', () => {
    const mounted = [...initContainers, ...containers].flatMap(({ volumeMounts }) =>
      volumeMounts.map(({ name }) => name),
    );
    assert.deepEqual([...new Set(mounted)].sort(), volumes.map(({ name }) => name).sort());
  });

  it('takes the image of this version, as make image names it', () => {
    for (const { image } of [...initContainers, ...containers]) assert.equal(image, `localhost/weft:${version}`);
  });
});

it('deploy/fast-path-check.yml tries with the image, capabilities and seccomp profile of the agent, and has nothing of the host', () => {
  const [{ spec }] = loadAll(read('deploy/fast-path-check.yml')) as [Manifest];
  const pod = spec!.template.spec;
  const [container] = pod.containers;
  assert.equal(container!.image, `localhost/weft:${version}`);
  assert.deepEqual(pod.securityContext, { seccompProfile: { type: 'RuntimeDefault' } });
  assert.deepEqual(container!.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'BPF'] },
  });
  assert.deepEqual([pod.volumes, Reflect.get(pod, 'hostNetwork')], [undefined, undefined]);
});

it('the systemd unit shows options that the agent has, for its API as well', () => {
  const unit = read('deploy/systemd/weft-flanneld.service');
  const shown = [...unit.matchAll(/^# {3}(FLANNELD_\w+)=(.*)$/gm)].map(([, name, value]) => [name!, value!]);
  const { FLANNELD_OPTIONS: flags, ...variables } = Object.fromEntries(shown) as Record<string, string>;
  const parsed = parseFlanneldOptions(flags!.split(' '), { NODE_NAME: 'n1', ...variables });
  assert.ok(parsed.kind === 'run');
  assert.deepEqual(parsed.warnings, []);
  const { apiListen, ipMasq } = parsed.options;
  assert.deepEqual(apiListen, { address: '192.0.2.1', port: 8287, tokenFile: '/etc/weft/token' });
  assert.equal(ipMasq, true);
});

it('the Helm chart is of this version', () => {
  const chart = load(read('deploy/helm/flannel/Chart.yaml')) as { version: string; appVersion: string };
  assert.deepEqual([chart.version, chart.appVersion], [version, version]);
});

it('the network for kind is that of the manifest', () => {
  const { networking } = load(read('deploy/kind/cluster.yaml')) as {
    networking: { disableDefaultCNI: boolean; podSubnet: string };
  };
  assert.deepEqual(networking, { disableDefaultCNI: true, podSubnet: '10.244.0.0/16' });
});

it('the Dockerfile takes what make image makes, and says how it starts', () => {
  const dockerfile = read('deploy/image/Dockerfile').split(/^(?=FROM scratch$)/m)[1]!;
  const [env, entrypoint] = [/^ENV (.*)$/m, /^ENTRYPOINT (.*)$/m].map((pattern) => pattern.exec(dockerfile)![1]!);
  assert.deepEqual([env], IMAGE_DEFAULTS.Env);
  assert.deepEqual(JSON.parse(entrypoint!), IMAGE_DEFAULTS.Entrypoint);
  const labels = [...dockerfile.matchAll(/^(?:LABEL| {5}) (org\.[\w.]+)="(.*?)"/gm)].map(([, key, value]) => [
    key!,
    value!,
  ]);
  assert.deepEqual(Object.fromEntries(labels), imageLabels(version));
  const copied = [...dockerfile.matchAll(/^COPY --from=build \/src\/dist\/image-\$TARGETARCH\/(\w+)\/ \/$/gm)];
  assert.deepEqual(
    copied.map((match) => match[1]),
    ['debian', 'weft'] satisfies (keyof ImageRoot)[],
  );
});

it('whatever is said to build or load the image gives it the name that the manifest wants', () => {
  const wanted = `localhost/weft:${version}`;
  for (const path of ['deploy/image/Dockerfile', 'docs/INSTALL.md', 'docs/MIGRATION.md', 'README.md']) {
    const text = read(path);
    for (const [command, name] of text.matchAll(/docker build\b[^\n`]* -t (\S+)[^\n]*/g))
      assert.equal(name, wanted, `${path}: ${command}`);
    for (const [, tag] of text.matchAll(/localhost\/weft:(\S+)/g)) assert.equal(tag, version, path);
  }
});

it('the manifest says how often its image is named', () => {
  const text = read('deploy/kube-flannel.yml');
  const times = { 1: 'once', 2: 'twice', 3: 'three times' }[[...text.matchAll(/^ +image: /gm)].length];
  assert.match(text, new RegExp(`.image. below, ${times};`));
});

describe('the Dockerfile behind a proxy that inspects TLS', () => {
  const dockerfile = read('deploy/image/Dockerfile').replaceAll('\\\n', '');
  const steps = [...dockerfile.matchAll(/^RUN (?!make )(.*)$/gm)].map((match) => match[1]!);

  /** The steps before the build as they are, but for its paths and the programs that change the system, which only say that they were called. */
  async function runInstall(ca: string): Promise<{ said: string; certificate: string }> {
    const folder = mkdtempSync(join(tmpdir(), 'weft-dockerfile-'));
    try {
      mkdirSync(join(folder, 'ca'));
      const stubs = 'apt-get() { echo "apt-get $1"; }; update-ca-certificates() { echo update-ca-certificates; }\n';
      const script = stubs + steps.join('\n').replaceAll('/usr/local/share/ca-certificates', join(folder, 'ca'));
      // bash, for names of functions with a dash.
      const { stdout: said } = await run(['bash', '-ec', script], { env: { CA: ca } });
      const path = join(folder, 'ca/build-proxy.crt');
      return { said, certificate: existsSync(path) ? readFileSync(path, 'utf8') : '' };
    } finally {
      rmSync(folder, { recursive: true });
    }
  }

  it('trusts the authority it is given, for everything that the build fetches', async () => {
    const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----';
    assert.deepEqual(await runInstall(pem), {
      said: 'apt-get update\napt-get install\nupdate-ca-certificates\n',
      certificate: `${pem}\n`,
    });
    assert.deepEqual(await runInstall(''), { said: 'apt-get update\napt-get install\n', certificate: '' });
    assert.match(dockerfile, /^ENV NODE_EXTRA_CA_CERTS=\/etc\/ssl\/certs\/ca-certificates\.crt$/m);
  });

  it('says so where the build fails', () => {
    assert.match(dockerfile, /^RUN make image .*\|\| \{.*--build-arg CA=.*exit 1; \}$/m);
  });
});

describe('deploy/systemd/weft-flanneld.service', () => {
  const lines = read('deploy/systemd/weft-flanneld.service').split('\n');
  const valuesOf = (key: string): string[] =>
    lines.filter((line) => line.startsWith(`${key}=`)).map((line) => line.slice(key.length + 1));

  it('lets the agent do what it has to and nothing else', () => {
    assert.deepEqual(valuesOf('CapabilityBoundingSet'), ['CAP_NET_ADMIN CAP_NET_RAW CAP_BPF CAP_NET_BIND_SERVICE']);
    assert.deepEqual(valuesOf('AmbientCapabilities'), []);
    assert.deepEqual(valuesOf('SystemCallFilter'), ['@system-service bpf']);
    assert.deepEqual(valuesOf('ProtectSystem'), ['strict']);
    assert.deepEqual(valuesOf('DeviceAllow'), ['/dev/net/tun rw']);
    const switches =
      'NoNewPrivileges PrivateTmp ProtectClock ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectControlGroups ' +
      'RestrictNamespaces RestrictSUIDSGID RestrictRealtime LockPersonality';
    for (const key of switches.split(' ')) assert.deepEqual(valuesOf(key), ['yes'], key);
  });

  it('lets it write where it writes by default', () => {
    const parsed = parseFlanneldOptions(['--kube-subnet-mgr', '--cni-conf-dir=/etc/cni/net.d'], { NODE_NAME: 'n1' });
    assert.ok(parsed.kind === 'run');
    const { subnetFile, localStore, cniConfDir } = parsed.options;
    const writable = [
      ...valuesOf('ReadWritePaths').flatMap((value) => value.split(' ').map((path) => path.replace(/^-/, ''))),
      ...valuesOf('StateDirectory').map((name) => `/var/lib/${name}`),
      ...valuesOf('RuntimeDirectory').map((name) => `/run/${name}`),
    ];
    for (const path of [subnetFile, localStore, cniConfDir!, '/run/xtables.lock']) {
      assert.ok(
        writable.some((folder) => path === folder || path.startsWith(`${folder}/`)),
        path,
      );
    }
  });
});
