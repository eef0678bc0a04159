import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundlePlugin } from '../../scripts/packaging/bundle.ts';
import { parseConfList } from '../../src/cni/conf-list.ts';
import { renderConf, withoutWrapper } from '../../src/cni/final-conf.ts';
import { parsePluginSubnetEnv } from '../../src/cni/plugin-subnet-env.ts';
import { startAgent } from '../../src/lab/agent.ts';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import type { SubnetStore } from '../../src/lab/subnet-store.ts';
import { type LabContainer, type LabHost, Topology } from '../../src/lab/topology.ts';
import { type CniResult, CniRuntime } from './cni-runtime.ts';
import { Flanneld, localFlags } from './flanneld.ts';
import { NET_CONF, ping } from './overlay.ts';
import { eventually } from './waiting.ts';

const DEBIAN_PLUGINS = '/usr/lib/cni';
const LAUNCHER = fileURLToPath(new URL('../../bin/flannel', import.meta.url));
const golden = (name: string): string => readFileSync(new URL(`../golden/udp/${name}`, import.meta.url), 'utf8');
const signal = new AbortController().signal;

/** Where a host of the test keeps what a real one has below /etc, /opt and /var. */
const folders = (host: LabHost) => ({
  plugins: join(host.stateDirectory, 'opt-cni-bin'),
  conf: join(host.stateDirectory, 'net.d'),
  template: join(host.stateDirectory, 'cni-conf.json'),
  networks: join(host.stateDirectory, 'networks'),
  saved: join(host.stateDirectory, 'flannel'),
  subnetFile: join(host.stateDirectory, 'subnet.env'),
});

function templateOf(host: LabHost): object {
  const { networks } = folders(host);
  return {
    name: 'cbr0',
    cniVersion: '1.0.0',
    plugins: [
      { type: 'flannel', delegate: { hairpinMode: true, isDefaultGateway: true }, ipam: { dataDir: networks } },
      { type: 'portmap', capabilities: { portMappings: true } },
    ],
  };
}

/** What `make cni-plugin` makes, from the sources as they are now. */
async function installPlugins(host: LabHost): Promise<void> {
  const { plugins } = folders(host);
  mkdirSync(plugins, { recursive: true });
  const bundle = join(host.stateDirectory, 'flannel.cjs');
  await bundlePlugin(bundle, signal);
  symlinkSync(bundle, join(plugins, 'flannel'));
  for (const name of ['bridge', 'host-local', 'portmap']) {
    symlinkSync(join(DEBIAN_PLUGINS, name), join(plugins, name));
  }
}

/** Addresses that host-local has given out. */
function reserved(networks: string, network = 'cbr0'): string[] {
  const folder = join(networks, network);
  return existsSync(folder) ? readdirSync(folder).filter((name) => /^[\da-f.:]+$/.test(name)) : [];
}

const addressOf = (result: CniResult): string => result.ips[0]!.address.split('/')[0]!;

