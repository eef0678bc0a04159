import { createHash } from 'node:crypto';
import type { NodeEvent } from '../../events/node-event.ts';

/** Where Kubernetes keeps the events of what is in no namespace. */
export const EVENTS_PATH = '/api/v1/namespaces/default/events';
/** The API server takes no longer message of an event. */
const MAX_MESSAGE_BYTES = 1_024;
const COMPONENT = 'flanneld';

/** The same for an event that repeats, and another one for each series. At most 253 characters: a DNS subdomain. */
export function nodeEventName(node: string, { reason, type, message, firstAtMs }: NodeEvent): string {
  const hash = createHash('sha256').update(JSON.stringify([node, reason, type, message, firstAtMs]));
  return `${node.slice(0, 200).replace(/[.-]+$/, '')}.${hash.digest('hex').slice(0, 16)}`;
}

/** In the form of kubelet's own: `kubectl describe node` finds them by the node's name in `uid`. */
export function nodeEventObject(node: string, event: NodeEvent): object {
  const { reason, type, message, firstAtMs } = event;
  return {
    ...{ apiVersion: 'v1', kind: 'Event' },
    metadata: { name: nodeEventName(node, event), namespace: 'default' },
    involvedObject: { kind: 'Node', name: node, uid: node, apiVersion: 'v1' },
    source: { component: COMPONENT, host: node },
    ...{ reportingComponent: COMPONENT, reportingInstance: node },
    ...{ reason, type, message: cut(message), firstTimestamp: timestamp(firstAtMs) },
    ...nodeEventPatch(event),
  };
}

/** What changes when the same happens again. */
export function nodeEventPatch({ count, lastAtMs }: NodeEvent): object {
  return { count, lastTimestamp: timestamp(lastAtMs) };
}

/** Whole seconds, as metav1.Time has them. */
function timestamp(atMs: number): string {
  return `${new Date(atMs).toISOString().slice(0, 19)}Z`;
}

function cut(message: string): string {
  const bytes = Buffer.from(message);
  if (bytes.length <= MAX_MESSAGE_BYTES) return message;
  // A character that is cut in two goes.
  const text = bytes.subarray(0, MAX_MESSAGE_BYTES - '…'.length * 3).toString('utf8');
  return `${text.replace(/\uFFFD$/, '')}…`;
}
