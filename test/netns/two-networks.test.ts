import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { backendKind } from '../../src/backend/registry.ts';
import { formatIpv4, parseIpv4 } from '../../src/ip/ipv4.ts';
import { parseContainerNetwork } from '../../src/lab/agent.ts';
import { type ContainerNetwork, containerAddress, containerScript } from '../../src/lab/namespaces.ts';
import { type LabContainer, type LabHost, Topology } from '../../src/lab/topology.ts';
import { leaseKey } from '../../src/lease/lease.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { LeaseStore } from '../../src/subnet/local/lease-store.ts';
import { LocalSubnetManager } from '../../src/subnet/local/local-subnet-manager.ts';
import { Flanneld } from './flanneld.ts';
import { hostText } from './host-text.ts';
import { ping } from './overlay.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

/** A network of its own for each, and what two agents on one host may not share. */
const NETWORKS = [
  { name: 'blue', network: '10.1.0.0/16', port: 8285, healthzPort: 8081, device: 'flannel0' },
  { name: 'red', network: '10.2.0.0/16', port: 8286, healthzPort: 8082, device: 'flannel1' },
] as const;
type LabNetwork = (typeof NETWORKS)[number];

/** Checks of the rules in a row that must find nothing to do. */
const QUIET_CHECKS = 2;
const WEFT = [
  process.execPath,
  ...RUNTIME_FLAGS,
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];

