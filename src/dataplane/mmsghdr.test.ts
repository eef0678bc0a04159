import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { address } from '../../test/fakes/packets.ts';
import { createArena } from './arena.ts';
import {
  armForReceive,
  CONTROL_SIZE,
  initMessage,
  MESSAGE_SIZE,
  putReceivedSegmentSize,
  putSockaddr,
  receivedLength,
  receivedSegmentSize,
  SOCKADDR_SIZE,
  setReceivedLength,
  setSegmentSize,
  setVector,
} from './mmsghdr.ts';

const BASE = 0x7f00_0000_0000;
const arena = createArena(() => BASE);
const MESSAGE = 1_024;
const NAME = 2_048;
const CONTROL = 3_072;

function bytes(at: number, length: number): string {
  return Buffer.from(arena.bytes.slice(at, at + length)).toString('hex');
}

describe('struct mmsghdr', () => {
  it('is laid out as linux/socket.h has it on 64-bit machines', () => {
    arena.bytes.fill(0, MESSAGE, MESSAGE + MESSAGE_SIZE);
    initMessage(arena, MESSAGE, NAME, SOCKADDR_SIZE, CONTROL);
    setVector(arena, MESSAGE, 4_096, 7);
    const { view } = arena;
    assert.equal(view.getBigUint64(MESSAGE, true), BigInt(BASE + NAME)); // msg_name
    assert.equal(view.getUint32(MESSAGE + 8, true), 16); // msg_namelen
    assert.equal(view.getBigUint64(MESSAGE + 16, true), BigInt(BASE + 4_096)); // msg_iov
    assert.equal(view.getBigUint64(MESSAGE + 24, true), 7n); // msg_iovlen
    assert.equal(view.getBigUint64(MESSAGE + 32, true), BigInt(BASE + CONTROL)); // msg_control
  });

  it('carries the address in network order', () => {
    putSockaddr(arena, NAME, address('192.168.77.2'), 8_285);
    assert.equal(bytes(NAME, 8), '0200' + '205d' + 'c0a84d02');
  });

  it('asks for segments with one control message, and for none with no control message', () => {
    setSegmentSize(arena, MESSAGE, CONTROL, 1_472);
    assert.equal(arena.view.getBigUint64(MESSAGE + 40, true), BigInt(CONTROL_SIZE));
    assert.equal(bytes(CONTROL, 18), '1200000000000000' + '11000000' + '67000000' + 'c005');
    setSegmentSize(arena, MESSAGE, CONTROL, 0);
    assert.equal(arena.view.getBigUint64(MESSAGE + 40, true), 0n);
  });

  it('reads back what the kernel writes on receive', () => {
    armForReceive(arena, MESSAGE, SOCKADDR_SIZE);
    assert.equal(arena.view.getBigUint64(MESSAGE + 40, true), BigInt(CONTROL_SIZE));
    setReceivedLength(arena, MESSAGE, 65_507);
    putReceivedSegmentSize(arena, MESSAGE, CONTROL, 1_472);
    assert.equal(receivedLength(arena, MESSAGE), 65_507);
    assert.equal(receivedSegmentSize(arena, MESSAGE, CONTROL), 1_472);
    putReceivedSegmentSize(arena, MESSAGE, CONTROL, 0);
    assert.equal(receivedSegmentSize(arena, MESSAGE, CONTROL), 0);
  });

  it('does not take another control message for a segment size', () => {
    putReceivedSegmentSize(arena, MESSAGE, CONTROL, 1_472);
    arena.view.setUint32(CONTROL + 12, 103, true);
    assert.equal(receivedSegmentSize(arena, MESSAGE, CONTROL), 0);
  });
});
