import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../src/linux/run.ts';
import { withNamespace } from './traffic-namespace.ts';

const SCRIPT = fileURLToPath(new URL('./kernel-changes.ts', import.meta.url));

test('the kernel tells of each change of devices, their features and addresses, and of IPsec policies', async () => {
  await using namespace = await withNamespace();
  const argv = [process.execPath, '--disable-warning=ExperimentalWarning', SCRIPT];
  const { stdout } = await run(argv, { netns: namespace.name });
  const { told, takes, deaf } = JSON.parse(stdout) as {
    readonly told: readonly (readonly [string, boolean])[];
    readonly takes: number;
    readonly deaf: readonly boolean[];
  };
  assert.equal(told.length, 14);
  for (const [change, isTold] of told) {
    assert.equal(isTold, change !== '' && !change.startsWith('ip route'), change);
  }
  assert.ok(takes >= 1 && takes < 20, `${takes} times`);
  assert.deepEqual(deaf, [true, true]);
});