// Most of it is waiting for checks that find nothing to do.
describe('two udp networks', { concurrency: true }, () => {
  for (const { mode, enableNfTables } of [
    { mode: 'iptables', enableNfTables: false },
    { mode: 'nftables', enableNfTables: true },
  ]) {
    describe(`on each host, in ${mode} mode`, { concurrency: 1 }, () => {
      let topology: Topology;
      const agents = new Map<string, Flanneld>();
      const [blue, red] = NETWORKS;

      before(async () => {
        topology = await Topology.create({ hosts: 2, containersPerHost: 2, purpose: 'test' });
        for (const host of topology.hosts) {
          // One after another: which of the two is the first has to be known.
          for (const network of NETWORKS) await start(host, network);
          for (const network of NETWORKS) await plug(host, network);
          if (!enableNfTables) await topology.exec(host, ['iptables', '-w', '-P', 'FORWARD', 'DROP']);
        }
      });
      after(() => topology?.[Symbol.asyncDispose]());

      const key = (host: LabHost, { name }: LabNetwork): string => `${host.name} ${name}`;
      const agentOf = (host: LabHost, network: LabNetwork): Flanneld => agents.get(key(host, network))!;
      const subnetFile = (host: LabHost, { name }: LabNetwork): string => join(host.stateDirectory, name, 'subnet.env');
      const containerOf = (host: LabHost, network: LabNetwork): LabContainer =>
        host.containers[NETWORKS.indexOf(network)]!;
      const networkOf = (host: LabHost, network: LabNetwork): ContainerNetwork =>
        parseContainerNetwork(readFileSync(subnetFile(host, network), 'utf8'), 'subnet.env');

      async function start(host: LabHost, network: LabNetwork): Promise<void> {
        const { name, port, healthzPort } = network;
        mkdirSync(join(host.stateDirectory, name), { recursive: true });
        const netConf = join(topology.stateDirectory, `${name}.json`);
        const backend = { Type: 'udp', Port: port };
        const config = { Network: network.network, EnableNFTables: enableNfTables, Backend: backend };
        writeFileSync(netConf, JSON.stringify(config));
        const flags = [
          ...['--subnet-mgr=local', `--local-store=${join(topology.stateDirectory, `${name}.db`)}`],
          ...[`--net-config-path=${netConf}`, `--subnet-file=${subnetFile(host, network)}`],
          ...['--iface=eth0', '--ip-masq', '--iptables-resync=1', '--ip-blackhole-route', '--notrack-tunnel'],
          ...['--healthz-ip=127.0.0.1', `--healthz-port=${healthzPort}`],
        ];
        const agent = await Flanneld.start(topology, host, { flags });
        agents.set(key(host, network), agent);
        await agent.logged(/^flannel is ready$/);
        await agent.logged(/^Packets take the fast path in the kernel/);
      }

      /** A container on a link of its own, for the other network has cni0's name. */
      async function plug(host: LabHost, network: LabNetwork): Promise<void> {
        const container = containerOf(host, network);
        const plan = networkOf(host, network);
        const { mtuBytes, gateway, subnet } = plan;
        const device = container.hostDevice;
        await topology.ipBatch(
          host,
          `link add ${device} mtu ${mtuBytes} type veth peer name eth0 mtu ${mtuBytes} netns ${container.namespace}\n` +
            `address add ${formatIpv4(gateway)}/${subnet.length} dev ${device}\nlink set ${device} up\n`,
        );
        await topology.ipBatch(container, containerScript(plan, containerAddress(plan, 0)));
      }

      /** Echo requests from the container on the first host to that on the second one, and their answers. */
      async function pings(network: LabNetwork, ...flags: readonly string[]): Promise<boolean> {
        const [a, b] = topology.hosts as readonly [LabHost, LabHost];
        const to = formatIpv4(containerAddress(networkOf(b, network), 0));
        return (await ping(topology, containerOf(a, network), to, ...flags)).ok;
      }

      async function figure(host: LabHost, network: LabNetwork, name: string): Promise<number> {
        const { body } = await agentOf(host, network).get('/metrics', network.healthzPort);
        const values = [...body.matchAll(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\S+)$`, 'gm'))];
        return values.reduce((sum, [, value]) => sum + Number(value), 0);
      }

      /** All of a host's state that agents make. */
      async function kernelState(host: LabHost): Promise<string> {
        return await hostText(topology, host, [
          ['ip', '-o', '-4', 'address', 'show'],
          ['ip', 'route', 'show', 'table', 'main'],
          ['iptables-save'],
          ['nft', 'list', 'ruleset'],
        ]);
      }

      /** Neither agent changes anything while both look at the rules again and again. */
      async function quiet(): Promise<void> {
        const both = (name: string): Promise<number[]> =>
          Promise.all(topology.hosts.flatMap((host) => NETWORKS.map((network) => figure(host, network, name))));
        const changes = async (): Promise<number[][]> =>
          await Promise.all(['weft_kernel_operations_total', 'weft_traffic_repairs_total', 'weft_failure'].map(both));
        const checks = await both('weft_traffic_checks_total');
        const before = await changes();
        await eventually(
          'every agent has looked at its rules again',
          async () =>
            (await both('weft_traffic_checks_total')).every((count, i) => count >= checks[i]! + QUIET_CHECKS) ||
            undefined,
        );
        assert.deepEqual(await changes(), before);
        assert.deepEqual(await both('weft_kernel_problems'), [0, 0, 0, 0]);
        assert.deepEqual(await both('weft_ready'), [1, 1, 1, 1]);
      }

      it('have a device each, and carry packets of both beside each other', async () => {
        for (const host of topology.hosts) {
          const { stdout } = await topology.exec(host, ['ip', '-4', 'route', 'show', 'table', 'main', 'proto', '241']);
          for (const { network, device } of NETWORKS) {
            assert.match(stdout, new RegExp(`^${network.replaceAll('.', '\\.')} dev ${device} `, 'm'));
          }
        }
        for (const network of NETWORKS) assert.ok(await pings(network), network.name);
        assert.ok(await pings(blue, '-s', '8000'), 'in pieces');
        assert.ok(await pings(red, '-s', '8000'), 'in pieces');
      });

      it('have a fast path each', async () => {
        const [host] = topology.hosts as readonly [LabHost];
        for (const network of NETWORKS) {
          await eventuallyHolds(async () => {
            const before = await figure(host, network, 'weft_packets_total');
            const operations = await figure(host, network, 'weft_forwarder_operations_total');
            assert.ok(await pings(network, '-c', '50', '-i', '0.002'));
            const more = (await figure(host, network, 'weft_packets_total')) - before;
            const moreOperations = (await figure(host, network, 'weft_forwarder_operations_total')) - operations;
            assert.ok(more >= 100 && moreOperations < 50, `${more} packets, ${moreOperations} by the forwarder`);
          });
        }
      });

      it('believe no address in the network of the other, by which packets could go round for ever', async () => {
        const { signal } = new AbortController();
        const storePath = join(topology.stateDirectory, 'red.db');
        const netConfPath = join(topology.stateDirectory, 'red.json');
        await using manager = new LocalSubnetManager({ storePath, netConfPath, backends: backendKind });
        const attrs = {
          ...{ publicAddresses: { ipv4: parseIpv4('10.1.9.9'), ipv6: undefined }, backendType: '' },
          backendData: { ipv4: undefined, ipv6: undefined },
        };
        const lease = await manager.acquireLease(await manager.networkConfig(signal), attrs, signal);
        const isRefusedBy = (host: LabHost, count: number): Promise<void> =>
          eventuallyHolds(async () => assert.equal(await figure(host, red, 'weft_refused_leases'), count));
        for (const host of topology.hosts) {
          await isRefusedBy(host, 1);
          await agentOf(host, red).logged(/^Refusing the lease .* of 10\.1\.9\.9: .* \[address-in-network\]$/);
        }
        using store = LeaseStore.open(storePath);
        store.transact((transaction) => transaction.delete(leaseKey(lease)));
        for (const host of topology.hosts) await isRefusedBy(host, 0);
      });

      it('leave each other’s routes and rules alone', async () => {
        await quiet();
        for (const host of topology.hosts) {
          const state = await kernelState(host);
          for (const { network, port } of NETWORKS) {
            const dst = network.replaceAll('.', '\\.');
            if (enableNfTables) {
              assert.match(state, new RegExp(`ip saddr ${dst} ip daddr != 224.0.0.0/4 masquerade fully-random`));
              assert.match(state, new RegExp(`udp dport ${port} notrack`));
            } else {
              assert.match(state, new RegExp(`-s ${dst} ! -d 224.0.0.0/4 .*-j MASQUERADE`));
              assert.match(state, new RegExp(`-s ${dst} .*-j ACCEPT`));
              assert.match(state, new RegExp(`--dport ${port} .*--notrack`));
            }
          }
        }
      });

      for (const how of enableNfTables ? (['SIGTERM'] as const) : (['SIGTERM', 'SIGKILL'] as const)) {
        it(`do not notice that the other one stops and starts: ${how}`, async () => {
          const [host] = topology.hosts as readonly [LabHost];
          const before = await kernelState(host);
          const [stopped, other] = how === 'SIGTERM' ? [blue, red] : [red, blue];
          const log = agentOf(host, other).log.mark;
          const { child } = agentOf(host, stopped);
          child.kill(how);
          await child.exited;
          assert.equal(await kernelState(host), before);
          assert.ok(await pings(other), 'meanwhile');
          await start(host, stopped);
          for (const network of NETWORKS) assert.ok(await pings(network), network.name);
          await quiet();
          assert.equal(await kernelState(host), before);
          assert.deepEqual(agentOf(host, other).messages.slice(log), []);
        });
      }

      // Which device is whose hangs on nothing that differs between the modes.
      if (!enableNfTables)
        it('keep their devices when both have stopped and the second one starts first', async () => {
          const [host] = topology.hosts as readonly [LabHost];
          for (const network of NETWORKS) {
            const { child } = agentOf(host, network);
            child.kill('SIGKILL');
            await child.exited;
          }
          await start(host, red);
          await start(host, blue);
          for (const network of NETWORKS) assert.ok(await pings(network), network.name);
          await quiet();
        });

      it('are removed together', async () => {
        const [host] = topology.hosts as readonly [LabHost];
        const files = NETWORKS.flatMap((network) => ['--subnet-file', subnetFile(host, network)]);
        const cleanup = (): Promise<{ exitCode: number; stdout: string; stderr: string }> =>
          topology.exec(host, [...WEFT, 'cleanup', ...files], { okExitCodes: 'any' });
        const { child } = agentOf(host, blue);
        child.kill('SIGTERM');
        await child.exited;
        assert.match((await cleanup()).stderr, /WEFT_AGENT_RUNNING/);
        const last = agentOf(host, red).child;
        last.kill('SIGTERM');
        await last.exited;
        const done = await cleanup();
        assert.equal(done.exitCode, 0, done.stderr);
        assert.match(done.stdout, /^removed devices:\n {2}flannel0\n {2}flannel1$/m);
        const state = await kernelState(host);
        assert.doesNotMatch(state, /proto 241|flannel\d|FLANNEL|flannel-ipv/);
        assert.match((await cleanup()).stdout, /nothing to remove/);
      });
    });
  }
});