describe('pods of real CNI plugins', () => {
  let topology: Topology;
  let store: SubnetStore;
  let runtime: CniRuntime;
  let hosts: readonly [LabHost, LabHost];

  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 4, purpose: 'test' }, signal);
    store = await openSubnetStore('local', topology, NET_CONF, signal);
    hosts = [topology.hosts[0]!, topology.hosts[1]!];
    // The same on both hosts, apart from its place.
    for (const host of hosts) await installPlugins(host);
    runtime = new CniRuntime(topology, [folders(hosts[0]).plugins, DEBIAN_PLUGINS]);
    await Promise.all(
      hosts.map(async (host) => {
        const { conf, template } = folders(host);
        mkdirSync(conf);
        writeFileSync(template, JSON.stringify(templateOf(host)));
        const extraFlags = [`--cni-conf-dir=${conf}`, `--cni-conf-template=${template}`];
        await startAgent(topology, host, store, { extraFlags }, signal);
      }),
    );
  });
  after(() => topology?.[Symbol.asyncDispose]());

  const confOf = (host: LabHost): Promise<string> => readFile(join(folders(host).conf, '10-flannel.conflist'), 'utf8');
  /** What a runtime gives the plugin flannel of a template. */
  const flannelConfig = (host: LabHost, more: object = {}) => ({
    ...{ cniVersion: '1.0.0', name: 'cbr0', type: 'flannel' },
    ...{ subnetFile: folders(host).subnetFile, dataDir: folders(host).saved },
    delegate: { hairpinMode: true, isDefaultGateway: true },
    ipam: { dataDir: folders(host).networks },
    ...more,
  });
  const flannel = (command: string, config: object, pod: LabContainer, env?: Readonly<Record<string, string>>) =>
    runtime.call(command, join(folders(pod.host).plugins, 'flannel'), config, pod, env);

  it('start from the file that the agent has written when it got ready, and not through the plugin flannel', async () => {
    const [h1, h2] = hosts;
    const log = await readFile(join(h1.stateDirectory, 'flanneld.log'), 'utf8');
    const [subnetFile, conf, ready] = ['Wrote subnet file', 'Wrote CNI configuration', 'flannel is ready'].map((text) =>
      log.indexOf(text),
    );
    assert.ok(subnetFile! > 0 && subnetFile! < conf! && conf! < ready!, log);
    assert.deepEqual(
      JSON.parse(await confOf(h1)).plugins.map(({ type }: { type: string }) => type),
      ['bridge', 'portmap'],
    );
    const [from, to] = [h1.containers[0]!, h2.containers[0]!];
    const portMappings = [{ hostPort: 8080, containerPort: 7777, protocol: 'tcp' }];
    const [a, b] = [
      await runtime.add(await confOf(h1), from),
      await runtime.add(await confOf(h2), to, { portMappings }),
    ];
    for (const flags of [[], ['-s', String(1472 - 28), '-M', 'do']]) {
      const { ok, output } = await ping(topology, from, addressOf(b), ...flags);
      assert.ok(ok, output);
    }
    assert.equal((await ping(topology, to, '192.168.77.1')).ok, true, 'the default route leads out');
    // A host port, from the other host.
    const server = await topology.start(to, ['socat', 'TCP4-LISTEN:7777,reuseaddr,fork', 'EXEC:cat'], {
      stdout: 'ignore',
    });
    await eventually('the pod listens', async () =>
      (await topology.exec(to, ['ss', '-Htln', 'sport = :7777'])).stdout === '' ? undefined : true,
    );
    const answer = await topology.exec(h1, ['socat', '-t', '5', 'STDIO', 'TCP4:192.168.77.2:8080'], {
      stdin: 'through portmap\n',
    });
    assert.equal(answer.stdout, 'through portmap\n');
    await server[Symbol.asyncDispose]();
    assert.deepEqual(reserved(folders(h2).networks), [addressOf(b)]);
    await runtime.del(await confOf(h1), from, a);
    await runtime.del(await confOf(h2), to, b, { portMappings });
    assert.deepEqual([reserved(folders(h1).networks), reserved(folders(h2).networks)], [[], []]);
    assert.equal(existsSync(folders(h1).saved), false);
  });

  it('start with the MTU that the interface to other hosts has room for now', async () => {
    const [h1] = hosts;
    const pod = h1.containers[3]!;
    for (const mtu of [1400, 1500]) {
      await topology.ipBatch(h1, `link set eth0 mtu ${mtu}\n`);
      await eventually(
        'the file has the new MTU',
        async () => JSON.parse(await confOf(h1)).plugins[0].mtu === mtu - 28 || undefined,
        60_000,
      );
      const added = await runtime.add(await confOf(h1), pod);
      const { stdout } = await topology.exec(pod, ['ip', '-j', 'link', 'show', 'eth0']);
      assert.equal(JSON.parse(stdout)[0].mtu, mtu - 28);
      await runtime.del(await confOf(h1), pod, added);
    }
  });

  it('pass CHECK of the plugins that Debian has, in every version that has CHECK', async () => {
    const [h1] = hosts;
    const pod = h1.containers[3]!;
    const { template } = folders(h1);
    const before = readFileSync(template, 'utf8');
    for (const cniVersion of ['0.4.0', '1.0.0']) {
      writeFileSync(template, JSON.stringify({ ...JSON.parse(before), cniVersion }));
      const conf = await eventually('the file follows the template', async () => {
        const text = await confOf(h1);
        return JSON.parse(text).cniVersion === cniVersion ? text : undefined;
      });
      const added = await runtime.add(conf, pod);
      await runtime.check(conf, pod, added);
      await runtime.del(conf, pod, added);
    }
    writeFileSync(template, before);
    // Both families, and a route of the user's.
    const env = parsePluginSubnetEnv(
      'FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.7.1/24\nFLANNEL_IPV6_NETWORK=fd09::/48\nFLANNEL_IPV6_SUBNET=fd09:0:0:7::1/64\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=false\n',
      'dual.env',
    );
    const flannel = {
      type: 'flannel',
      delegate: { bridge: 'cni-check', isDefaultGateway: true },
      ipam: { dataDir: folders(h1).networks, routes: [{ dst: '192.0.2.0/24' }] },
    };
    const list = parseConfList(JSON.stringify({ name: 'dual', cniVersion: '1.0.0', plugins: [flannel] }), 'dual');
    const conf = renderConf(withoutWrapper(list, env, 'dual'), undefined);
    const added = await runtime.add(conf, pod);
    await runtime.check(conf, pod, added);
    const { stdout: routes } = await topology.exec(pod, ['ip', 'route', 'show', '192.0.2.0/24']);
    assert.match(routes, /^192\.0\.2\.0\/24 via 10\.9\.7\.1 dev eth0/);
    await runtime.del(conf, pod, added);
    assert.deepEqual(reserved(folders(h1).networks, 'dual'), []);
    await topology.ipBatch(h1, 'link del cni-check\n');
  });

  it('start through the plugin flannel with the bytes that flannel’s was recorded with, and reach the others', async () => {
    const [h1, h2] = hosts;
    const [from, to] = [h1.containers[0]!, h2.containers[0]!];
    const { networks, saved, subnetFile } = folders(h1);
    const added = await flannel('ADD', flannelConfig(h1), from);
    assert.equal(added.exitCode, 0, added.stdout);
    const subnet = /FLANNEL_SUBNET=(\d+\.\d+\.\d+)\.1\/24/.exec(readFileSync(subnetFile, 'utf8'))![1]!;
    const normalised = (text: string): string =>
      text
        .replaceAll(networks, '$W/run/h1/cni/networks')
        .replaceAll(`${subnet}.`, '10.244.0.')
        .replaceAll(from.namespace, 'g2-h1-p1')
        .replaceAll(/(?:[\da-f]{2}:){5}[\da-f]{2}/g, 'MAC')
        .replaceAll(/veth[\da-f]{8}/g, 'VETH')
        // host-local goes on from the last address.
        .replaceAll(/10\.244\.0\.\d+\/24(?=",\n)/g, 'ADDRESS');
    const [, recordedInput, recordedResult] =
      /sent to delegate plugin:\n(\{[^\n]*\})(\{\n.*\n\})/s.exec(golden('10-cni-add-h1.txt')) ?? [];
    assert.equal(normalised(readFileSync(join(saved, from.name), 'utf8')), recordedInput);
    assert.equal(normalised(added.stderr), `delegateAdd: netconf sent to delegate plugin:\n${recordedInput}\n`);
    assert.equal(normalised(added.stdout), normalised(recordedResult!));
    assert.ok(golden('13-cni-state-h1.txt').includes(recordedInput!));
    const other = await runtime.add(await confOf(h2), to);
    const { ok, output } = await ping(topology, from, addressOf(other));
    assert.ok(ok, output);

    assert.equal(
      (await flannel('CHECK', { ...flannelConfig(h1), prevResult: JSON.parse(added.stdout) }, from)).exitCode,
      0,
    );
    for (let time = 0; time < 2; time++) {
      assert.deepEqual(await flannel('DEL', flannelConfig(h1), from), { exitCode: 0, stdout: '', stderr: '' });
    }
    assert.deepEqual([readdirSync(saved), reserved(networks)], [[], []]);
    await runtime.del(await confOf(h2), to, other);
  });

  it('that were added through the plugin are taken down without it', async () => {
    const [h1] = hosts;
    const pod = h1.containers[1]!;
    const added = await flannel('ADD', flannelConfig(h1), pod);
    assert.equal(reserved(folders(h1).networks).length, 1);
    await runtime.del(await confOf(h1), pod, JSON.parse(added.stdout));
    assert.deepEqual(reserved(folders(h1).networks), []);
  });

  it('leave neither file nor address when they cannot be added, and both when they cannot be deleted', async () => {
    const [h1] = hosts;
    const pod = h1.containers[2]!;
    const { networks, saved } = folders(h1);
    const nowhere = await flannel('ADD', flannelConfig(h1), pod, { CNI_NETNS: '/run/netns/weft-none' });
    assert.equal(nowhere.exitCode, 1);
    assert.match(nowhere.stdout, /weft-none/);
    // The address is taken before bridge fails: what it has in the way is a device of that name.
    await topology.ipBatch(pod, 'link add eth0 type bridge\n');
    const failed = await flannel('ADD', flannelConfig(h1), pod);
    assert.equal(failed.exitCode, 1, failed.stdout);
    assert.deepEqual([readdirSync(saved).filter((name) => name.includes(pod.name)), reserved(networks)], [[], []]);
    // As a runtime would have it do, the delegate has taken down the device of that name.
    assert.doesNotMatch((await topology.exec(pod, ['ip', 'link'])).stdout, /eth0/);

    assert.equal((await flannel('ADD', flannelConfig(h1), pod)).exitCode, 0);
    const kept = await flannel('DEL', flannelConfig(h1), pod, { CNI_PATH: h1.stateDirectory });
    assert.equal(kept.exitCode, 1);
    assert.match(
      JSON.parse(kept.stdout).msg,
      /^failed to delegate del: failed to find plugin "bridge" in path \[.*\]\. It is in \/usr\/lib\/cni: copy the plugins from there/,
    );
    assert.deepEqual([existsSync(join(saved, pod.name)), reserved(networks).length], [true, 1]);
    assert.equal((await flannel('DEL', flannelConfig(h1), pod)).exitCode, 0);
    assert.deepEqual([existsSync(join(saved, pod.name)), reserved(networks)], [false, []]);
  });

  it('with two interfaces of the network give both addresses back', async () => {
    const [h1] = hosts;
    const pod = h1.containers[2]!;
    const { networks, saved } = folders(h1);
    const second = { CNI_IFNAME: 'net1' };
    assert.equal((await flannel('ADD', flannelConfig(h1), pod)).exitCode, 0);
    const added = await flannel('ADD', flannelConfig(h1, { delegate: { mtu: 1300 } }), pod, second);
    assert.equal(added.exitCode, 0, added.stdout);
    assert.equal(reserved(networks).length, 2);
    for (const env of [{}, {}, second, second]) {
      assert.equal((await flannel('DEL', flannelConfig(h1), pod, env)).exitCode, 0);
    }
    assert.deepEqual([readdirSync(saved).filter((name) => name.includes(pod.name)), reserved(networks)], [[], []]);
    assert.doesNotMatch((await topology.exec(pod, ['ip', 'link'])).stdout, /eth0|net1/);
  });

  it('get an address of each family', async () => {
    const [h1] = hosts;
    const pod = h1.containers[2]!;
    const subnetFile = join(h1.stateDirectory, 'dual.env');
    writeFileSync(
      subnetFile,
      'FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.7.1/24\nFLANNEL_IPV6_NETWORK=fd09::/48\nFLANNEL_IPV6_SUBNET=fd09:0:0:7::1/64\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=false\n',
    );
    const config = flannelConfig(h1, {
      ...{ subnetFile, name: 'dual' },
      delegate: { bridge: 'cni-dual', isDefaultGateway: true },
    });
    const added = await flannel('ADD', config, pod);
    assert.equal(added.exitCode, 0, added.stdout);
    const result = JSON.parse(added.stdout) as CniResult;
    assert.deepEqual(
      result.ips.map(({ address, gateway }) => [address.split('/')[1], gateway]),
      [
        ['24', '10.9.7.1'],
        ['64', 'fd09:0:0:7::1'],
      ],
    );
    assert.equal((await ping(topology, pod, '10.9.7.1')).ok, true);
    await eventually(
      'the IPv6 gateway answers',
      async () => (await ping(topology, pod, 'fd09:0:0:7::1')).ok || undefined,
    );
    const { stdout: links } = await topology.exec(pod, ['ip', '-j', 'link', 'show', 'eth0']);
    assert.equal(JSON.parse(links)[0].mtu, 1400);
    assert.equal((await flannel('DEL', config, pod)).exitCode, 0);
    assert.deepEqual(reserved(folders(h1).networks, 'dual'), []);
  });

  it('that the runtime no longer lists are collected, their addresses too', async () => {
    const [h1] = hosts;
    const [valid, stale] = [h1.containers[1]!, h1.containers[3]!];
    const { networks, saved } = folders(h1);
    for (const pod of [valid, stale]) assert.equal((await flannel('ADD', flannelConfig(h1), pod)).exitCode, 0);
    const attachments = [{ containerID: valid.name, ifname: 'eth0' }];
    const config = flannelConfig(h1, { cniVersion: '1.1.0', 'cni.dev/valid-attachments': attachments });
    assert.deepEqual(await flannel('GC', config, valid), { exitCode: 0, stdout: '', stderr: '' });
    assert.deepEqual([readdirSync(saved), reserved(networks).length], [[valid.name, `${valid.name}:eth0`], 1]);
    assert.equal((await flannel('DEL', flannelConfig(h1), valid)).exitCode, 0);
    assert.deepEqual(reserved(networks), []);
  });

  it('would fail with plugins that are too old for the configuration: STATUS says so', async () => {
    const [h1] = hosts;
    const answer = await flannel('STATUS', flannelConfig(h1, { cniVersion: '1.1.0' }), h1.containers[1]!);
    const { code, msg } = JSON.parse(answer.stdout);
    assert.equal(code, 50);
    assert.match(msg, /bridge supports CNI 0\.1\.0, .*1\.0\.0, and the network configuration has cniVersion 1\.1\.0/);
  });
});

