import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/linux/run.ts';
import type { Reading } from './firewall-unchanged.ts';
import type { Check } from './rules-unchanged.ts';
import { withNamespace } from './traffic-namespace.ts';

const runIn = async (netns: string, script: string): Promise<unknown> => {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const { stdout } = await run([process.execPath, '--disable-warning=ExperimentalWarning', path], { netns });
  return JSON.parse(stdout);
};

test('rules that were right are looked at again once anything in nf_tables has changed, and not before', async () => {
  await using namespace = await withNamespace();
  const found = (await runIn(namespace.name, './rules-unchanged.ts')) as Readonly<Record<string, readonly Check[]>>;
  assert.deepEqual(Object.keys(found), ['nftables', 'iptables']);
  for (const [set, right, unchanged, otherChange, spoilt] of Object.values(found)) {
    assert.ok(set!.repairs > 0);
    assert.ok(right!.programs > 0);
    assert.deepEqual(unchanged, { programs: 0, repairs: 0 });
    assert.ok(otherChange!.programs > 0);
    assert.equal(otherChange!.repairs, 0);
    assert.ok(spoilt!.repairs > 0);
  }
});

test('the firewall of others is read again once anything in nf_tables has changed, and not before', async () => {
  await using namespace = await withNamespace();
  const readings = (await runIn(namespace.name, './firewall-unchanged.ts')) as readonly Reading[];
  assert.deepEqual(
    readings.map(({ found }) => found),
    [false, false, true, true, false],
  );
  assert.deepEqual(
    readings.map(({ programs }) => programs > 0),
    [true, false, true, false, true],
  );
});
