import assert from 'node:assert/strict';
import { it } from 'node:test';
import { lines, start } from '../../src/linux/run.ts';
import { openRealHost } from './kernel-harness.ts';

it('names the process that is attached to a TUN device, in its own namespace only', async () => {
  await using host = await openRealHost();
  await using neighbour = await openRealHost();
  const name = 'flannel0';
  const modules = new URL('../../src/linux/', import.meta.url).href;
  const program = (text: string) => [process.execPath, '--no-warnings', '--input-type=module', '-e', text];
  const attach = program(`
    import { openTunDevice } from '${modules}tun-device.ts';
    globalThis.tun = openTunDevice({ name: '${name}' });
    console.log('attached');
    setInterval(() => {}, 1_000_000);`);
  const ask = program(`
    import { tunHolders } from '${modules}proc-net.ts';
    console.log(JSON.stringify(tunHolders('${name}')));`);
  const answer = async (netns: string): Promise<unknown> => {
    await using child = await start(ask, { netns });
    for await (const line of lines(child.stdout!)) return JSON.parse(line);
    return child.tail();
  };
  await using child = await start(attach, { netns: host.netns });
  const attached = await lines(child.stdout!)[Symbol.asyncIterator]().next();
  assert.equal(attached.value, 'attached', child.tail());
  assert.deepEqual(
    ((await answer(host.netns)) as { pid: number }[]).map((holder) => holder.pid),
    [child.pid],
  );
  assert.deepEqual(await answer(neighbour.netns), []);
});
