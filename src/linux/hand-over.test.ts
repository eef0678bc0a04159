import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { eventually } from '../../test/netns/waiting.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { addressOf, open, read } from './ffi.ts';
import { HandOver } from './hand-over.ts';
import { PacketDescriptors } from './packet-descriptors.ts';
import type { TunDevice } from './tun-device.ts';
import { openUdpSocket } from './udp-socket.ts';

const LOOPBACK = parseIpv4('127.0.0.1')!;
const { signal } = new AbortController();

interface Side extends Disposable {
  readonly descriptors: PacketDescriptors;
  readonly handOver: HandOver;
  readonly notices: readonly string[];
}

describe('the hand-over from one agent to the next', { timeout: 60_000 }, () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'weft-hand-over-'));
    path = join(directory, 'subnet.env.hand-over');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function side(options: ConstructorParameters<typeof HandOver>[3] = {}): Side {
    const notices: string[] = [];
    const descriptors = new PacketDescriptors((text) => notices.push(text));
    const handOver = new HandOver(path, descriptors, (text) => notices.push(text), options);
    return {
      ...{ descriptors, handOver, notices },
      [Symbol.dispose]: () => {
        handOver[Symbol.dispose]();
        descriptors[Symbol.dispose]();
      },
    };
  }

  /** What the agent has told its parts. */
  async function accepting(from: Side): Promise<{ told: string[]; end: AsyncDisposable }> {
    const told: string[] = [];
    const end = await from.handOver.accept({
      release: () => told.push('release'),
      regain: () => told.push('regain'),
    });
    return { told, end };
  }

  /** However the other end has ended it. */
  function endOf(connection: Socket): Promise<void> {
    return new Promise((resolve) => connection.on('error', () => {}).once('close', () => resolve()));
  }

  async function until(fits: () => boolean): Promise<void> {
    await eventually(String(fits), fits);
  }

  it('finds nobody where nobody is, and where somebody was', async () => {
    using next = side();
    assert.equal(await next.handOver.announce(signal), undefined);
    writeFileSync(path, '');
    assert.equal(await next.handOver.announce(signal), undefined);
    const { end } = await accepting(next);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    await end[Symbol.asyncDispose]();
    assert.deepEqual(readdirSync(directory), []);
    assert.deepEqual(next.notices, []);
  });

  it('gives the socket with what waits in it to the next agent, and leaves when that one carries packets', async () => {
    using old = side();
    using next = side();
    const socket = openUdpSocket({ address: LOOPBACK, port: 0, bufferBytes: 65_536 });
    // Not of the TUN driver: of no use to whoever gets it.
    const other = open('/dev/null', 0);
    const tun = { fd: other, name: 'weft0' } as TunDevice;
    using _lent = old.descriptors.lend(tun, socket);
    const { told, end } = await accepting(old);
    const sender = createSocket('udp4').unref();
    await new Promise<void>((resolve) => sender.send('waiting', socket.port, '127.0.0.1', () => resolve()));

    const predecessor = await next.handOver.announce(signal);
    assert.ok(predecessor !== undefined);
    assert.deepEqual(told, ['release']);
    assert.ok(old.handOver.successorDecided() !== undefined);
    assert.equal(old.handOver.superseded.aborted, false);
    assert.equal(next.descriptors.takeTun('weft0'), undefined);
    using taken = next.descriptors.takeSocket(LOOPBACK, socket.port);
    assert.ok(taken !== undefined && taken.fd !== socket.fd);
    const bytes = new Uint8Array(new SharedArrayBuffer(100));
    const length = read(taken.fd, addressOf(bytes), bytes.length);
    assert.equal(Buffer.from(bytes.slice(0, length)).toString(), 'waiting');

    const carried = predecessor.carries(signal);
    await until(() => old.handOver.superseded.aborted);
    assert.equal(old.handOver.successorDecided(), undefined, 'a stop has nothing to wait for any more');
    await end[Symbol.asyncDispose]();
    void old.handOver.left();
    await carried;
    assert.deepEqual(told, ['release']);
    // The place is free for the next agent's next one.
    const { end: nextEnd } = await accepting(next);
    await nextEnd[Symbol.asyncDispose]();
    sender.close();
  });

  it('goes on as before when the next agent ends without carrying packets', async () => {
    using old = side();
    const { told, end } = await accepting(old);
    await using _ = end;
    const next = connect(path);
    await once(next, 'connect');
    next.write('take-over-1 0a0b\n');
    await until(() => told.length > 0);
    // Nobody is there to be given descriptors.
    await until(() => told.length > 1);
    assert.deepEqual(told, ['release', 'regain']);
    assert.equal(old.handOver.successorDecided(), undefined);
    assert.equal(old.handOver.superseded.aborted, false);

    using another = side();
    assert.ok((await another.handOver.announce(signal)) !== undefined, 'the next one is as welcome');
  });

  it('has one follower at a time, and does not leave on words that it does not know', async () => {
    using old = side();
    using next = side();
    using third = side();
    const { end } = await accepting(old);
    await using _ = end;
    const stranger = connect(path);
    const closed = once(stranger, 'close');
    stranger.write('carries\n');
    await closed;
    assert.equal(old.handOver.superseded.aborted, false);
    await until(() => old.handOver.successorDecided() === undefined);
    assert.ok((await next.handOver.announce(signal)) !== undefined);
    assert.equal(await third.handOver.announce(signal), undefined);
    assert.match(third.notices.join(), /^Could not take over from the running agent: it has ended$/);
  });

  it('is for root and the user of the agent alone, also where the mode of the socket lets others in', async () => {
    for (const user of [65_534, undefined]) {
      using old = side({ userOf: () => user });
      const { told, end } = await accepting(old);
      await using _ = end;
      const stranger = connect(path);
      const closed = endOf(stranger);
      stranger.write('take-over-1 00\ncarries\n');
      await closed;
      assert.deepEqual(told, []);
      assert.equal(old.handOver.superseded.aborted, false);
      assert.match(old.notices.join(), /^Only root and the agent’s user may take over here: refused .+$/);
    }
    using old = side();
    using next = side({ userOf: () => 65_534 });
    const { told, end } = await accepting(old);
    await using _ = end;
    assert.equal(await next.handOver.announce(signal), undefined, 'nor is such an agent followed');
    assert.deepEqual(told, []);
  });

  it('is kept from nobody by who says nothing, or without end', async () => {
    using old = side({ silenceMs: 50 });
    using next = side();
    const { end } = await accepting(old);
    await using _ = end;
    const silent = connect(path);
    const silentEnds = endOf(silent);
    await once(silent, 'connect');
    const endless = connect(path);
    const endlessEnds = endOf(endless);
    endless.write('x'.repeat(100_000));
    // On a busy machine the next agent may be taken for a silent one, too; it is none that waits for the others.
    await eventually('it takes over', async () => (await next.handOver.announce(signal)) !== undefined);
    await Promise.all([silentEnds, endlessEnds]);
  });
});
