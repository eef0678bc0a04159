import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import type { LabContainer, LabHost } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { transfer } from './fast-path-use.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { eventually, eventuallyHolds } from './waiting.ts';

const FILE_BYTES = 8 * 1024 * 1024;
const signal = new AbortController().signal;

it('where there is no bpffs the fast path is open, ends with the agent, and the log says why', async () => {
  await using resources = new AsyncDisposableStack();
  const mountPoint = await mkdtemp(join(tmpdir(), 'weft-no-bpf-'));
  resources.defer(() => rm(mountPoint, { recursive: true }));
  await run(['mount', '-t', 'tmpfs', 'weft-test', mountPoint]);
  resources.defer(async () => void (await run(['umount', mountPoint])));
  const agentFlags = ['--fast-path', 'auto', '--fast-path-dir', join(mountPoint, 'weft')];
  const overlay = resources.use(
    await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native', agentFlags }, signal),
  );
  const { topology, agents } = overlay;
  const [host] = topology.hosts as [LabHost];
  const [a, b] = topology.containers as [LabContainer, LabContainer];
  const says = `, until the agent ends: no bpffs is mounted at ${mountPoint}`;
  await eventually(`the log says "${says}"`, async () => (await overlay.log(host)).includes(says));
  const reads = async (): Promise<number> =>
    Number(/\{operation="txReads"\} (\d+)$/m.exec(await overlay.ask(host, '/metrics'))![1]);
  await eventuallyHolds(async () => {
    const before = await reads();
    await transfer(topology, a, b, FILE_BYTES);
    const more = (await reads()) - before;
    assert.ok(more < 60, `${more} packets by the forwarder`);
  });
  assert.deepEqual(readdirSync(mountPoint), []);
  agents[0]!.child.kill('SIGKILL');
  await agents[0]!.child.exited;
  assert.ok(!(await ping(topology, a, addressOf(b), '-W', '1')).ok);
});
