import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Underlay } from '../../src/lab/namespaces.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { FakeKubeApi } from '../fakes/fake-kube-api.ts';
import { Flanneld, HEALTHZ_PORT } from './flanneld.ts';
import { bringKubeApi, KUBE_API_URL } from './kube-api.ts';
import { attachStacked, type StackedContainer } from './stacked-overlay.ts';

/** What {@link Ipv6Hosts} begin with, unless told otherwise. */
export const IPV6_NET_CONF =
  '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"udp"}}';
const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
const START_MS = 110_000;
const signal = new AbortController().signal;

interface HostStatus {
  readonly peers: readonly { readonly id: string; readonly path: string }[];
  readonly problems: readonly { readonly text: string; readonly remedy: string }[];
}

/** Hosts that reach each other by IPv6 alone, with a real agent and a container each. Of the stores, Kubernetes has such networks. */
export class Ipv6Hosts implements AsyncDisposable {
  readonly topology: Topology;
  readonly agents: Flanneld[] = [];
  readonly containers: StackedContainer[] = [];
  #resources = new AsyncDisposableStack();

  private constructor(topology: Topology) {
    this.topology = topology;
  }

  /**
   * @param flags of each host's agent, beside what the network needs.
   * @param netConf that they begin with, of IPv4 alone: they have addresses of both families then.
   */
  static async create(
    underlay: Underlay,
    flags: readonly (readonly string[])[],
    netConf: string = IPV6_NET_CONF,
  ): Promise<Ipv6Hosts> {
    await using resources = new AsyncDisposableStack();
    const options = { hosts: flags.length, containersPerHost: 1, underlay, purpose: 'test' } as const;
    const topology = resources.use(await Topology.create(options, signal));
    const api = resources.use(await FakeKubeApi.start());
    const hosts = new Ipv6Hosts(topology);
    for (const host of topology.hosts) {
      if (netConf === IPV6_NET_CONF) await topology.exec(host, ['ip', '-4', 'address', 'flush', 'dev', 'eth0']);
      await topology.ipBatch(host, `addr add ${hosts.addressOf(host)}/64 dev eth0 nodad\n`, signal);
      await topology.exec(host, ['sysctl', '-q', '-w', 'net.ipv6.conf.all.forwarding=1']);
      const podCIDRs = [`fd10:0:0:${host.index + 1}::/64`, `10.244.${host.index + 1}.0/24`];
      api.put({ kind: 'Node', metadata: { name: nodeOf(host) }, spec: { podCIDR: podCIDRs[0]!, podCIDRs } });
      hosts.configure(host, netConf);
      resources.use(await bringKubeApi(topology, host, api.port));
    }
    for (const host of topology.hosts) {
      await hosts.startAgent(host, flags[host.index]!);
      hosts.containers.push(await attachStacked(topology, host, signal));
    }
    hosts.#resources = resources.move();
    return hosts;
  }

  addressOf(host: LabHost): string {
    return `fd77::${host.index + 1}`;
  }

  /** For the next start of that host's agent. */
  configure(host: LabHost, netConf: string): void {
    writeFileSync(join(host.stateDirectory, 'net-conf.json'), netConf);
  }

  /** The first start, or one after the agent has ended, of another build if wanted; waits until it is ready. */
  async startAgent(host: LabHost, flags: readonly string[], build?: string): Promise<Flanneld> {
    const store = ['--kube-subnet-mgr', `--kube-api-url=${KUBE_API_URL}`];
    const netConf = `--net-config-path=${join(host.stateDirectory, 'net-conf.json')}`;
    const api = `--api-socket=${socketOf(host)}`;
    const agent = await Flanneld.start(this.topology, host, {
      flags: [...store, netConf, '--iface=eth0', `--healthz-port=${HEALTHZ_PORT}`, api, ...flags],
      env: { NODE_NAME: nodeOf(host) },
      ...(build !== undefined && { build }),
    });
    this.agents[host.index] = agent;
    await agent.logged(/^flannel is ready$/, 0, START_MS);
    return agent;
  }

  /** How packets of a host reach the other hosts' subnets now, as `weft status` says. */
  async pathsFrom(host: LabHost): Promise<Readonly<Record<string, string>>> {
    const { peers } = await this.statusOf(host);
    return Object.fromEntries(peers.map(({ id, path }) => [id, path]));
  }

  /** What `weft status` says on that host. */
  async statusOf(host: LabHost): Promise<HostStatus> {
    const argv = [process.execPath, '--disable-warning=ExperimentalWarning', WEFT, 'status', '--json'];
    const { stdout } = await this.topology.exec(host, [...argv, '--socket', socketOf(host)], { okExitCodes: 'any' });
    return JSON.parse(stdout) as HostStatus;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}

const socketOf = (host: LabHost): string => join(host.stateDirectory, 'weft.sock');
const nodeOf = (host: LabHost): string => `node${host.index}`;
