import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parsePing, percentile } from './ping-output.ts';

describe('parsePing', () => {
  it('reads several runs from one stream', () => {
    const runs = parsePing(`PING 10.244.2.2 (10.244.2.2) 56(84) bytes of data.
64 bytes from 10.244.2.2: icmp_seq=1 ttl=60 time=0.345 ms
64 bytes from 10.244.2.2: icmp_seq=2 ttl=60 time=0.2 ms
64 bytes from 10.244.2.2: icmp_seq=2 ttl=60 time=0.3 ms (DUP!)

--- 10.244.2.2 ping statistics ---
2 packets transmitted, 2 received, +1 duplicates, 0% packet loss, time 2ms
rtt min/avg/max/mdev = 0.200/0.272/0.345/0.072 ms
PING 10.244.9.9 (10.244.9.9) 56(84) bytes of data.
From 10.244.1.0 icmp_seq=1 Destination Net Unreachable

--- 10.244.9.9 ping statistics ---
3 packets transmitted, 0 received, +1 errors, 100% packet loss, time 4ms

PING 10.244.3.3 (10.244.3.3) 56(84) bytes of data.
64 bytes from 10.244.3.3: icmp_seq=1 ttl=60 time=1.5 ms
`);
    assert.deepEqual(runs, [
      { target: '10.244.2.2', sent: 2, received: 2, rttMs: [0.345, 0.2], errors: [] },
      {
        target: '10.244.9.9',
        sent: 3,
        received: 0,
        rttMs: [],
        errors: ['From 10.244.1.0 icmp_seq=1 Destination Net Unreachable'],
      },
    ]);
  });

  it('keeps the local error of a packet that is too long', () => {
    const [run] = parsePing(`PING 10.244.2.2 (10.244.2.2) 1445(1473) bytes of data.
ping: local error: message too long, mtu=1472

--- 10.244.2.2 ping statistics ---
1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms
`);
    assert.deepEqual(run?.errors, ['ping: local error: message too long, mtu=1472']);
  });
});

describe('percentile', () => {
  it('takes the nearest rank', () => {
    const values = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    assert.deepEqual(
      [0, 0.5, 0.91, 0.99, 1].map((share) => percentile(values, share)),
      [1, 5, 10, 10, 10],
    );
    assert.equal(percentile([7], 0.5), 7);
    assert.ok(Number.isNaN(percentile([], 0.5)));
  });
});
