import assert from 'node:assert/strict';
import type { Workload } from './real-cluster.ts';
import type { RealNode } from './real-node.ts';

/** What the manifest makes. */
export const AGENTS: Workload = { kind: 'daemonsets', namespace: 'kube-flannel', name: 'kube-flannel-ds' };
export const AGENT_LABELS = { app: 'flannel' };

/** Of the agent of a node. */
export async function metricsOf(node: RealNode): Promise<string> {
  return (await node.exec(['curl', '--silent', '--fail', 'http://127.0.0.1:8081/metrics'])).stdout;
}

/** One series of them. */
export async function metricOf(node: RealNode, series: string): Promise<number> {
  const line = (await metricsOf(node)).split('\n').find((one) => one.startsWith(`${series} `));
  assert.ok(line !== undefined, `${node.name} has no ${series}`);
  return Number(line.slice(series.length));
}
