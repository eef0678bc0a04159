import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { it } from 'node:test';
import { freePorts } from './free-ports.ts';

it('gives ports that differ, can be had, and that nobody gets who asks for any', async () => {
  const givenToAnybody = Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10);
  const ports = await freePorts(50);
  assert.equal(new Set(ports).size, 50);
  for (const port of ports) {
    // Some machines leave no room below.
    assert.ok(port < givenToAnybody || givenToAnybody < 21_000, `${port} is of those from ${givenToAnybody} on`);
    await using server = createServer().listen(port, '127.0.0.1');
    await once(server, 'listening');
    assert.equal((server.address() as AddressInfo).port, port);
  }
});
