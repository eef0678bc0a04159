import { readTextIfThere } from './read-text.ts';

/** Why the kernel of this host dropped packets, outside the agent. */
export const HOST_DROPS = [
  /** Received, and neither delivered nor forwarded nor counted otherwise: a firewall (PREROUTING, INPUT), or nobody it is for. */
  'filtered-in',
  /** To be sent or forwarded, and not sent: a firewall (FORWARD, OUTPUT, POSTROUTING). */
  'filtered-out',
  /** A header that is wrong, or a TTL that ran out. */
  'header',
  /** For a socket of this host, with a wrong checksum of UDP, TCP (counted for both families together, with IPv4) or ICMP. */
  'checksum',
  /** A destination that is no address of this host, which does not forward. */
  'address',
  'no-route',
  /** For want of memory or room. */
  'discarded',
  /** Longer than the next link takes, and must not be fragmented. */
  'too-big',
  'reassembly',
  /** The sender is not where the route to it leads (rp_filter). */
  'reverse-path',
] as const;

export type HostDrops = Readonly<Partial<Record<(typeof HOST_DROPS)[number], number>>>;

/**
 * Of IPv4 packets, counted since the network namespace was made. A packet that a card or GRO has joined from several counts as one, and
 * the counters are read one after the other, so that a few packets of a busy host may be between two of them.
 */
export function readHostDrops(): HostDrops {
  return hostDropsOf(readTextIfThere('/proc/self/net/snmp'), readTextIfThere('/proc/self/net/netstat'));
}

/** The same of IPv6 packets. Multicast that nobody here has joined is `filtered-in`; what OUTPUT drops is mostly `discarded`. */
export function readHostDrops6(): HostDrops {
  return hostDrops6Of(readTextIfThere('/proc/self/net/snmp6'));
}

/** From the texts of /proc/net/snmp and /proc/net/netstat (Documentation/networking/snmp_counter.rst); empty where they say nothing. */
export function hostDropsOf(snmp: string, netstat: string): HostDrops {
  const [ip, ext, tcp] = [rowsOf(snmp, 'Ip'), rowsOf(netstat, 'IpExt'), rowsOf(netstat, 'TcpExt')];
  // IP counts these as delivered. `InCsumErrors` of IpExt is of the IP header, and part of InHdrErrors.
  const checksum = ['Udp', 'Tcp', 'Icmp'].reduce(
    (total, name) => total + (rowsOf(snmp, name).get('InCsumErrors') ?? 0),
    0,
  );
  return dropsOf((name) => ip.get(name) ?? ext.get(name) ?? tcp.get(name), checksum);
}

/** From the text of /proc/net/snmp6 (net/ipv6/proc.c): a name and a value a line. Its counters are the same, but for one name. */
export function hostDrops6Of(snmp6: string): HostDrops {
  const rows = new Map([...snmp6.matchAll(/^(\w+)\s+(\d+)$/gm)].map(([, name, value]) => [name, Number(value)]));
  const checksum = (rows.get('Udp6InCsumErrors') ?? 0) + (rows.get('Icmp6InCsumErrors') ?? 0);
  return dropsOf((name) => rows.get(`Ip6${name === 'ForwDatagrams' ? 'OutForwDatagrams' : name}`), checksum);
}

function dropsOf(counter: (name: string) => number | undefined, checksum: number): HostDrops {
  const received = counter('InReceives');
  if (received === undefined) return {};
  const of = (name: string): number => counter(name) ?? 0;
  const sum = (...names: string[]): number => names.reduce((total, name) => total + of(name), 0);
  const transmitted = counter('OutTransmits');
  // Since Linux 6.7 a packet counts as forwarded before the firewall sees it, and OutTransmits is there; before that, after it.
  const tooBigBefore = transmitted === undefined ? of('FragFails') : 0;
  const taken = sum('InDelivers', 'ForwDatagrams', 'InHdrErrors', 'InAddrErrors', 'InUnknownProtos', 'InDiscards');
  const lostIn = sum('InNoRoutes', 'InTruncatedPkts', 'IPReversePathFilter') + of('ReasmReqds') - of('ReasmOKs');
  const toSend = sum('ForwDatagrams', 'OutRequests', 'FragCreates') - of('FragOKs');
  const lostOut = sum('OutDiscards', 'OutNoRoutes', 'FragFails');
  return {
    'filtered-in': Math.max(0, received - taken - lostIn - tooBigBefore),
    ...(transmitted === undefined ? {} : { 'filtered-out': Math.max(0, toSend - transmitted - lostOut) }),
    header: sum('InHdrErrors', 'InTruncatedPkts'),
    checksum,
    address: of('InAddrErrors'),
    'no-route': sum('InNoRoutes', 'OutNoRoutes'),
    discarded: sum('InDiscards', 'OutDiscards', 'InUnknownProtos'),
    'too-big': of('FragFails'),
    reassembly: of('ReasmFails'),
    'reverse-path': of('IPReversePathFilter'),
  };
}

/** Names and values of a group: two lines that begin with its name. */
function rowsOf(text: string, group: string): Map<string, number> {
  const [names = [], values = []] = text
    .split('\n')
    .filter((line) => line.startsWith(`${group}: `))
    .map((line) => line.split(' ').slice(1));
  return new Map(names.map((name, index) => [name, Number(values[index])]));
}
