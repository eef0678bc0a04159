import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { it } from 'node:test';
import { attachXdp, endPinned } from '../../src/linux/bpf.ts';
import { readDeviceIndex } from '../../src/linux/ethtool.ts';
import { openProgramBench } from '../fuzz/program-bench.ts';
import { folderOnBpffs } from './bpffs.ts';

const ROUNDS = 50;

it('what was pinned leaves the device at once, so that the next XDP program finds it free', async () => {
  await using resources = new AsyncDisposableStack();
  const pin = (await folderOnBpffs(resources)).concat('-xdp');
  const bench = resources.use(await openProgramBench());
  const device = readDeviceIndex('eth0');
  for (let round = 0; round < ROUNDS; round++) {
    const attachment = attachXdp(bench.xdp.host, device, pin);
    assert.ok(!attachment.isTakenOver);
    attachment[Symbol.dispose]();
    endPinned(pin);
    assert.ok(!existsSync(pin));
  }
});

it('an attachment that is pinned elsewhere is taken over from there, and one that is of no use makes room', async () => {
  await using resources = new AsyncDisposableStack();
  const folder = await folderOnBpffs(resources);
  const [pin, earlier] = [`${folder}-xdp`, `${folder}-earlier`];
  const bench = resources.use(await openProgramBench());
  const [device, otherDevice] = [readDeviceIndex('eth0'), readDeviceIndex('eth1')];
  attachXdp(bench.xdp.beyond, device, earlier)[Symbol.dispose]();
  attachXdp(bench.xdp.beyond, otherDevice, pin)[Symbol.dispose]();
  using taken = attachXdp(bench.xdp.host, device, pin, [earlier]);
  assert.ok(taken.isTakenOver);
  assert.deepEqual([pin, earlier].map(existsSync), [true, false]);
  using free = attachXdp(bench.xdp.host, otherDevice);
  assert.ok(!free.isTakenOver);
  endPinned(pin);
});
