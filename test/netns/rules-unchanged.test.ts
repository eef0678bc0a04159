import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/linux/run.ts';
import type { Check } from './rules-unchanged.ts';
import { withNamespace } from './traffic-namespace.ts';

const SCRIPT = fileURLToPath(new URL('./rules-unchanged.ts', import.meta.url));

test('rules that were right are looked at again once anything in nf_tables has changed, and not before', async () => {
  await using namespace = await withNamespace();
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', SCRIPT];
  const { stdout } = await run(argv, { netns: namespace.name });
  const found = JSON.parse(stdout) as Readonly<Record<string, readonly Check[]>>;
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
