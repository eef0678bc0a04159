import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { hasErrno } from '../../errno.ts';

/** Above what services of a machine have. */
const LOWEST = 20_000;
/** With fewer to choose from, two that ask at once would soon get the same. */
const FEW = 1_000;

/**
 * Loopback ports that are free now, all different. They are none of those that the kernel gives to whoever does not ask for a certain one
 * (`net.ipv4.ip_local_port_range`), connections to others among them: a server that was stopped finds its port free again. Where that
 * range leaves no room, they are of it.
 */
export async function freePorts(count: number): Promise<number[]> {
  const end = firstGivenByKernel();
  const servers: Server[] = [];
  // All are held at once, so that they differ.
  while (servers.length < count) {
    const server = await listening(end - LOWEST < FEW ? 0 : randomInt(LOWEST, end));
    if (server !== undefined) servers.push(server);
  }
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** The range is for IPv6 as well. */
function firstGivenByKernel(): number {
  return Number.parseInt(readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10);
}

/** `undefined` when somebody has that port. */
async function listening(port: number): Promise<Server | undefined> {
  const server = createServer().listen(port, '127.0.0.1');
  try {
    await once(server, 'listening');
    return server;
  } catch (error) {
    if (hasErrno(error, 'EADDRINUSE')) return undefined;
    throw error;
  }
}
