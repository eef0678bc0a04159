import assert from 'node:assert/strict';
import { it } from 'node:test';
import { runEntryFuzz } from './entry-fuzz-run.ts';

it('20,000 random entries of the three stores: each is read or refused with a short reason, and none stops the next', () => {
  const { entries, etcdLeases, localLeases, nodeLeases, refused } = runEntryFuzz({ entries: 20_000, seed: 1 });
  assert.equal(entries, 20_000);
  // They reach what they are meant to reach.
  for (const leases of [etcdLeases, localLeases, nodeLeases]) assert.ok(leases > 400, `${leases} leases`);
  assert.ok(refused > 3_000, `${refused} refused`);
});
