import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { run } from '../../src/linux/run.ts';

/** A folder for `--fast-path-dir` on a bpffs of its own, for `ip netns exec` hides the machine's. Both go with the stack. */
export async function folderOnBpffs(stack: AsyncDisposableStack): Promise<string> {
  const mountPoint = await mkdtemp(join(tmpdir(), 'weft-bpf-'));
  stack.defer(() => rm(mountPoint, { recursive: true }));
  await run(['mount', '-t', 'bpf', 'weft-test', mountPoint]);
  stack.defer(async () => void (await run(['umount', mountPoint])));
  return join(mountPoint, 'weft');
}
