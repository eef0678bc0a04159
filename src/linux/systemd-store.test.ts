import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NotifySocket } from '../../test/fakes/notify-socket.ts';
import { LineFeed } from '../../test/netns/waiting.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { close, open } from './ffi.ts';
import { PacketDescriptors } from './packet-descriptors.ts';
import { start } from './run.ts';
import { keepInServiceManager, takeListenFds } from './systemd-store.ts';
import type { TunDevice } from './tun-device.ts';
import { openUdpSocket } from './udp-socket.ts';

const LOOPBACK = parseIpv4('127.0.0.1')!;

describe('descriptors that systemd keeps', () => {
  it('are given to it whenever there are others, in the place of those before', () => {
    using systemd = new NotifySocket('path');
    using descriptors = new PacketDescriptors(() => {});
    const environment = { NOTIFY_SOCKET: systemd.target };
    keepInServiceManager(descriptors, environment, (text) => assert.fail(text));
    assert.deepEqual(systemd.received(), []);
    const socket = openUdpSocket({ address: LOOPBACK, port: 0, bufferBytes: 65_536 });
    using _use = descriptors.lend({ fd: open('/dev/null', 0), name: 'weft0' } as TunDevice, socket);
    assert.deepEqual(systemd.received(), ['FDSTOREREMOVE=1\nFDNAME=packets', 'FDSTORE=1\nFDNAME=packets\nFDPOLL=0']);
    assert.equal(systemd.kept.length, 2);
  });

  it('are of the process that systemd means, by their name, and of none that this one starts', () => {
    const of = (pid: number, names: string) => ({ LISTEN_PID: `${pid}`, LISTEN_FDS: '3', LISTEN_FDNAMES: names });
    const environment = { ...of(process.pid + 1, 'packets:packets:packets'), PATH: '/bin' };
    assert.deepEqual(takeListenFds(environment), []);
    assert.deepEqual(environment, { PATH: '/bin' });
    assert.deepEqual(takeListenFds({ LISTEN_PID: `${process.pid}`, LISTEN_FDS: 'many' }), []);
    assert.deepEqual(takeListenFds({}), []);
  });

  it('are there in the next process', async () => {
    const socket = openUdpSocket({ address: LOOPBACK, port: 0, bufferBytes: 65_536 });
    const null0 = open('/dev/null', 0);
    const modules = new URL('.', import.meta.url).href;
    const program = `import { PacketDescriptors } from '${modules}packet-descriptors.ts';
      import { keepInServiceManager } from '${modules}systemd-store.ts';
      const descriptors = new PacketDescriptors(() => {});
      keepInServiceManager(descriptors, process.env, () => {});
      console.log(descriptors.takeSocket(${LOOPBACK}, ${socket.port})?.fd, process.env.LISTEN_FDS);`;
    const script = 'LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=other:packets:packets exec "$0" "$@"';
    const argv = ['sh', '-c', script, process.execPath, '--no-warnings', '--input-type=module', '-e', program];
    await using child = await start(argv, { descriptors: [null0, null0, socket.fd] });
    const { text } = await new LineFeed(child.stdout!).find(() => true);
    assert.equal(text, '5 undefined');
    socket[Symbol.dispose]();
    close(null0);
  });
});
