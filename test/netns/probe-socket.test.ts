import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type IpAddr, parseAddr } from '../../src/ip/address.ts';
import { insideNamespace } from '../../src/linux/network-namespaces.ts';
import { openProbeSocket } from '../../src/linux/probe-socket.ts';
import type { Arrival, ProbeIo } from '../../src/probe/ports.ts';
import { type Namespace, withNamespace } from './traffic-namespace.ts';
import { eventually } from './waiting.ts';

/** Several times what a socket's queue holds. */
const FLOOD = 3_000;

describe('the sockets of the probes', () => {
  let namespace: Namespace;
  before(async () => {
    namespace = await withNamespace();
  });
  after(() => namespace[Symbol.asyncDispose]());

  const inside = <T>(work: () => T): T => insideNamespace(`/run/netns/${namespace.name}`, work);
  const opened = (): ProbeIo => inside(() => openProbeSocket());
  const send = (io: ProbeIo, to: IpAddr, sequence: number): void => {
    const sent = io.send({ kind: 'echo', to, sequence, totalBytes: 84 });
    assert.ok('atMs' in sent, JSON.stringify(sent));
  };

  for (const address of ['127.0.0.1', '::1']) {
    it(`${address}: lose no answer to who sends more of the rest than they can hold`, async () => {
      using io = opened();
      using stranger = opened();
      const to = parseAddr(address)!;
      for (let i = 0; i < FLOOD; i++) send(stranger, to, i & 0xffff);
      send(io, to, 7);
      const come: Arrival[] = [];
      await eventually('the answer comes', async () => {
        come.push(...io.receive());
        return come.some(({ message }) => message.kind === 'reply' && message.sequence === 7) || undefined;
      });
      assert.ok(come.every(({ from }) => from === to));
      const requests = come.filter(({ message }) => message.kind === 'request').length;
      assert.ok(requests > 0 && requests < FLOOD, `${requests} requests were held`);
    });
  }

  it('hear answers to their own echoes alone, and what is refused', async () => {
    using io = opened();
    using other = opened();
    const to = parseAddr('127.0.0.1')!;
    send(other, to, 1);
    send(io, to, 2);
    const sent = inside(() => io.send({ kind: 'udp', to, port: 9, checksum: true }));
    assert.ok('atMs' in sent);
    const come: Arrival[] = [];
    await eventually('both have come', async () => {
      come.push(...io.receive());
      return come.filter(({ message }) => message.kind !== 'request').length >= 2 || undefined;
    });
    const told = come.flatMap(({ message }) => (message.kind === 'request' ? [] : [message]));
    assert.deepEqual(
      told.toSorted((a, b) => a.kind.localeCompare(b.kind)),
      [
        { kind: 'error', reason: 'port', mtuBytes: 0, about: { kind: 'udp', to, port: 9 } },
        { kind: 'reply', sequence: 2 },
      ],
    );
  });
});
