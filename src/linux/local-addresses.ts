import { setTimeout as delay } from 'node:timers/promises';
import type { LocalAddresses } from '../dataplane/local-addresses.ts';
import type { LocalAddresses6 } from '../dataplane/local-addresses6.ts';
import { describeError } from '../errors.ts';
import { type IpAddr, isIpv4, parseAddr } from '../ip/address.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import { parseIpList } from './interfaces.ts';
import { concernsAddresses, IpMonitor } from './link-monitor.ts';
import { run } from './run.ts';

/**
 * Where kube-proxy in IPVS mode keeps the addresses of services. They are no addresses of this host: what is sent to one goes on to
 * a pod, of any host.
 */
const SERVICE_DEVICE = 'kube-ipvs0';
const TIMEOUT_MS = 10_000;
const RETRY_MS = 1_000;

export interface LocalAddress {
  readonly address: IpAddr;
  readonly device: string;
}

/**
 * The addresses that the kernel takes for this host's own: its table `local`, which has those of links that are down only as
 * long as the kernel takes them. Addresses of services are left out.
 * @param netns name of the network namespace (`ip netns`); this process's own by default.
 * @throws WeftError WEFT_COMMAND_…, WEFT_KERNEL_STATE.
 */
export async function readLocalAddresses(signal: AbortSignal, netns?: string): Promise<LocalAddress[]> {
  const families = await Promise.all(
    ['-4', '-6'].map(async (family): Promise<LocalAddress[]> => {
      const argv = ['ip', '-j', family, 'route', 'show', 'table', 'local', 'type', 'local'];
      const { stdout } = await run(argv, { netns, timeoutMs: TIMEOUT_MS, signal });
      return parseIpList(stdout, argv).flatMap(({ dst, dev }): LocalAddress[] => {
        const address = typeof dst === 'string' ? parseAddr(dst) : undefined;
        if (address === undefined || typeof dev !== 'string' || dev === SERVICE_DEVICE) return [];
        return [{ address, device: dev }];
      });
    }),
  );
  return families.flat();
}

/** The sets of both families. */
export interface LocalAddressSets {
  readonly ipv4: LocalAddresses;
  readonly ipv6: LocalAddresses6;
}

/** Keeps the sets true to this host's addresses until disposed. While they cannot be read, the last ones stay. */
export function followLocalAddresses(into: LocalAddressSets, onNotice: (text: string) => void): Disposable {
  const ended = new AbortController();
  void follow(into, onNotice, ended.signal);
  return { [Symbol.dispose]: () => ended.abort() };
}

/** Never rejects. */
async function follow(into: LocalAddressSets, onNotice: (text: string) => void, signal: AbortSignal): Promise<void> {
  let said = '';
  const say = (text: string): void => {
    if (text !== said && text !== '') onNotice(text);
    said = text;
  };
  let devices: ReadonlySet<string> = new Set();
  const update = async (): Promise<void> => {
    const addresses = await readLocalAddresses(signal);
    devices = new Set(addresses.map(({ device }) => device));
    const all = addresses.map(({ address }) => address);
    const refused = into.ipv4.replace(all.filter(isIpv4)) + into.ipv6.replace(all.filter(isIpv6));
    say(
      refused === 0
        ? ''
        : `this host has ${refused} more addresses than weft can track: peers cannot reach those through the overlay`,
    );
  };
  const monitor = new IpMonitor({ about: 'addresses', onLost: onNotice });
  for await (const _ of monitor.changes((line) => concernsAddresses(line, devices), signal)) {
    while (!signal.aborted) {
      try {
        await update();
        break;
      } catch (error) {
        if (signal.aborted) return;
        say(`failed to read the addresses of this host: ${describeError(error)}`);
        await delay(RETRY_MS, undefined, { signal, ref: false }).catch(() => {});
      }
    }
  }
}

function isIpv6(address: IpAddr): address is Ipv6Addr {
  return !isIpv4(address);
}