describe('a pod of Kubernetes without /dev/net/tun', () => {
  let topology: Topology;
  let host: LabHost;
  before(async () => {
    topology = await Topology.create({ hosts: 1, containersPerHost: 1, purpose: 'test' }, signal);
    host = topology.hosts[0]!;
    await installPlugins(host);
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('names the lines to add, to the log and to STATUS of the plugin; with them the agent starts, and STATUS has no complaint of it', async () => {
    const conf = folders(host).conf;
    mkdirSync(conf);
    // Of an earlier boot.
    writeFileSync(
      join(conf, '10-flannel.conflist'),
      '{"name":"cbr0","weft":{"plugins":["bridge"]},"plugins":[{"type":"bridge"}]}',
    );
    const flags = localFlags(host, NET_CONF, `--cni-conf-dir=${conf}`, '--iface=eth0');
    const env = { KUBERNETES_SERVICE_HOST: '10.96.0.1' };
    /** A container that has the node's /dev/net mounted, or has not, and may make no devices. */
    const container = (script: string): string[] => [
      ...['unshare', '--mount', 'sh', '-c', `${script} exec "$@"`, 'sh'],
      ...['setpriv', '--bounding-set=-mknod'],
    ];
    const status = async (): Promise<{ code: number; msg: string }> => {
      const runtime = new CniRuntime(topology, [folders(host).plugins]);
      const { subnetFile, saved } = folders(host);
      const config = { cniVersion: '1.1.0', name: 'cbr0', type: 'flannel', subnetFile, dataDir: saved };
      return JSON.parse((await runtime.call('STATUS', LAUNCHER, config, host.containers[0]!)).stdout);
    };
    const refused = await Flanneld.start(topology, host, {
      flags,
      env,
      under: container('mount -t tmpfs none /dev/net;'),
    });
    const { code, stderr } = await refused.ended();
    assert.equal(code, 1);
    const lines = [
      'failed to open TUN device: open /dev/net/tun: no such file or directory',
      'under spec.template.spec.volumes: `- {name: dev-net, hostPath: {path: /dev/net}}`',
      'under volumeMounts of the container kube-flannel: `- {name: dev-net, mountPath: /dev/net}`',
    ];
    const before_ = await status();
    assert.equal(before_.code, 50);
    for (const line of lines) {
      assert.ok(stderr.includes(line), stderr);
      assert.ok(before_.msg.includes(line), before_.msg);
    }
    assert.equal(existsSync(join(conf, '10-flannel.conflist')), false, 'the file of an earlier boot is gone');

    await using agent = await Flanneld.start(topology, host, { flags, env, under: container('') });
    await agent.logged(/^flannel is ready/);
    assert.equal(existsSync(join(conf, '10-flannel.conflist')), true);
    assert.doesNotMatch((await status()).msg, /start-up error/);
    assert.equal(existsSync(join(host.stateDirectory, 'last-error')), false);
  });
});
