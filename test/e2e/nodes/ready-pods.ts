import { eventually } from '../../netns/waiting.ts';
import type { Pod, RealCluster } from './real-cluster.ts';

const PATIENCE_MS = 300_000;

export function isReady(pod: Pod): boolean {
  return pod.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;
}

/** The pods of a DaemonSet: one on each node, in the order of the nodes, as soon as all are ready. */
export function readyOnEveryNode(cluster: RealCluster, labels: Readonly<Record<string, string>>): Promise<Pod[]> {
  const names = cluster.nodes.map((node) => node.name);
  return eventually(
    `a pod of ${JSON.stringify(labels)} is ready on every node`,
    async () => {
      const pods = (await cluster.pods('default', labels)).filter(isReady);
      return pods.map((pod) => pod.spec.nodeName).join() === names.join() ? pods : undefined;
    },
    PATIENCE_MS,
  );
}
