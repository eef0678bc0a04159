/** A DNS server for one name, which every question is about. Arguments: port, address. Says so when it listens. */
import { createSocket } from 'node:dgram';

const [port = '', address = ''] = process.argv.slice(2);
const RESPONSE_FLAGS = 0x8580;

const server = createSocket('udp4');
server.on('message', (query, from) => {
  const head = Buffer.from(query);
  head.writeUInt16BE(RESPONSE_FLAGS, 2);
  head.writeUInt16BE(1, 6);
  // The name is that of the question; type A, class IN, for five seconds.
  const record = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, ...address.split('.').map(Number)]);
  server.send(Buffer.concat([head, record]), from.port, from.address);
});
server.bind(Number(port), () => process.stdout.write('listening\n'));
