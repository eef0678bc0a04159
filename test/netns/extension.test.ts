import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { openSubnetStore } from '../../src/lab/open-subnet-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { LeaseStore } from '../../src/subnet/local/lease-store.ts';
import { Flanneld } from './flanneld.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { masqueradesBy } from './stacked-overlay.ts';
import { eventually } from './waiting.ts';

const signal = new AbortController().signal;

/** A program of the user's. */
function script(topology: Topology, name: string, ...lines: string[]): string {
  const path = join(topology.stateDirectory, name);
  writeFileSync(path, `#!/bin/sh -e\n${lines.join('\n')}\n`, { mode: 0o755 });
  return path;
}

async function routes(topology: Topology, host: LabHost): Promise<string> {
  return (await topology.exec(host, ['ip', 'route', 'show', 'proto', '200'])).stdout;
}

describe('the backend extension, with real agents', () => {
  it('carries packets by what its commands have set, and lets them take it away', async () => {
    await using topology = await Topology.create({ hosts: 2, containersPerHost: 1, purpose: 'test' }, signal);
    const neighbour = 'read mac; ip neigh replace "$PUBLIC_IP" lladdr "$mac" dev eth0 nud permanent';
    const add = script(topology, 'add', neighbour, 'ip route replace "$SUBNET" via "$PUBLIC_IP" dev "$1" proto "$2"');
    const backend = {
      Type: 'extension',
      PreStartupCommand: 'cat /sys/class/net/eth0/address',
      PostStartupCommand: `cp /proc/self/environ ${topology.stateDirectory}/post-$SUBNET_NAME$PUBLIC_IP`,
      // Not $SUBNET_REMOTE: that is no variable, and nothing.
      SubnetAddCommand: `${add} eth0 200$SUBNET_REMOTE`,
      SubnetRemoveCommand: 'ip route del $SUBNET proto 200',
    };
    const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: backend });
    const store = await openSubnetStore('local', topology, netConf, signal);
    const overlay = Overlay.on(topology, store, ['--ip-masq']);
    await overlay.startAll(signal);
    const [one, two] = topology.hosts as [LabHost, LabHost];
    const [first, second] = topology.containers as [(typeof topology.containers)[0], (typeof topology.containers)[0]];
    await eventually('both have a route', async () => {
      const all = await Promise.all([one, two].map((host) => routes(topology, host)));
      return all.every((text) => / via 192\.168\.77\.\d dev eth0/.test(text)) ? true : undefined;
    });
    for (const [from, to] of [[first, second] as const, [second, first] as const]) {
      const { ok, output } = await ping(topology, from, addressOf(to));
      assert(ok, output);
    }
    await masqueradesBy('iptables', topology, { host: one, addresses: [addressOf(first)] });
    const neighbours = (await topology.exec(one, ['ip', 'neigh', 'show', 'nud', 'permanent'])).stdout;
    assert.match(neighbours, new RegExp(`192\\.168\\.77\\.2 dev eth0 lladdr ${two.macAddress}`));
    const environment = readFileSync(join(topology.stateDirectory, 'post-192.168.77.1'), 'utf8').split('\0');
    for (const variable of ['NETWORK=10.244.0.0/16', 'PUBLIC_IP=192.168.77.1', 'IPV6SUBNET=', 'PUBLIC_IPV6='])
      assert(environment.includes(variable), variable);

    const gone = overlay.agents[1]!;
    gone.child.kill('SIGTERM');
    await gone.child.exited;
    using leases = LeaseStore.open(join(topology.stateDirectory, 'subnets.db'));
    leases.transact((transaction) => {
      for (const { key, value } of transaction.rows()) if (value.includes('192.168.77.2')) transaction.delete(key);
    });
    await eventually('the route is gone', async () => ((await routes(topology, one)) === '' ? true : undefined));
    const log = await eventually('it is in the log', async () => {
      const text = await overlay.log(one);
      return /Ran command: ip route del/.test(text) ? text : undefined;
    });
    assert.match(log, /Ran command: cat \/sys\/class\/net\/eth0\/address\n {2}Output: 02:00:/);
  });

  it('fails before it takes a lease when PreStartupCommand fails, and without subnet.env when PostStartupCommand does', async () => {
    await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' }, signal);
    const [host] = topology.hosts as [LabHost];
    for (const [commands, words] of [
      [{ PreStartupCommand: 'false' }, /Error registering network: failed to run command: false: exit code 1/],
      [{ PreStartupCommand: 'no-such-program' }, /failed to run command: could not run no-such-program/],
      [{ PostStartupCommand: 'ls /nowhere' }, /failed to run command: ls \/nowhere: exit code 2: ls: .*No such file/],
    ] as const) {
      const netConf = JSON.stringify({ Network: '10.244.0.0/16', Backend: { Type: 'extension', ...commands } });
      const store = await openSubnetStore('local', topology, netConf, signal);
      const flags = [...store.agentFlags(host), '--iface=eth0'];
      await using agent = await Flanneld.start(topology, host, { flags });
      const { code, stderr } = await agent.ended();
      assert.equal(code, 1);
      assert.match(stderr, words);
      assert(!existsSync(join(host.stateDirectory, 'subnet.env')));
      const leases = existsSync(join(topology.stateDirectory, 'subnets.db')) ? await store.leases(signal) : [];
      assert.equal(leases.length, 'PreStartupCommand' in commands ? 0 : 1);
    }
  });

  for (const [stack, network, routesOf, wanted] of [
    ['IPv4', { EnableIPv6: false, EnableIPv4: true, IPv6Network: '::/0' }, '$SUBNET', /^10\.42\.\d+\.0\/24$/],
    [
      'both families',
      { EnableIPv6: true, EnableIPv4: true, IPv6Network: '2001:db8:42::/56' },
      '$SUBNET,$IPV6SUBNET',
      /^10\.42\.\d+\.0\/24,2001:db8:42:[\da-f:]+::\/64$/,
    ],
  ] as const) {
    it(`advertises the subnet by k3s’s recipe for Tailscale: ${stack}`, async () => {
      await using topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' }, signal);
      const [host] = topology.hosts as [LabHost];
      await topology.exec(host, ['ip', 'addr', 'add', 'fd77::1/64', 'dev', 'eth0', 'nodad']);
      const ran = join(topology.stateDirectory, 'ran');
      script(topology, 'tailscale', `printf '%s\\n' "$@" >>${ran}`);
      const netConf = JSON.stringify({
        Network: '10.42.0.0/16',
        ...network,
        Backend: {
          Type: 'extension',
          PostStartupCommand: `tailscale set --accept-routes --advertise-routes=${routesOf}`,
          ShutdownCommand: 'tailscale down',
        },
      });
      const store = await openSubnetStore('local', topology, netConf, signal);
      await using agent = await Flanneld.start(topology, host, {
        flags: [...store.agentFlags(host), '--iface=eth0', '--ip-masq'],
        env: { PATH: `${topology.stateDirectory}:${process.env.PATH}` },
      });
      await agent.logged(/flannel is ready/);
      const [verb, accept, advertise] = readFileSync(ran, 'utf8').split('\n');
      assert.deepEqual([verb, accept], ['set', '--accept-routes']);
      assert.match(advertise!.replace('--advertise-routes=', ''), wanted);
      agent.child.kill('SIGTERM');
      assert.equal((await agent.ended()).code, 0);
      assert.doesNotMatch(readFileSync(ran, 'utf8'), /^down$/m, 'flannel ignores ShutdownCommand');
    });
  }
});
