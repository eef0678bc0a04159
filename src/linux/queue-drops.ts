import { readTextIfThere } from './read-text.ts';

/** Packets that found no room in a queue, by queue; one that cannot be read is left out. */
export type QueueDrops = Readonly<Partial<Record<'device' | 'socket', number>>>;

/**
 * What the kernel drops around the forwarder, before a packet worker sees it: `device`, packets of containers that the TUN device's
 * queue had no room for; `socket`, datagrams of peers that the UDP socket's buffer had no room for. Counted by the kernel since the
 * device and the socket were made.
 */
export function readQueueDrops(tunName: string, port: number): QueueDrops {
  const device = Number.parseInt(readTextIfThere(`/sys/class/net/${tunName}/statistics/tx_dropped`), 10);
  const sockets = ['udp', 'udp6'].flatMap((file) => socketDrops(readTextIfThere(`/proc/self/net/${file}`), port) ?? []);
  const socket = sockets.length === 0 ? undefined : sockets.reduce((sum, drops) => sum + drops, 0);
  return { ...(Number.isNaN(device) ? {} : { device }), ...(socket === undefined ? {} : { socket }) };
}

/** Of the sockets with that local port in /proc/net/udp (Documentation/networking/proc_net_tcp.rst; `drops` is the last column). */
export function socketDrops(table: string, port: number): number | undefined {
  let drops: number | undefined;
  for (const row of table.split('\n').slice(1)) {
    const columns = row.trim().split(/\s+/);
    const local = Number.parseInt(columns[1]?.split(':')[1] ?? '', 16);
    const count = Number(columns[12]);
    if (local === port && Number.isSafeInteger(count)) drops = (drops ?? 0) + count;
  }
  return drops;
}
