/**
 * `node spoiling-card.ts A B`: carries frames between two interfaces as a network card with a known fault: it computes the checksum of
 * the outer UDP datagram of VXLAN, but takes the packet inside for complete as it finds it. Frames are read and sent as they are in
 * memory, so a checksum that was left to the card stays unfinished. Prints `ready`.
 */
import { readFileSync } from 'node:fs';
import { addressOf, bind, errnoName, pollAsync, read, setsockopt, socket, write } from '../../src/linux/ffi.ts';

const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK = 3 | 0x800;
/** ETH_P_ALL in network order. */
const ALL = 0x0300;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const VXLAN_PORT = 8472;
const POLLIN = 1;

function open(name: string): number {
  const fd = socket(AF_PACKET, SOCK_RAW_NONBLOCK, 0);
  const on = new Int32Array(new SharedArrayBuffer(4)).fill(1);
  const address = new DataView(new SharedArrayBuffer(20)); // struct sockaddr_ll
  address.setUint16(0, AF_PACKET, true);
  address.setUint16(2, ALL, true);
  address.setInt32(4, Number(readFileSync(`/sys/class/net/${name}/ifindex`, 'utf8')), true);
  for (const result of [
    fd,
    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, addressOf(on), 4),
    bind(fd, addressOf(address), 20),
  ]) {
    if (result < 0) throw new Error(`${name}: ${errnoName(result)}`);
  }
  return fd;
}

const fds = process.argv.slice(2).map(open);
const frame = new DataView(new SharedArrayBuffer(70_000));
const polled = new DataView(new SharedArrayBuffer(16)); // two struct pollfd
for (const [i, fd] of fds.entries()) {
  polled.setInt32(i * 8, fd, true);
  polled.setInt16(i * 8 + 4, POLLIN, true);
}
process.stdout.write('ready\n');
for (;;) {
  await pollAsync(addressOf(polled), 2, 1_000);
  for (const [i, fd] of fds.entries()) {
    for (let bytes = read(fd, addressOf(frame), 70_000); bytes > 0; bytes = read(fd, addressOf(frame), 70_000)) {
      const udp = 14 + (frame.getUint8(14) & 15) * 4;
      const isVxlan =
        frame.getUint16(12) === 0x0800 && frame.getUint8(23) === 17 && frame.getUint16(udp + 2) === VXLAN_PORT;
      // 0 is "none", which a receiver takes for right, as the card's sum would be.
      if (isVxlan) frame.setUint16(udp + 6, 0);
      write(fds[1 - i]!, addressOf(frame), bytes);
    }
  }
}
