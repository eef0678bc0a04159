import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { encodePacket, VICI_PACKETS, ViciPackets, viciMessage } from '../ike/vici-message.ts';
import { NO_WORDS, ViciClient } from './vici-client.ts';

const never = new AbortController().signal;

/** A charon that takes `version`, lists one association, and refuses the rest. */
async function withCharon(use: (path: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'weft-vici-'));
  const path = join(directory, 'charon.vici');
  const { request, response, registerEvent, unregisterEvent, eventConfirmed, event } = VICI_PACKETS;
  const server = createServer((socket) => {
    const packets = new ViciPackets();
    socket.on('error', () => {});
    socket.on('data', (piece) => {
      for (const { type, name } of packets.take(piece as Buffer)) {
        if (type === registerEvent || type === unregisterEvent) socket.write(encodePacket(eventConfirmed, undefined));
        else if (type === request && name === 'list-sas') {
          socket.write(encodePacket(event, 'list-sa', viciMessage({ one: { state: 'ESTABLISHED' } })));
          socket.write(encodePacket(response, undefined));
        } else if (name === 'version') socket.write(encodePacket(response, undefined, viciMessage({ version: '5' })));
        else socket.write(encodePacket(response, undefined, viciMessage({ success: 'no', errmsg: 'not today' })));
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await use(path);
  } finally {
    server.close();
    await rm(directory, { recursive: true });
  }
}

describe('a connection to charon', () => {
  it('outlives the signal that its opening was given', async () => {
    await withCharon(async (path) => {
      const opening = new AbortController();
      using client = await ViciClient.open(path, opening.signal);
      opening.abort();
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal((await client.request('version', NO_WORDS, never)).get('version'), '5');
    });
  });

  it('asks one question after the other, and gives each its answer and its events', async () => {
    await withCharon(async (path) => {
      using client = await ViciClient.open(path, never);
      const [listed, version, refused] = await Promise.allSettled([
        client.list('list-sas', 'list-sa', NO_WORDS, never),
        client.request('version', NO_WORDS, never),
        client.request('load-conn', NO_WORDS, never),
      ]);
      assert.deepEqual(listed, { status: 'fulfilled', value: [viciMessage({ one: { state: 'ESTABLISHED' } })] });
      assert.equal(version.status, 'fulfilled');
      assert.match(String(refused.status === 'rejected' && refused.reason), /load-conn: not today/);
    });
  });

  it('says that it has ended, to who asks and to who waits', async () => {
    await withCharon(async (path) => {
      const client = await ViciClient.open(path, never);
      client[Symbol.dispose]();
      assert.match(await client.ended, /closed/);
      await assert.rejects(client.request('version', NO_WORDS, never), { code: 'WEFT_CHARON_FAILED' });
    });
    await assert.rejects(ViciClient.open('/nonexistent/charon.vici', never), { code: 'ENOENT' });
  });
});
