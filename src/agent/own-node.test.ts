import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { NodeAddresses } from '../config/node-addresses.ts';
import { OwnNode } from './own-node.ts';

const { signal } = new AbortController();
const AT: NodeAddresses = { publicAddresses: { ipv4: '203.0.113.7', ipv6: undefined }, internalIps: ['192.168.77.1'] };
const LATER: NodeAddresses = { ...AT, internalIps: ['192.168.77.2'] };

describe('the own node', () => {
  it('has the addresses that the store says, and keeps the last while the store is away', async () => {
    const node = new OwnNode();
    const asking: (() => Promise<NodeAddresses>)[] = [
      async () => AT,
      () => Promise.reject(new Error('connection refused')),
      async () => LATER,
    ];
    node.opened({ nodeAddresses: () => asking.shift()!(), published: undefined });
    await node.read(signal);
    assert.equal(node.addresses, AT);
    await node.refresh(signal);
    assert.equal(node.addresses, AT);
    await node.refresh(signal);
    assert.equal(node.addresses, LATER);
  });

  it('is asked of the manager that was opened last, and says what is wrong when it must be known', async () => {
    const node = new OwnNode();
    node.opened({ nodeAddresses: async () => AT, published: undefined });
    node.opened({ nodeAddresses: () => Promise.reject(new Error('no such Node')), published: undefined });
    await assert.rejects(node.read(signal), /no such Node/);
  });

  it('is unknown where the store knows no nodes', async () => {
    const node = new OwnNode();
    await node.read(signal);
    await node.refresh(signal);
    assert.equal(node.addresses, undefined);
    assert.deepEqual(await node.published(signal), { ipv4: undefined, ipv6: undefined });
  });

  it('has published what the store has of it, without what cannot be read', async () => {
    const node = new OwnNode();
    node.opened({ nodeAddresses: undefined, published: async () => ({ ipv4: '{"VNI":1}', ipv6: '{"VNI":' }) });
    assert.deepEqual(await node.published(signal), { ipv4: { VNI: 1 }, ipv6: undefined });
  });
});
