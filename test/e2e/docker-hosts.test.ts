import assert from 'node:assert/strict';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { type EtcdStore, openEtcdStore } from '../../src/lab/etcd-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { Flanneld } from '../netns/flanneld.ts';
import { DockerHost } from './docker/docker-host.ts';
import { nodesDir, removeLeftovers } from './nodes/leftovers.ts';
import { TOOLS_IMAGE } from './nodes/node-config.ts';
import { buildToolsImage } from './nodes/test-images.ts';

/**
 * flannel's first use, without Kubernetes: each host's agent leases a subnet in etcd, `weft docker-opts` makes flags of it,
 * and a Docker daemon with these flags gives its containers addresses that the other host can reach. One lab for all tests.
 */

const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';
const PORT = 8080;
const PUBLISHED = 18_080;

interface Member {
  readonly host: LabHost;
  readonly docker: DockerHost;
  /** Of subnet.env. */
  readonly env: Readonly<Record<string, string>>;
  readonly containerAddress: string;
}

const cleanup = new AsyncDisposableStack();
let topology: Topology;
let members: readonly [Member, Member];

before(async () => {
  const signal = AbortSignal.timeout(120_000);
  await removeLeftovers();
  topology = cleanup.use(
    await Topology.create({ hosts: 2, containersPerHost: 0, store: true, purpose: 'Docker hosts' }),
  );
  const dir = nodesDir(topology.id);
  cleanup.defer(() => rm(dir, { recursive: true, force: true }));
  await mkdir(dir);
  const store = cleanup.use(await openEtcdStore(topology, NET_CONF, signal));
  const image = await buildToolsImage(dir, signal);
  const [first, second] = topology.hosts;
  members = await Promise.all([startMember(first!, store, dir, image), startMember(second!, store, dir, image)]);
});
after(() => cleanup.disposeAsync());

async function startMember(host: LabHost, store: EtcdStore, dir: string, image: string): Promise<Member> {
  await mkdir(host.stateDirectory, { recursive: true });
  const subnetFile = join(host.stateDirectory, 'subnet.env');
  const flags = [...store.agentFlags(host), '--ip-masq', `--subnet-file=${subnetFile}`];
  const agent = cleanup.use(await Flanneld.start(topology, host, { flags }));
  await agent.logged(/^flannel is ready$/, 0, 60_000);
  const optionsFile = join(host.stateDirectory, 'docker_opts.env');
  await topology.exec(host, [join(ROOT, 'bin/weft'), 'docker-opts', '-f', subnetFile, '-d', optionsFile]);
  const options = variables(await readFile(optionsFile, 'utf8'));
  const dockerFlags = options.DOCKER_OPTS!.trim().split(' ');
  const docker = cleanup.use(await DockerHost.start({ host, dir: join(dir, host.name), flags: dockerFlags }));
  await docker.exec(['docker', 'load', '--input', image]);
  const web = `hostname > /tmp/index.html; exec httpd -f -p ${PORT} -h /tmp`;
  await docker.exec([
    ...['docker', 'run', '--detach', '--name=web', `--hostname=web-${host.name}`, `--publish=${PUBLISHED}:${PORT}`],
    ...['--entrypoint=/bin/sh', TOOLS_IMAGE, '-c', web],
  ]);
  const { stdout } = await docker.exec([...['docker', 'inspect', '--format={{.NetworkSettings.IPAddress}}', 'web']]);
  return { host, docker, env: variables(await readFile(subnetFile, 'utf8')), containerAddress: stdout.trim() };
}

/** Each host as the one that asks, with the other as the one that is asked. */
function* bothWays(): Generator<{ from: Member; to: Member }> {
  const [first, second] = members;
  yield { from: first, to: second };
  yield { from: second, to: first };
}

test("docker-opts' flags give the daemon the host's subnet and MTU, and leave masquerading to the agent", async () => {
  for (const { docker, env, containerAddress, host } of members) {
    const { stdout } = await docker.exec(['ip', '-4', 'address', 'show', 'dev', 'docker0']);
    assert.ok(stdout.includes(`inet ${env.FLANNEL_SUBNET} `), stdout);
    assert.ok(containerAddress.startsWith(env.FLANNEL_SUBNET!.replace(/\.1\/24$/, '.')), containerAddress);
    const { stdout: link } = await docker.exec(['docker', 'exec', 'web', 'ip', 'link', 'show', 'dev', 'eth0']);
    assert.ok(link.includes(`mtu ${env.FLANNEL_MTU} `), link);
    const { stdout: rules } = await topology.exec(host, ['iptables-save', '-t', 'nat']);
    assert.ok(!rules.includes(`-s ${env.FLANNEL_SUBNET!.replace('.1/24', '.0/24')} ! -o docker0 -j MASQUERADE`), rules);
  }
});

test('containers on both hosts reach each other, though Docker drops what it does not know', async () => {
  for (const { host } of members) {
    // As Docker itself sets it where it is the one that switches forwarding on.
    await topology.exec(host, ['iptables', '--policy', 'FORWARD', 'DROP']);
  }
  for (const { from, to } of bothWays()) {
    const ping = await from.docker.exec(['docker', 'exec', 'web', 'ping', '-c', '5', '-W', '5', to.containerAddress]);
    assert.match(ping.stdout, / 0% packet loss/);
    // With the container's own address: nobody masquerades between containers.
    const { stdout: name } = await from.docker.exec([
      ...['docker', 'exec', 'web', 'curl', '--silent', '--fail', '--max-time', '5'],
      `http://${to.containerAddress}:${PORT}/`,
    ]);
    assert.equal(name.trim(), `web-${to.host.name}`);
  }
});

test('16 MB between two containers arrive as they were', async () => {
  for (const { from, to } of bothWays()) {
    await from.docker.exec(['docker', 'exec', 'web', 'sh', '-c', 'head -c 16777216 /dev/urandom >/tmp/blob']);
    const sent = await from.docker.exec(['docker', 'exec', 'web', 'sha256sum', '/tmp/blob']);
    const fetch = `curl --silent --fail http://${from.containerAddress}:${PORT}/blob | sha256sum`;
    const received = await to.docker.exec(['docker', 'exec', 'web', 'sh', '-c', fetch]);
    assert.equal(received.stdout.split(' ')[0], sent.stdout.split(' ')[0]);
  }
});

test('a published port of the other host leads to its container, from a host and from a container', async () => {
  for (const { from, to } of bothWays()) {
    const curl = [
      'curl',
      '--silent',
      '--fail',
      '--max-time',
      '5',
      `http://${formatIpv4(to.host.address)}:${PUBLISHED}/`,
    ];
    const fromHost = await topology.exec(from.host, curl);
    const fromContainer = await from.docker.exec(['docker', 'exec', 'web', ...curl]);
    for (const { stdout } of [fromHost, fromContainer]) assert.equal(stdout.trim(), `web-${to.host.name}`);
  }
});

test('what leaves the overlay has the address of the host', async () => {
  // etcd could not answer to a container's: there is no way to the overlay from where it is.
  const url = `http://${formatIpv4(topology.store!.address)}:2379/health`;
  for (const { docker } of members) {
    const curl = ['docker', 'exec', 'web', 'curl', '--silent', '--fail', '--max-time', '5', url];
    assert.match((await docker.exec(curl)).stdout, /"health":"true"/);
  }
});

/** Of a file of `NAME=value` or `NAME="value"` lines. */
function variables(text: string): Record<string, string> {
  return Object.fromEntries([...text.matchAll(/^(\w+)="?(.*?)"?$/gm)].map(([, name, value]) => [name!, value!]));
}
