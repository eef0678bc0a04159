/**
 * Traffic whose every byte is known, for bench/soak.ts: one TCP stream as fast as it goes, and UDP datagrams of all sizes.
 *
 *   node soak-stream.ts send ADDRESS PORT      node soak-stream.ts receive PORT
 *
 * Who receives prints a line of JSON a second, see {@link Received}. A connection that breaks ends the process with an error.
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

/** Sums since the start. */
export interface Received {
  readonly bytes: number;
  /** TCP blocks whose content is not what was sent. */
  readonly wrongBlocks: number;
  readonly datagrams: number;
  readonly wrongDatagrams: number;
}

const BLOCK_BYTES = 65_536;
const SHORTEST = 16;
const LONGEST = 1_400;
const DATAGRAMS_A_TURN = 20;
const TURN_MS = 10;
const REPORT_MS = 1_000;

/** What block or datagram number `number` is made of, its number first. */
function fill(into: Uint32Array, number: number): void {
  into[0] = number;
  // xorshift32 (Marsaglia, 2003), which never gets to 0 from another state.
  let state = (Math.imul(number, 0x9e37_79b1) ^ 0x5bd1_e995) >>> 0 || 1;
  for (let i = 1; i < into.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    into[i] = state;
  }
}

async function sendStream(socket: Socket): Promise<void> {
  for (let number = 0; ; number++) {
    const block = new Uint32Array(BLOCK_BYTES / 4);
    fill(block, number);
    if (!socket.write(new Uint8Array(block.buffer))) await once(socket, 'drain');
  }
}

function sendDatagrams(address: string, port: number): void {
  const socket = createSocket('udp4');
  // No route, no room: they are lost, as others are.
  socket.on('error', () => {});
  let number = 0;
  setInterval(() => {
    for (let i = 0; i < DATAGRAMS_A_TURN; i++) {
      const words = new Uint32Array((SHORTEST + ((number * 52) % (LONGEST - SHORTEST))) >>> 2);
      fill(words, number++);
      socket.send(new Uint8Array(words.buffer), port, address, () => {});
    }
  }, TURN_MS);
}

function receive(port: number): void {
  const sum = { bytes: 0, wrongBlocks: 0, datagrams: 0, wrongDatagrams: 0 } satisfies Received;
  createServer((socket) => {
    const block = new Uint8Array(BLOCK_BYTES);
    const expected = new Uint32Array(BLOCK_BYTES / 4);
    const view = new Uint8Array(expected.buffer);
    let number = 0;
    let filled = 0;
    socket.on('data', (chunk: Buffer) => {
      sum.bytes += chunk.length;
      for (let at = 0; at < chunk.length; ) {
        const part = chunk.subarray(at, at + BLOCK_BYTES - filled);
        block.set(part, filled);
        at += part.length;
        filled += part.length;
        if (filled < BLOCK_BYTES) break;
        filled = 0;
        fill(expected, number++);
        if (Buffer.compare(block, view) !== 0) sum.wrongBlocks++;
      }
    });
    socket.on('close', () => fail('the connection ended'));
    socket.on('error', (error) => fail(error.message));
  }).listen(port, '0.0.0.0');
  const datagrams = createSocket('udp4');
  datagrams.on('message', (message) => {
    sum.datagrams++;
    const words = new Uint32Array(message.length >>> 2);
    if (message.length >= SHORTEST) fill(words, message.readUInt32LE(0));
    if (Buffer.compare(message, new Uint8Array(words.buffer)) !== 0) sum.wrongDatagrams++;
  });
  datagrams.bind(port);
  setInterval(() => process.stdout.write(`${JSON.stringify(sum)}\n`), REPORT_MS);
}

function fail(why: string): void {
  process.stderr.write(`soak-stream: ${why}\n`);
  process.exit(1);
}

const [mode, first = '', second = ''] = process.argv.slice(2);
if (mode === 'receive') receive(Number(first));
else {
  const socket = connect(Number(second), first);
  socket.on('error', (error) => fail(error.message));
  await once(socket, 'connect');
  sendDatagrams(first, Number(second));
  await sendStream(socket);
}
