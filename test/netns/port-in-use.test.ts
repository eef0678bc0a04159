import assert from 'node:assert/strict';
import { it } from 'node:test';
import { lines, start } from '../../src/linux/run.ts';
import { openRealHost } from './kernel-harness.ts';

it('says who has the port, and who the TUN device', async () => {
  await using host = await openRealHost();
  const modules = new URL('../../src/', import.meta.url).href;
  const program = (text: string) => [
    process.execPath,
    '--no-warnings',
    '--input-type=module',
    '-e',
    `import { openTunDevice } from '${modules}linux/tun-device.ts';
     import { openUdpSocket } from '${modules}linux/udp-socket.ts';
     import { describeError } from '${modules}errors.ts';
     const tun = () => openTunDevice({ name: 'flannel0' });
     const udp = () => openUdpSocket({ address: 0xc0a84d01, port: 8285, bufferBytes: 65_536 });
     ${text}`,
  ];
  await using first = await start(
    program(`globalThis.kept = [tun(), udp()]; console.log('ready'); setInterval(() => {}, 1_000_000);`),
    { netns: host.netns },
  );
  const ready = await lines(first.stdout!)[Symbol.asyncIterator]().next();
  assert.equal(ready.value, 'ready', first.tail());
  await using second = await start(
    program(`for (const open of [udp, tun]) try { open(); } catch (error) { console.log(describeError(error)); }`),
    { netns: host.netns },
  );
  const said: string[] = [];
  for await (const line of lines(second.stdout!)) said.push(line);
  const holder = `pid ${first.pid} \\(node\\)`;
  assert.match(
    said[0] ?? '',
    new RegExp(
      `^failed to listen on UDP 192\\.168\\.77\\.1:8285: the port is in use by ${holder} \\[WEFT_PORT_IN_USE\\]`,
    ),
  );
  assert.match(
    said[1] ?? '',
    new RegExp(`^failed to attach to TUN device flannel0: it is in use by ${holder} \\(EBUSY\\) \\[WEFT_TUN_BUSY\\]`),
  );
});
