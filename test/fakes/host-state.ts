/** What `ip` and `sysctl` say of a host, in a form in which two hosts can be compared. */

export interface HostState {
  /** Flags, sizes and addresses of flannel0; undefined when there is none. */
  readonly flannel0: readonly string[] | undefined;
  /** All routes of all tables, sorted. */
  readonly routes: readonly string[];
  /** `ip rule`. */
  readonly rules: readonly string[];
  /** Of flannel0, and forwarding. */
  readonly sysctls: readonly string[];
}

/** Not every recording has everything. */
export type RecordedHostState = Pick<HostState, 'flannel0' | 'routes'> & Partial<HostState>;

export const SYSCTLS: readonly string[] = [
  'net.ipv4.ip_forward',
  'net.ipv6.conf.all.forwarding',
  'net.ipv6.conf.flannel0.disable_ipv6',
  'net.ipv6.conf.flannel0.accept_ra',
  'net.ipv6.conf.flannel0.addr_gen_mode',
  'net.ipv4.conf.flannel0.rp_filter',
];

/** Printed by `ip -d addr`, `ip route show table all`, `ip rule`, `sysctl`. */
export interface HostPrintout {
  readonly addresses: string;
  readonly routes: string;
  readonly rules: string;
  readonly sysctls: string;
}

export function hostState({ addresses, routes, rules, sysctls }: HostPrintout): HostState {
  const links = addresses.split(/^(?=\d+: )/m);
  const flannel0 = links.find((text) => /^\d+: flannel0: /.test(text));
  return {
    flannel0: flannel0 === undefined ? undefined : linkLines(flannel0),
    routes: lines(routes).map(anonymous).sort(),
    rules: lines(rules),
    sysctls: lines(sysctls).sort(),
  };
}

/** A `20-net` file: the sections of the host, which come before those of its pod, and the last one. */
export function goldenHostState(text: string): RecordedHostState {
  const section = (name: string): string | undefined => new RegExp(`^# ${name}\\n([^#]*)`, 'm').exec(text)?.[1];
  const [rules, sysctls] = [section('ip rule'), section('sysctl')];
  const { flannel0, routes, ...more } = hostState({
    addresses: section('ip -d addr') ?? '',
    routes: section('ip route show table all') ?? '',
    rules: rules ?? '',
    sysctls: sysctls ?? '',
  });
  return {
    flannel0,
    routes,
    ...(rules === undefined ? {} : { rules: more.rules }),
    ...(sysctls === undefined ? {} : { sysctls: more.sysctls }),
  };
}

function lines(text: string): string[] {
  return text
    .split('\n')
    .map((line) => line.trim().replaceAll(/\s+/g, ' '))
    .filter((line) => line !== '');
}

/** Names of veth devices and link-local addresses are random; what the kernel says of a cable's carrier is chance. */
function anonymous(line: string): string {
  return line
    .replaceAll(/\bveth\w+/g, 'veth')
    .replaceAll(/\bfe80::[0-9a-f:]*[0-9a-f]\b/g, 'fe80::X')
    .replaceAll(' linkdown', '');
}

/** Without the index, the queueing discipline (a setting of the machine) and the limits, which come with the kernel. */
function linkLines(text: string): string[] {
  const [, flags, mtu, qlen] = /<([^>]*)> mtu (\d+) .*?(?:qlen (\d+))?\n/.exec(text) ?? [];
  const tun = /^ *(tun type .*?) numtxqueues/m.exec(text)?.[1];
  const addresses = lines(text)
    .filter((line) => line.startsWith('inet'))
    .map(anonymous);
  return [`<${flags}>`, `mtu ${mtu}`, `qlen ${qlen}`, ...(tun === undefined ? [] : [tun]), ...addresses];
}
