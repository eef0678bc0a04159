import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { attrsOf, NET_CONF } from '../../../test/contract/subnet-manager.ts';
import { PATIENCE_MS } from '../../../test/netns/waiting.ts';
import { backendKind } from '../../backend/registry.ts';
import { leaseKey } from '../../lease/lease.ts';
import { LocalSubnetManager } from './local-subnet-manager.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-local-'));
  writeFileSync(join(folder, 'net-conf.json'), NET_CONF);
});
afterEach(() => rmSync(folder, { recursive: true }));

function managerOn(store: string, now?: () => number): LocalSubnetManager {
  return new LocalSubnetManager({
    backends: backendKind,
    storePath: join(folder, store),
    netConfPath: join(folder, 'net-conf.json'),
    pollMs: 5,
    ...(now === undefined ? {} : { now }),
  });
}

describe('machine-local subnet manager in trouble', () => {
  it('gives up on a store that is no store', async () => {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    writeFileSync(join(folder, 'leases.db'), 'not a database '.repeat(500));
    await using manager = managerOn('leases.db');
    const config = await manager.networkConfig(signal);
    await assert.rejects(manager.acquireLease(config, attrsOf(1), signal), { code: 'WEFT_STORE_CORRUPT' });
  });

  it('takes its lease into a new store when somebody deletes the file', async () => {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    await using manager = managerOn('leases.db');
    const config = await manager.networkConfig(signal);
    const lease = await manager.acquireLease(config, attrsOf(1), signal);
    const events = manager.holdLease(lease, signal);
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(folder, `leases.db${suffix}`), { force: true });
    const { value } = await events.next();
    assert.ok(value?.type === 'renewed');
    assert.equal(leaseKey(value.lease), leaseKey(lease));
    await using other = managerOn('leases.db');
    const { value: snapshot } = await other.watchLeases(config, signal).next();
    assert.ok(snapshot?.type === 'snapshot');
    assert.deepEqual(snapshot.leases.map(leaseKey), [leaseKey(lease)]);
  });

  it('keeps its subnet when the clock jumps by days, either way', async () => {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    let nowMs = Date.now();
    await using manager = managerOn('leases.db', () => nowMs);
    const config = await manager.networkConfig(signal);
    const lease = await manager.acquireLease(config, attrsOf(1), signal);
    const events = manager.holdLease(lease, signal);
    for (const jumpMs of [5 * 86_400_000, -9 * 86_400_000, 30 * 86_400_000]) {
      nowMs += jumpMs;
      if (jumpMs < 0) continue; // the lease only lasts longer then: nothing to do
      const { value } = await events.next();
      assert.ok(value?.type === 'renewed');
      assert.equal(leaseKey(value.lease), leaseKey(lease));
      assert.equal(value.lease.expiresAtMs, nowMs + 86_400_000);
    }
  });

  it('refuses a renewal margin as long as the lease', () => {
    const options = { storePath: join(folder, 'a'), netConfPath: join(folder, 'b'), backends: backendKind };
    assert.throws(() => new LocalSubnetManager({ ...options, leaseTtlMs: 1000, renewMarginMs: 1000 }), RangeError);
    assert.throws(() => new LocalSubnetManager({ ...options, renewMarginMs: Number.NaN }), RangeError);
  });
});
