import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { parseAddr } from '../ip/address.ts';
import {
  describeHolders,
  holderOf,
  isNodeAgent,
  nodeAgents,
  tunHolders,
  udpPortHolders,
  udpSockets,
} from './proc-net.ts';
import { lines, start } from './run.ts';

const addr = (text: string) => parseAddr(text) ?? assert.fail(text);

async function listen(type: 'udp4' | 'udp6', address: string, port = 0): Promise<Socket> {
  const socket = createSocket({ type, ipv6Only: type === 'udp6' });
  socket.bind(port, address);
  await once(socket, 'listening');
  return socket;
}

describe('udpPortHolders', () => {
  it('names the process that has the port', async () => {
    const text = `const s = require('dgram').createSocket('udp4');
      s.bind(0, '127.0.0.1', () => console.log(s.address().port));`;
    await using child = await start([process.execPath, '-e', text]);
    let port = 0;
    for await (const line of lines(child.stdout!)) {
      port = Number(line);
      break;
    }
    const holders = udpPortHolders(port, addr('127.0.0.1'));
    assert.deepEqual(
      holders.map(({ pid, address }) => ({ pid, address })),
      [{ pid: child.pid, address: addr('127.0.0.1') }],
    );
    assert.match(describeHolders(holders), new RegExp(`^pid ${child.pid} \\(node\\)$`));
    assert.deepEqual(udpPortHolders(port, addr('127.0.0.2')), []);
  });

  it('knows that a socket on all addresses is in the way of each, and the other way round', async (t) => {
    const all = await listen('udp4', '0.0.0.0');
    t.after(() => all.close());
    const one = await listen('udp6', '::1');
    t.after(() => one.close());
    const [first] = udpPortHolders(all.address().port, addr('127.0.0.1'));
    assert.deepEqual([first?.pid, first?.address], [process.pid, 0]);
    const [second] = udpPortHolders(one.address().port, addr('::'));
    assert.deepEqual([second?.pid, second?.address], [process.pid, 1n]);
  });

  it('reads the tables of the kernel', () => {
    const table4 = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  241: 014DA8C0:205D 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71923 2 0000000000000000 0
  242: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 71924 2 0000000000000000 0
`;
    assert.deepEqual(udpSockets(table4, 8285), [{ inode: '71923', addr: addr('192.168.77.1') }]);
    const table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1: 000080FE00000000FF005450B6CE71FE:0222 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 99 2 0 0
`;
    assert.deepEqual(udpSockets(table6, 546), [{ inode: '99', addr: addr('fe80::5054:ff:fe71:ceb6') }]);
    assert.deepEqual(udpSockets('', 1), []);
  });
});

describe('holderOf: a child that is about to become another program', () => {
  const socket = { fd: '9', target: 'socket:[71923]' };
  const lookAt = (argv: string[], link: string) => ({ argvOf: () => argv, readLink: () => link });

  it('is none once that has begun, or it has ended', () => {
    assert.deepEqual(holderOf(7, socket, lookAt(['ip', 'link'], '')), []);
    assert.deepEqual(holderOf(7, socket, lookAt([''], '')), []);
    assert.deepEqual(holderOf(7, socket, lookAt([''], socket.target)), []);
  });

  it('is one that has the descriptor still', () => {
    assert.deepEqual(holderOf(7, socket, lookAt(['/opt/bin/flanneld'], socket.target)), [
      { pid: 7, command: 'flanneld' },
    ]);
  });
});

describe('tunHolders', () => {
  it('finds nobody for a device that does not exist', () => {
    assert.deepEqual(tunHolders('weft-no-such'), []);
    assert.equal(describeHolders([]), 'another process');
  });
});

describe('nodeAgents', () => {
  for (const { argv, found } of [
    { argv: ['/opt/bin/flanneld', '--ip-masq'], found: true },
    { argv: ['node', '--no-warnings', '/usr/lib/weft/src/cmd/flanneld/main.ts'], found: true },
    { argv: ['/usr/bin/node', '/usr/lib/weft/flanneld.mjs'], found: true },
    { argv: ['/usr/local/bin/weft', 'flanneld', '--ip-masq'], found: true },
    { argv: ['/usr/local/bin/weft', 'cleanup'], found: false },
    { argv: ['vi', '/opt/bin/flanneld'], found: false },
    { argv: ['bash', '/root/flanneld.sh'], found: false },
    { argv: ['node', '/usr/lib/weft/src/cmd/weft/main.ts', 'cleanup'], found: false },
    { argv: [''], found: false },
  ]) {
    it(`${found ? 'are' : 'are not'} ${argv.join(' ')}`, () => assert.equal(isNodeAgent(argv), found));
  }

  it('are found among the processes of this network namespace', async () => {
    const argv = ['bash', '-c', `exec -a flanneld sh -c 'echo started; read -r _'`];
    await using child = await start(argv, { stdin: 'pipe' });
    for await (const line of lines(child.stdout!)) if (line === 'started') break;
    assert.deepEqual(
      nodeAgents().filter(({ pid }) => pid === child.pid),
      [{ pid: child.pid, command: 'flanneld' }],
    );
  });
});

it('names each process once', () => {
  const holder = { pid: 7, command: 'flanneld' };
  assert.equal(describeHolders([holder, holder, { pid: 8, command: 'socat' }]), 'pid 7 (flanneld) and pid 8 (socat)');
});
