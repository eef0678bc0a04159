import { open, readFile, stat } from 'node:fs/promises';
import type { DoctorHost, HostLink, HostRoute } from '../../doctor/host.ts';
import { hasErrno } from '../../errno.ts';
import { describeError } from '../../errors.ts';
import { ipv4Of } from '../../ip/ipv4.ts';
import { tryFastPath } from '../../linux/bpf.ts';
import { CAP_NET_ADMIN, CAP_NET_RAW, hasCapability } from '../../linux/capabilities.ts';
import { findProgram, programPaths } from '../../linux/find-program.ts';
import { FirewallReader } from '../../linux/firewall-text.ts';
import { parseIpList } from '../../linux/interfaces.ts';
import { udpPortHolders } from '../../linux/proc-net.ts';
import { isCommandMissing, run } from '../../linux/run.ts';
import { readXfrmPolicies } from '../../linux/xfrm.ts';

interface IpLink {
  readonly ifname: string;
  readonly ifalias?: string;
  readonly mtu: number;
  readonly flags: readonly string[];
  readonly addr_info?: readonly {
    readonly family: string;
    readonly local: string;
    readonly prefixlen: number;
    readonly scope?: string;
  }[];
}

/** This host, as this process sees it. */
export function realHost(): DoctorHost {
  return {
    inPod: process.env.KUBERNETES_SERVICE_HOST !== undefined,
    readText: (path) => ifThere(readFile(path, 'utf8')),
    modifiedAt: async (path) => (await ifThere(stat(path)))?.mtime,
    openError: async (path) => {
      try {
        await using _ = await open(path, 'r+');
        return undefined;
      } catch (error) {
        return error instanceof Error && 'code' in error ? String(error.code) : String(error);
      }
    },
    hasCapability: (name) => hasCapability(name === 'CAP_NET_ADMIN' ? CAP_NET_ADMIN : CAP_NET_RAW),
    fastPathObstacle: () => {
      try {
        tryFastPath();
        return undefined;
      } catch (error) {
        return describeError(error);
      }
    },
    links: async (signal) => {
      const links = JSON.parse((await run(['ip', '-j', 'address', 'show'], { signal })).stdout) as IpLink[];
      return links.map(
        ({ ifname, ifalias, mtu, flags, addr_info = [] }): HostLink => ({
          name: ifname,
          alias: ifalias,
          mtuBytes: mtu,
          up: flags.includes('UP'),
          addresses: addr_info
            .filter(({ family, scope }) => family === 'inet' || (family === 'inet6' && scope !== 'link'))
            .map(({ local, prefixlen }) => `${local}/${prefixlen}`),
        }),
      );
    },
    routes: async (signal) => {
      const of = async (family: '-4' | '-6'): Promise<HostRoute[]> => {
        const argv = ['ip', '-N', '-j', family, 'route', 'show', 'table', 'main'];
        // A kernel without IPv6 has no routes of it.
        const { stdout, exitCode } = await run(argv, { okExitCodes: family === '-6' ? 'any' : [0], signal });
        const routes = exitCode === 0 ? parseIpList(stdout, argv) : [];
        const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);
        return routes.map(({ dst, dev, gateway, protocol }) => ({
          ...{ dst: String(dst), dev: text(dev), via: text(gateway) },
          protocol: protocol === undefined ? undefined : Number(protocol),
        }));
      };
      return [...(await of('-4')), ...(await of('-6'))];
    },
    versionOf: async ({ name, folders = [] }, signal) => {
      try {
        const path = (await findProgram(programPaths(name, folders))) ?? name;
        return (await run([path, '--version'], { signal })).stdout.split('\n')[0];
      } catch (error) {
        if (isCommandMissing(error)) return undefined;
        throw error;
      }
    },
    firewall: (signal) => new FirewallReader((path) => ifThere(readFile(path, 'utf8'))).read(signal),
    ipsecPolicies: () => {
      const policies = readXfrmPolicies();
      return typeof policies === 'number' ? undefined : policies.count + Number(policies.blocksByDefault);
    },
    udpPortHolders: (port) => udpPortHolders(port, ipv4Of(0)).map(({ pid, command }) => `pid ${pid} (${command})`),
    get: async (port, path, signal) => {
      try {
        const response = await fetch(`http://127.0.0.1:${port}${path}`, { signal });
        return { status: response.status, body: await response.text() };
      } catch (error) {
        if (hasErrno((error as Error).cause, 'ECONNREFUSED')) return undefined;
        throw error;
      }
    },
  };
}

async function ifThere<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}
