import { readFileSync } from 'node:fs';
import { KubeCluster } from '../../src/lab/servers/kube-server.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { type Flanneld, subnetFileOf } from '../netns/flanneld.ts';
import {
  attachFrom,
  goldenTopology,
  launchGolden,
  netConfFileOf,
  SERVER_ADDRESS,
  untilReady,
  writeNetConf,
} from './golden-hosts.ts';

export interface KubeHostsOptions {
  readonly hosts: number;
  readonly netConf: string;
  /** Pod CIDRs are given by hand: two nodes may have one. The hosts for which there is one are nodes, with an agent and a container each. */
  readonly podCidrs: readonly string[];
}

export function nodeOf(host: LabHost): string {
  return `node${host.index + 1}`;
}

/** A real API server, and hosts of which some are nodes with agents. */
export class KubeHosts implements AsyncDisposable {
  readonly topology: Topology;
  readonly cluster: KubeCluster;
  readonly hosts: readonly LabHost[];
  readonly agents: Flanneld[] = [];
  readonly #kubeconfig: string;
  #netConf: string;

  private constructor(topology: Topology, cluster: KubeCluster, kubeconfig: string, netConf: string) {
    this.topology = topology;
    this.hosts = topology.hosts;
    this.cluster = cluster;
    this.#kubeconfig = kubeconfig;
    this.#netConf = netConf;
  }

  static async start({ hosts, netConf, podCidrs }: KubeHostsOptions): Promise<KubeHosts> {
    await using stack = new AsyncDisposableStack();
    const topology = stack.use(await goldenTopology(hosts));
    const place = { netns: topology.plan.switchNamespace, address: SERVER_ADDRESS };
    const cluster = stack.use(await KubeCluster.start({ ...place, controllerManager: false }));
    const nodes = new KubeHosts(topology, cluster, await cluster.flannelKubeconfig(), netConf);
    stack.defer(() => nodes.#endAgents());
    for (const [i, podCidr] of podCidrs.entries()) {
      const host = nodes.hosts[i]!;
      await cluster.admin.createNode(nodeOf(host), { podCidrs: [podCidr] });
      await untilReady(await nodes.launch(host));
      await attachFrom(topology, host, readFileSync(subnetFileOf(host), 'utf8'));
    }
    stack.move();
    return nodes;
  }

  async launch(host: LabHost, ...more: readonly string[]): Promise<Flanneld> {
    const { topology, agents } = this;
    writeNetConf(host, this.#netConf);
    const config = [`--kubeconfig-file=${this.#kubeconfig}`, `--net-config-path=${netConfFileOf(host)}`];
    const flags = ['--kube-subnet-mgr', ...config, ...more];
    const agent = await launchGolden(topology, host, flags, { NODE_NAME: nodeOf(host) });
    agents[host.index] = agent;
    return agent;
  }

  /** Ends the agent of a host and starts it again, with another configuration if one is given. */
  async relaunch(host: LabHost, netConf: string = this.#netConf): Promise<Flanneld> {
    const agent = this.agents[host.index];
    agent?.child.kill('SIGTERM');
    await agent?.ended();
    this.#netConf = netConf;
    return await this.launch(host);
  }

  async #endAgents(): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent[Symbol.asyncDispose]()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#endAgents();
    await this.cluster[Symbol.asyncDispose]();
    await this.topology[Symbol.asyncDispose]();
  }
}
