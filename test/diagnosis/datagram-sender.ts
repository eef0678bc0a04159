/**
 * Sends UDP datagrams of one size that must not be fragmented:
 *
 *     node datagram-sender.ts ADDRESS PORT COUNT BYTES PAUSE_MS
 *
 * BYTES with the headers of IP and UDP. With a pause of 0 as fast as the kernel takes them, otherwise with that pause after each
 * hundred, so that they fill no queue. Fails when the kernel refuses one: then it was not sent, and nobody else can account for it.
 */
import { parseIpv4 } from '../../src/ip/ipv4.ts';
import {
  AF_INET,
  IP_MTU_DISCOVER,
  IP_PMTUDISC_PROBE,
  IPPROTO_IP,
  SO_NO_CHECK,
  SOCK_DGRAM,
  SOL_SOCKET,
} from '../../src/linux/constants.ts';
import { addressOf, errnoName, sendto, socket } from '../../src/linux/ffi.ts';
import { setIntOption, sockaddrIn } from '../../src/linux/udp-socket.ts';

const HEADERS = 28;
const TRAIN = 100;

const [address = '', port = '', count = '', size = '', pauseMs = ''] = process.argv.slice(2);
const fd = socket(AF_INET, SOCK_DGRAM, 0);
const set = (what: string, level: number, option: number, value: number): void => {
  const result = setIntOption(fd, level, option, value);
  if (result < 0) throw new Error(`${what}: ${errnoName(result)}`);
};
// Whatever a router has said of the path.
set('IP_MTU_DISCOVER', IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
// An agent joins no datagrams without a checksum. Those that are joined are one packet to the kernel behind it, and one drop.
set('SO_NO_CHECK', SOL_SOCKET, SO_NO_CHECK, 1);
const name = sockaddrIn(parseIpv4(address)!, Number(port));
const bytes = new Uint8Array(new SharedArrayBuffer(Number(size) - HEADERS));
const [from, to] = [addressOf(bytes), addressOf(name)];
const never = new Int32Array(new SharedArrayBuffer(4));
for (let left = Number(count); left > 0; left--) {
  const sent = sendto(fd, from, bytes.length, 0, to, name.length);
  if (sent !== bytes.length) throw new Error(`sendto, with ${left} left: ${sent < 0 ? errnoName(sent) : sent}`);
  if (left % TRAIN === 0 && pauseMs !== '0') Atomics.wait(never, 0, 0, Number(pauseMs));
}
