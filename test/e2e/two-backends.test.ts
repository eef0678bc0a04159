import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { Flanneld } from '../netns/flanneld.ts';
import { ping } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';

/** flannel’s functional test of two daemons on each host, of which one has vxlan and the other host-gw. */
const NETWORKS = {
  vxlan: { network: '10.11.0.0/16', healthzPort: 8081, device: 'flannel.1' },
  'host-gw': { network: '10.12.0.0/16', healthzPort: 8082, device: 'eth0' },
} as const;
type Type = keyof typeof NETWORKS;
const TYPES: readonly Type[] = ['vxlan', 'host-gw'];
const OTHER: Readonly<Record<Type, Type>> = { vxlan: 'host-gw', 'host-gw': 'vxlan' };

describe('two agents on each host, one with vxlan and one with host-gw', () => {
  const { signal } = new AbortController();
  let topology: Topology;
  let hosts: readonly [LabHost, LabHost];
  const agents = new Map<string, Flanneld>();

  const folderOf = (host: LabHost, type: Type): string => join(host.stateDirectory, type);
  /** FLANNEL_SUBNET, which a bridge without ports has as its address. */
  const subnetOf = (host: LabHost, type: Type): string => {
    const text = readFileSync(join(folderOf(host, type), 'subnet.env'), 'utf8');
    return /^FLANNEL_SUBNET=(.+)$/m.exec(text)?.[1] ?? assert.fail(text);
  };
  const addressOf = (host: LabHost, type: Type): string => subnetOf(host, type).split('/')[0]!;

  async function start(host: LabHost, type: Type): Promise<void> {
    const { network, healthzPort } = NETWORKS[type];
    mkdirSync(folderOf(host, type), { recursive: true });
    const netConf = join(topology.stateDirectory, `${type}.json`);
    writeFileSync(netConf, JSON.stringify({ Network: network, Backend: { Type: type } }));
    const agent = await Flanneld.start(topology, host, {
      flags: [
        ...['--subnet-mgr=local', `--local-store=${join(topology.stateDirectory, `${type}.db`)}`],
        ...[`--net-config-path=${netConf}`, `--subnet-file=${join(folderOf(host, type), 'subnet.env')}`],
        ...['--iface=eth0', '--ip-masq', '--healthz-ip=127.0.0.1', `--healthz-port=${healthzPort}`],
      ],
    });
    agents.set(`${host.name} ${type}`, agent);
    await agent.logged(/^flannel is ready$/);
  }

  /** From the address of this host in that network to the other host’s in it, or by that device. */
  async function reaches(from: LabHost, type: Type, by: string = addressOf(from, type)): Promise<boolean> {
    const to = hosts.find((host) => host !== from)!;
    return (await ping(topology, from, addressOf(to, type), '-W', '1', '-I', by)).ok;
  }

  async function routesOf(host: LabHost): Promise<string[]> {
    const { stdout } = await topology.exec(host, ['ip', 'route', 'show', 'proto', '241']);
    return stdout.split('\n').flatMap((line) => (line.trim() === '' ? [] : line.trim()));
  }

  before(async () => {
    topology = await Topology.create({ hosts: 2, containersPerHost: 0, purpose: 'test' }, signal);
    hosts = topology.hosts as [LabHost, LabHost];
    for (const host of hosts) {
      // As for addresses of another link, which no router of this network leads to.
      await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv4.conf.all.arp_ignore=1'], { signal });
      for (const type of TYPES) {
        await start(host, type);
        const bridge = `br-${type}`;
        const lines = [`link add ${bridge} type bridge`, `addr add ${subnetOf(host, type)} dev ${bridge}`];
        await topology.ipBatch(host, `${lines.join('\n')}\nlink set ${bridge} up\n`, signal);
      }
    }
  });
  after(() => topology?.[Symbol.asyncDispose]());

  it('reach the other host in each network, and in each by its own way alone', async () => {
    for (const host of hosts) {
      for (const type of TYPES) {
        await eventually(`${type} from ${host.name}`, async () => (await reaches(host, type)) || undefined);
        assert.equal(await reaches(host, type, NETWORKS[OTHER[type]].device), false, `${type} by the other’s device`);
      }
      const devices = (await routesOf(host)).map((line) => / dev (\S+)/.exec(line)?.[1]).sort();
      assert.deepEqual(devices, ['eth0', 'flannel.1']);
    }
  });

  for (const type of TYPES) {
    it(`the agent with ${OTHER[type]} does not notice that the one with ${type} is stopped and started`, async () => {
      const [host] = hosts;
      const before = await routesOf(host);
      const agent = agents.get(`${host.name} ${type}`)!;
      const other = agents.get(`${host.name} ${OTHER[type]}`)!;
      const said = other.log.mark;
      agent.child.kill('SIGTERM');
      await agent.child.exited;
      assert.deepEqual(await routesOf(host), before);
      await start(host, type);
      for (const each of TYPES) await eventually(each, async () => (await reaches(host, each)) || undefined);
      assert.deepEqual(await routesOf(host), before);
      assert.deepEqual(
        other.messages.slice(said).filter((text) => /Put back|missing; deleting/.test(text)),
        [],
      );
    });
  }
});
