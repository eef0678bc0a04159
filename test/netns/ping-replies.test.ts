import assert from 'node:assert/strict';
import { it } from 'node:test';
import { lostPings } from './ping-replies.ts';

const reply = (sequence: number): string => `64 bytes from 10.0.0.1: icmp_seq=${sequence} ttl=64 time=0.1 ms`;

it('pings are counted where numbers begin again, come late or twice, and errors are no answers', () => {
  const numbers = Array.from({ length: 0x1_0000 + 10 }, (_, index) => (index + 1) % 0x1_0000);
  const lines = ['PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.', ...numbers.map(reply)];
  assert.deepEqual(lostPings(lines), { lost: 0, of: 0x1_0000 + 10 });
  const [first, second] = [lines.indexOf(reply(0xffff)), lines.indexOf(reply(7))];
  const late = [...lines.slice(0, first), ...lines.slice(first + 1), reply(0xffff), reply(0xffff)];
  assert.deepEqual(lostPings(late), { lost: 0, of: 0x1_0000 + 10 });
  const unreachable = lines.with(second, 'From 10.0.0.2 icmp_seq=7 Destination Host Unreachable');
  assert.deepEqual(lostPings(unreachable), { lost: 1, of: 0x1_0000 + 10 });
  assert.deepEqual(lostPings([]), { lost: 0, of: 0 });
});
