/**
 * Both ends of connections on which numbered lines are sent and come back, for test/netns/echo-beside.ts: one process has an end of all of
 * them, so that what keeps it from a processor stops all of them alike.
 *
 *   node echo-program.ts serve PORT      node echo-program.ts connect PORT TICK_MS [FROM=]ADDRESS ..
 *
 * Who connects prints for each line that comes back the number of the connection, that of the line, and performance.now(). A connection that
 * ends, or brings back anything else, ends the process.
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';

function fail(why: string): void {
  process.stderr.write(`echo-program: ${why}\n`);
  process.exit(1);
}

async function open(port: number, target: string): Promise<Socket> {
  const [address, from] = target.split('=').reverse();
  const socket = connect({ port, host: address, noDelay: true, ...(from === undefined ? {} : { localAddress: from }) });
  socket.on('error', (error) => fail(`${target}: ${error.message}`));
  await once(socket, 'connect');
  socket.on('close', () => fail(`${target}: the connection ended`));
  return socket;
}

function echo(socket: Socket): void {
  socket.setNoDelay(true);
  socket.on('error', () => {});
  socket.pipe(socket);
}

const [mode, first = '', tick = '', ...targets] = process.argv.slice(2);
if (mode === 'serve') {
  createServer(echo).listen(Number(first), '::', () => process.stdout.write('ready\n'));
} else {
  const sockets = await Promise.all(targets.map((target) => open(Number(first), target)));
  for (const [index, socket] of sockets.entries()) {
    let rest = '';
    let expected = 1;
    socket.on('data', (chunk: Buffer) => {
      const now = performance.now();
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        if (Number(line) !== expected) fail(`line ${expected} came back as ${line}`);
        process.stdout.write(`${index} ${expected++} ${now.toFixed(1)}\n`);
      }
    });
  }
  let sent = 0;
  setInterval(() => {
    sent++;
    for (const socket of sockets) socket.write(`${sent}\n`);
  }, Number(tick));
}
