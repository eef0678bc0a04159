import assert from 'node:assert/strict';
import { it } from 'node:test';
import { formatAddr } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parseIpv6 } from '../ip/ipv6.ts';
import { open } from './ffi.ts';
import { PacketDescriptors } from './packet-descriptors.ts';
import type { TunDevice } from './tun-device.ts';
import { openUdpSocket } from './udp-socket.ts';

const LOOPBACK = parseIpv4('127.0.0.1')!;
const ELSEWHERE = parseIpv4('127.0.0.2')!;
const udp = (port: number) => openUdpSocket({ address: LOOPBACK, port, bufferBytes: 65_536 });
const tun = (): TunDevice => ({ fd: open('/dev/null', 0), name: 'weft0' }) as TunDevice;

for (const address of [LOOPBACK, parseIpv6('::1')!]) {
  it(`knows a socket at ${formatAddr(address)} again by its address and port`, () => {
    using descriptors = new PacketDescriptors(() => {});
    const socket = openUdpSocket({ address, port: 0, bufferBytes: 65_536 });
    descriptors.adopt([socket.fd]);
    using again = descriptors.takeSocket(address, socket.port);
    assert.deepEqual([again?.fd, again?.address, again?.port], [socket.fd, address, socket.port]);
  });
}

it('keeps the socket from one user to the next, and says what is in use', () => {
  using descriptors = new PacketDescriptors(() => {});
  const told: (readonly number[])[] = [];
  descriptors.onLent = (fds) => told.push(fds);
  const socket = udp(0);
  const device = tun();
  const use = descriptors.lend(device, socket);
  assert.deepEqual(told, [[device.fd, socket.fd]]);
  assert.equal(descriptors.takeSocket(LOOPBACK, socket.port), undefined, 'it is in use');
  use[Symbol.dispose]();
  assert.deepEqual(descriptors.lent, []);
  using again = descriptors.takeSocket(LOOPBACK, socket.port);
  assert.equal(again?.fd, socket.fd);
  assert.equal(descriptors.takeSocket(LOOPBACK, socket.port), undefined, 'once');
});

it('closes a socket of the address that the host had before, and what nobody takes', () => {
  const descriptors = new PacketDescriptors(() => {});
  const [first, second] = [udp(0), udp(0)];
  descriptors.adopt([first.fd, second.fd]);
  assert.equal(descriptors.takeSocket(ELSEWHERE, first.port), undefined);
  udp(first.port)[Symbol.dispose]();
  assert.throws(() => udp(second.port), /WEFT_PORT_IN_USE|in use/);
  descriptors[Symbol.dispose]();
  udp(second.port)[Symbol.dispose]();
});
