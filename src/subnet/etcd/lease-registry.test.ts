import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { EtcdClient } from './etcd-client.ts';
import { LeaseRegistry } from './lease-registry.ts';

// What path.Join of Go 1.26 makes of the prefix and `config`.
const JOINED: readonly (readonly [prefix: string, configKey: string])[] = [
  ['/coreos.com/network', '/coreos.com/network/config'],
  ['/coreos.com/network/', '/coreos.com/network/config'],
  ['//coreos.com//network//', '/coreos.com/network/config'],
  ['/coreos.com/./network', '/coreos.com/network/config'],
  ['/coreos.com/x/../network', '/coreos.com/network/config'],
  ['/../network', '/network/config'],
  ['network', 'network/config'],
  ['./network', 'network/config'],
  ['../network', '../network/config'],
  ['/', '/config'],
  ['.', 'config'],
  ['', 'config'],
];

for (const [prefix, configKey] of JOINED) {
  it(`the prefix ${JSON.stringify(prefix)} gives the keys that flannel's gives`, () => {
    // Naming keys asks nobody.
    const registry = new LeaseRegistry(undefined as unknown as EtcdClient, prefix, Date.now);
    assert.equal(registry.configKey, configKey);
    const key = Buffer.from(configKey.replace(/config$/, 'subnets/10.5.1.0-24'));
    const kv = { key, value: Buffer.from(''), create_revision: '1', mod_revision: '1', version: '1', lease: '0' };
    assert.equal(registry.leaseKeyOf(kv), '10.5.1.0-24');
  });
}
