import type { KubeNode } from '../../src/lab/servers/kube-client.ts';
import type { AuditEvent } from '../../src/lab/servers/kube-server.ts';
import { DEFAULT_ANNOTATION_PREFIX } from '../../src/subnet/kube/annotations.ts';
import { golden } from '../fakes/golden.ts';

export interface GoldenNode {
  readonly name: string;
  readonly annotations: Record<string, string>;
  readonly podCIDRs: string[];
  readonly conditions: Record<string, string>[];
}

/** The Node objects after a real flanneld ran: the file holds one pretty-printed object after another. */
export function goldenNodes(scenario: string, file = '31-nodes-trimmed.json'): GoldenNode[] {
  return golden(scenario, file)
    .trim()
    .split(/(?<=^})\n(?=\{$)/m)
    .map((one) => JSON.parse(one) as GoldenNode);
}

/** Every request that real flannelds sent. */
export function goldenAudit(scenario: string): AuditEvent[] {
  const lines = golden(scenario, '40-audit.jsonl').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as AuditEvent);
}

/** What a request was for, without what differs from run to run. */
export function requestKind({ verb, objectRef }: AuditEvent): string {
  return [verb, objectRef?.resource, objectRef?.subresource].filter(Boolean).join(' ');
}

export function flannelPart(node: KubeNode): object {
  return flannelPartOf({
    name: node.metadata.name,
    annotations: node.metadata.annotations ?? {},
    podCIDRs: node.spec.podCIDRs ?? [],
    conditions: (node.status.conditions ?? []) as unknown as Record<string, string>[],
  });
}

/** All that flannel writes; other controllers write annotations of their own, and times differ. */
export function flannelPartOf(node: GoldenNode): object {
  return {
    annotations: Object.fromEntries(
      Object.entries(node.annotations)
        .filter(([key]) => key.startsWith(`${DEFAULT_ANNOTATION_PREFIX}/`))
        .sort(),
    ),
    conditions: node.conditions
      .filter(({ type }) => type === 'NetworkUnavailable')
      .map(({ lastHeartbeatTime, lastTransitionTime, ...rest }) => rest),
  };
}
