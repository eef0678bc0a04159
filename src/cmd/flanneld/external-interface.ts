import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import type { ExternalInterface } from '../../backend/backend.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { parseIpv4 } from '../../ip/ipv4.ts';
import type { Log } from '../../log/log.ts';

export async function findExternalInterface(options: FlanneldOptions, log: Log): Promise<ExternalInterface> {
  const name = options.iface[0] ?? 'eth0';
  const text = networkInterfaces()[name]?.find((entry) => entry.family === 'IPv4')?.address;
  const address = parseIpv4(text ?? '');
  log.info(`Using interface with name ${name} and address ${text}`);
  const mtu = Number(await readFile(`/sys/class/net/${name}/mtu`, 'utf8'));
  return {
    name,
    mtuBytes: mtu,
    address,
    addressV6: undefined,
    publicIp: options.publicIp ?? address,
    publicIpv6: undefined,
  };
}
