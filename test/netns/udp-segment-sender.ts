/**
 * Sends what comes on standard input as UDP datagrams of one size, many with each system call (UDP_SEGMENT), as QUIC servers do:
 *
 *     node udp-segment-sender.ts ADDRESS PORT SIZE [COUNT,COUNT...]
 *
 * Each system call has so many datagrams as the next COUNT says, in turn.
 */
import { parseIpv4 } from '../../src/ip/ipv4.ts';
import { AF_INET, SOCK_DGRAM, SOL_UDP, UDP_SEGMENT } from '../../src/linux/constants.ts';
import { addressOf, errnoName, sendto, socket } from '../../src/linux/ffi.ts';
import { setIntOption, sockaddrIn } from '../../src/linux/udp-socket.ts';

const SEGMENTS = 20;

const [address = '', port = '', size = '', counts = String(SEGMENTS)] = process.argv.slice(2);
const lengths = counts.split(',').map((count) => Number(count) * Number(size));
const fd = socket(AF_INET, SOCK_DGRAM, 0);
const name = sockaddrIn(parseIpv4(address)!, Number(port));
const set = setIntOption(fd, SOL_UDP, UDP_SEGMENT, Number(size));
if (set < 0) throw new Error(`UDP_SEGMENT: ${errnoName(set)}`);

const chunks: Buffer[] = [];
for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
const input = Buffer.concat(chunks);
const bytes = new Uint8Array(new SharedArrayBuffer(Math.max(...lengths)));
for (let from = 0, call = 0; from < input.length; call++) {
  const part = input.subarray(from, from + lengths[call % lengths.length]!);
  from += part.length;
  bytes.set(part);
  const sent = sendto(fd, addressOf(bytes), part.length, 0, addressOf(name), name.length);
  if (sent !== part.length) throw new Error(`sendto: ${sent < 0 ? errnoName(sent) : sent}`);
}
