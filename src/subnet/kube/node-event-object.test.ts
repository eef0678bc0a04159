import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { NodeEvent } from '../../events/node-event.ts';
import { nodeEventName, nodeEventObject, nodeEventPatch } from './node-event-object.ts';

const EVENT: NodeEvent = {
  ...{ reason: 'FlannelLeaseLost', type: 'Warning', message: 'lost', count: 3 },
  ...{ firstAtMs: Date.UTC(2026, 0, 2, 3, 4, 5, 678), lastAtMs: Date.UTC(2026, 0, 2, 3, 5, 6) },
};

describe('an event of a Node', () => {
  it('is about the Node in the form that kubectl describe finds', () => {
    const { metadata, ...event } = nodeEventObject('node-1', EVENT) as {
      metadata: { name: string; namespace: string };
    };
    assert.equal(metadata.namespace, 'default');
    assert.match(metadata.name, /^node-1\.[0-9a-f]{16}$/);
    assert.deepEqual(event, {
      ...{ apiVersion: 'v1', kind: 'Event', type: 'Warning', reason: 'FlannelLeaseLost', message: 'lost', count: 3 },
      involvedObject: { kind: 'Node', name: 'node-1', uid: 'node-1', apiVersion: 'v1' },
      source: { component: 'flanneld', host: 'node-1' },
      ...{ reportingComponent: 'flanneld', reportingInstance: 'node-1' },
      ...{ firstTimestamp: '2026-01-02T03:04:05Z', lastTimestamp: '2026-01-02T03:05:06Z' },
    });
    assert.deepEqual(nodeEventPatch(EVENT), { count: 3, lastTimestamp: '2026-01-02T03:05:06Z' });
  });

  it('keeps its name while it repeats, and a later one has another', () => {
    const name = nodeEventName('node-1', EVENT);
    assert.equal(nodeEventName('node-1', { ...EVENT, count: 9, lastAtMs: EVENT.lastAtMs + 5 }), name);
    assert.notEqual(nodeEventName('node-1', { ...EVENT, firstAtMs: EVENT.firstAtMs + 1 }), name);
    assert.notEqual(nodeEventName('node-2', EVENT), name);
    assert.ok(nodeEventName('n'.repeat(253), EVENT).length <= 253);
  });

  it('has no more bytes of message than the API server takes', () => {
    const { message } = nodeEventObject('n', { ...EVENT, message: 'ü'.repeat(900) }) as { message: string };
    assert.ok(Buffer.byteLength(message) <= 1_024);
    assert.match(message, /^ü+…$/);
  });
});
