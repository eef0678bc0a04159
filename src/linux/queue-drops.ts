import { readTextIfThere } from './read-text.ts';

/**
 * Packets of containers that the kernel has dropped at that device since it was made: a TUN device whose queue had no room, a device
 * of a backend in the kernel that had no room or did not know where to send them. `undefined` when it is not there.
 */
export function readDeviceDrops(name: string): number | undefined {
  const count = Number.parseInt(readTextIfThere(`/sys/class/net/${name}/statistics/tx_dropped`), 10);
  return Number.isNaN(count) ? undefined : count;
}

/** Datagrams of peers that the UDP socket of that port had no room for since it was made; `undefined` when there is none. */
export function readSocketDrops(port: number): number | undefined {
  const counts = ['udp', 'udp6'].flatMap((file) => socketDrops(readTextIfThere(`/proc/self/net/${file}`), port) ?? []);
  return counts.length === 0 ? undefined : counts.reduce((sum, count) => sum + count, 0);
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
