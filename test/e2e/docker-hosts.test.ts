import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { type DockerMember, DockerNetwork, PUBLISHED_PORT, WEB_PORT } from './docker/docker-network.ts';

/** flannel's first use, without Kubernetes: containers that reach each other across Docker hosts. One network for all tests. */

let network: DockerNetwork;

before(async () => {
  network = await DockerNetwork.start('Docker hosts', AbortSignal.timeout(120_000));
});
after(async () => {
  await network?.[Symbol.asyncDispose]();
});

/** Each host as the one that asks, with the other as the one that is asked. */
function* bothWays(): Generator<{ from: DockerMember; to: DockerMember }> {
  const [first, second] = network.members;
  yield { from: first, to: second };
  yield { from: second, to: first };
}

test("docker-opts' flags give the daemon the host's subnet and MTU, and leave masquerading to the agent", async () => {
  for (const { docker, env, containerAddress, host } of network.members) {
    const { stdout } = await docker.exec(['ip', '-4', 'address', 'show', 'dev', 'docker0']);
    assert.ok(stdout.includes(`inet ${env.FLANNEL_SUBNET} `), stdout);
    assert.ok(containerAddress.startsWith(env.FLANNEL_SUBNET!.replace(/\.1\/24$/, '.')), containerAddress);
    const { stdout: link } = await docker.exec(['docker', 'exec', 'web', 'ip', 'link', 'show', 'dev', 'eth0']);
    assert.ok(link.includes(`mtu ${env.FLANNEL_MTU} `), link);
    const { stdout: rules } = await network.topology.exec(host, ['iptables-save', '-t', 'nat']);
    assert.ok(!rules.includes(`-s ${env.FLANNEL_SUBNET!.replace('.1/24', '.0/24')} ! -o docker0 -j MASQUERADE`), rules);
  }
});

test('containers on both hosts reach each other, though Docker drops what it does not know', async () => {
  for (const { host } of network.members) {
    // As Docker itself sets it where it is the one that switches forwarding on.
    await network.topology.exec(host, ['iptables', '--policy', 'FORWARD', 'DROP']);
  }
  for (const { from, to } of bothWays()) {
    const ping = await from.docker.exec(['docker', 'exec', 'web', 'ping', '-c', '5', '-W', '5', to.containerAddress]);
    assert.match(ping.stdout, / 0% packet loss/);
    // With the container's own address: nobody masquerades between containers.
    const { stdout: name } = await from.docker.exec([
      ...['docker', 'exec', 'web', 'curl', '--silent', '--fail', '--max-time', '5'],
      `http://${to.containerAddress}:${WEB_PORT}/`,
    ]);
    assert.equal(name.trim(), `web-${to.host.name}`);
  }
});

test('16 MB between two containers arrive as they were', async () => {
  for (const { from, to } of bothWays()) {
    await from.docker.exec(['docker', 'exec', 'web', 'sh', '-c', 'head -c 16777216 /dev/urandom >/tmp/blob']);
    const sent = await from.docker.exec(['docker', 'exec', 'web', 'sha256sum', '/tmp/blob']);
    const fetch = `curl --silent --fail http://${from.containerAddress}:${WEB_PORT}/blob | sha256sum`;
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
      `http://${formatIpv4(to.host.address)}:${PUBLISHED_PORT}/`,
    ];
    const fromHost = await network.topology.exec(from.host, curl);
    const fromContainer = await from.docker.exec(['docker', 'exec', 'web', ...curl]);
    for (const { stdout } of [fromHost, fromContainer]) assert.equal(stdout.trim(), `web-${to.host.name}`);
  }
});

test('what leaves the overlay has the address of the host', async () => {
  // etcd could not answer to a container's: there is no way to the overlay from where it is.
  const url = `http://${formatIpv4(network.topology.store!.address)}:2379/health`;
  for (const { docker } of network.members) {
    const curl = ['docker', 'exec', 'web', 'curl', '--silent', '--fail', '--max-time', '5', url];
    assert.match((await docker.exec(curl)).stdout, /"health":"true"/);
  }
});
