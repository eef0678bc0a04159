import { WeftError } from '../errors.ts';
import { showInvisible } from '../invisible.ts';
import { formatAddr, type IpAddr, isIpv4, parseAddr } from '../ip/address.ts';
import { type Addresses, FAMILIES, type Family, type FamilyKey, type PerFamily, present } from '../ip/family.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';

/** One address of an interface, as far as its choice depends on it. */
export interface InterfaceAddress {
  readonly addr: IpAddr;
  /** Of the prefix that is on its link. */
  readonly prefixLength: number;
  /** Leased (DHCP, router advertisement), not set for good. */
  readonly dynamic: boolean;
  /** RFC 8981. */
  readonly temporary: boolean;
  readonly deprecated: boolean;
}

export interface NetworkInterface {
  readonly index: number;
  readonly name: string;
  readonly mtuBytes: number;
  readonly up: boolean;
  /** In the kernel's order. */
  readonly addresses: readonly InterfaceAddress[];
}

/** The kernel's answer to "how does a packet to this address leave?". */
export type RouteLookup =
  | { readonly ok: true; readonly dev: string; readonly source: IpAddr | undefined }
  | { readonly ok: false; readonly error: string };

/** What linux/interfaces.ts reads. */
export interface HostNetwork {
  /** In the kernel's order. */
  readonly interfaces: readonly NetworkInterface[];
  /** Device names of the default routes, in the kernel's order. */
  readonly defaultDevices: PerFamily<readonly string[]>;
  /** For `ifaceCanReach`, when that was asked for. */
  readonly canReach: RouteLookup | undefined;
}

export type IpStack = FamilyKey | 'dual';

export function familiesOf(stack: IpStack): readonly Family[] {
  return FAMILIES.filter(({ key }) => stack === 'dual' || stack === key);
}

/** What was asked for: the flags of the same names. */
export interface InterfaceRequest {
  readonly stack: IpStack;
  /** Names or addresses. */
  readonly iface: readonly string[];
  readonly ifaceRegex: readonly RegExp[];
  readonly ifaceCanReach: IpAddr | undefined;
  /** What was named may be missing: then the interface of the default route will do. */
  readonly elseDefault: boolean;
  /** --iface-allow-loopback */
  readonly allowLoopback: boolean;
  /** The Node's InternalIPs for --iface-from-node-ip; `undefined` when that was not asked for. */
  readonly nodeIps: readonly IpAddr[] | undefined;
  readonly publicAddresses: Addresses;
}

export interface RejectedInterface {
  readonly name: string;
  /** Each address in text, for the table. */
  readonly addresses: readonly string[];
  readonly why: string;
}

export interface ChosenInterface {
  readonly found: true;
  /** It was found by the default route. */
  readonly byDefault: boolean;
  readonly interface: NetworkInterface;
  /** Own addresses on it: present for the families of the stack. */
  readonly addresses: Addresses;
  /** What the other nodes use: --public-ip and --public-ipv6, or the above. */
  readonly publicAddresses: Addresses;
  readonly why: string;
  /** What was tried before it in vain: flannel's `Could not find valid interface matching <what>: <error>`. */
  readonly failures: readonly { readonly what: string; readonly error: string }[];
  readonly rejected: readonly RejectedInterface[];
}

export interface NoInterface {
  readonly found: false;
  /** Flannel's sentence. */
  readonly reason: string;
  readonly failures: readonly { readonly what: string; readonly error: string }[];
  readonly rejected: readonly RejectedInterface[];
}

export type InterfaceChoice = ChosenInterface | NoInterface;

interface Match {
  readonly why: string;
  /** What the way of looking has settled on already; else the first of the interface. */
  readonly addresses?: Addresses;
}

interface Usable {
  readonly why: string;
  readonly addresses: Addresses;
}

/** One way of looking for the interface. */
interface Method {
  /** Whether the interface is the one; the reason if not. */
  judge(candidate: NetworkInterface): Match | string;
}

/** Ways that succeed or fail together. */
interface Attempt {
  readonly isDefault?: true;
  readonly what: string;
  readonly methods: readonly Method[];
  /** Why no interface fits. */
  readonly error: string;
}

/**
 * Chooses the interface that leads to the other nodes, and the addresses, as flannel does (match.go and main.go of
 * v0.28): --iface in order, then --iface-regex in order (addresses of all interfaces first, names after them), then
 * --iface-can-reach, then --iface-from-node-ip; without any of them, the interface that has the public address, if one
 * is given, else that of the first default route. An empty --iface or --iface-regex, which flannel takes for the default
 * route at its place in the order, is the last resort here.
 *
 * Unlike flannel, an interface that fits but cannot be used (no address of the family, MTU 0) does not end the search
 * of that way; and an IPv6 address given to --iface in a dual-stack network is looked for instead of crashing.
 */
export function chooseInterface(request: InterfaceRequest, host: HostNetwork): InterfaceChoice {
  const explicit =
    request.iface.length > 0 ||
    request.ifaceRegex.length > 0 ||
    request.ifaceCanReach !== undefined ||
    request.nodeIps !== undefined;
  const attempts = explicit ? explicitAttempts(request, host) : [];
  if (request.elseDefault) attempts.push(byDefaultRoute(request.stack, host));
  else if (!explicit) attempts.push(defaultAttempt(request, host));
  const failures: { what: string; error: string }[] = [];
  const lost = new Map<string, string[]>();
  for (const { what, methods, error, isDefault = false } of attempts) {
    const unusable: string[] = [];
    for (const method of methods) {
      for (const candidate of host.interfaces) {
        const match = method.judge(candidate);
        const verdict = typeof match === 'string' ? match : usable(candidate, match, request);
        if (typeof verdict !== 'string') {
          return {
            found: true,
            byDefault: isDefault,
            interface: candidate,
            addresses: verdict.addresses,
            publicAddresses: publishedFor(verdict.addresses, request),
            why: `${verdict.why}${candidate.up ? '' : ' (but it is down)'}`,
            failures,
            rejected: rejected(host, lost, candidate.name),
          };
        }
        if (typeof match !== 'string') unusable.push(`${candidate.name} ${verdict}`);
        const reasons = lost.get(candidate.name) ?? [];
        if (!reasons.includes(verdict)) reasons.push(verdict);
        lost.set(candidate.name, reasons);
      }
    }
    failures.push({ what, error: unusable.length > 0 ? unusable.join('; ') : error });
  }
  return {
    found: false,
    reason: explicit
      ? 'Failed to find interface to use that matches the interfaces and/or regexes provided'
      : `Failed to find any valid interface to use: ${failures.map((failure) => failure.error).join('; ')}`,
    failures: explicit ? failures : [],
    rejected: rejected(host, lost, undefined),
  };
}

/** The same as an error that lists every interface and why it was not taken. */
export function interfaceNotFound(choice: NoInterface): WeftError {
  const tried = choice.failures.map(({ what, error }) => `\n  tried ${what}: ${error}`);
  const candidates = choice.rejected.map(
    ({ name, addresses, why }) => `\n  ${name} (${addresses.join(', ') || 'no address'}): ${why}`,
  );
  return new WeftError('WEFT_INTERFACE_NOT_FOUND', `${choice.reason}${tried.join('')}${candidates.join('')}`, {
    hint: 'Name the interface that leads to the other nodes with --iface, or give a default route; --public-ip alone must be an address of an interface.',
  });
}

/** Flannel's. */
const ADDRESS_WORDS: PerFamily<string> = { ipv4: 'address', ipv6: 'v6 address' };

/** The lines that flannel logs about its choice. */
export function choiceLogLines(choice: ChosenInterface): string[] {
  const { name } = choice.interface;
  const own = FAMILIES.flatMap(({ key }) => {
    const address = choice.addresses[key];
    return address === undefined
      ? []
      : `Using interface with name ${name} and ${ADDRESS_WORDS[key]} ${formatAddr(address)}`;
  });
  const published = FAMILIES.flatMap(({ key }) => {
    const address = choice.publicAddresses[key];
    if (address === undefined) return [];
    const text = formatAddr(address);
    return address === choice.addresses[key]
      ? `Defaulting external ${ADDRESS_WORDS[key]} to interface address (${text})`
      : `Using ${text} as external address`;
  });
  return [...(choice.byDefault ? ['Determining IP address of default interface'] : []), ...own, ...published];
}

/** The table of --explain-iface: every interface, its addresses, chosen or why not. */
export function explainChoice(choice: InterfaceChoice): string {
  const rows = choice.rejected.map(({ name, addresses, why }) => ['', name, addresses.join(', ') || '-', why]);
  if (choice.found) {
    const { interface: chosen, why } = choice;
    rows.unshift(['*', chosen.name, addressTexts(chosen).join(', ') || '-', `chosen: ${why}`]);
  }
  const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
  const tried = choice.failures.map(({ what, error }) => `Could not find valid interface matching ${what}: ${error}`);
  return [...tried, ...(choice.found ? [] : [choice.reason]), ...lines].join('\n');
}

/** What an interface may be used with: global and link-local unicast addresses in the order of preference. */
export function usableAddresses(candidate: NetworkInterface): InterfaceAddress[] {
  // Stable: equals stay in the kernel's order.
  return candidate.addresses
    .filter((address) => !address.deprecated && scopeRank(address.addr) !== undefined)
    .sort(
      (a, b) =>
        scopeRank(a.addr)! - scopeRank(b.addr)! ||
        Number(a.dynamic) - Number(b.dynamic) ||
        Number(a.temporary) - Number(b.temporary),
    );
}

/** Global unicast as Go's net.IP.IsGlobalUnicast has it (private addresses are global): 0, link-local: 1. */
function scopeRank(addr: IpAddr): 0 | 1 | undefined {
  if (isIpv4(addr)) {
    const first = addr >>> 24;
    if (addr === 0 || addr === 0xffffffff || first === 127 || (first >= 224 && first <= 239)) return undefined;
    return addr >>> 16 === 0xa9fe ? 1 : 0;
  }
  if (addr <= 1n || addr >> 120n === 0xffn) return undefined;
  return addr >> 118n === 0x3fan ? 1 : 0;
}

/** The first address of each family that the network has. */
function firstOfEach(addresses: readonly IpAddr[], stack: IpStack): Addresses {
  return {
    ipv4: stack === 'ipv6' ? undefined : addresses.find(isIpv4),
    ipv6: stack === 'ipv4' ? undefined : addresses.find(isIpv6),
  };
}

/** What was asked for, in the families that the interface has. */
function publishedFor({ ipv4, ipv6 }: Addresses, { publicAddresses }: InterfaceRequest): Addresses {
  return { ipv4: ipv4 && (publicAddresses.ipv4 ?? ipv4), ipv6: ipv6 && (publicAddresses.ipv6 ?? ipv6) };
}

function isIpv6(addr: IpAddr): addr is Ipv6Addr {
  return !isIpv4(addr);
}

const FORCE_LOOPBACK = '--iface-allow-loopback allows it';

function isLoopback(addr: IpAddr): boolean {
  return isIpv4(addr) ? addr >>> 24 === 127 : addr === 1n;
}

function usable(candidate: NetworkInterface, match: Match, request: InterfaceRequest): Usable | string {
  const { stack, allowLoopback } = request;
  // An address that was named may be one of the host as a whole, which routing announces: those are kept on lo.
  const isNamed = match.addresses !== undefined && present(match.addresses).length > 0;
  if (candidate.name === 'lo' && !isNamed && !allowLoopback) {
    return `is the loopback interface, through which other hosts cannot be reached (${FORCE_LOOPBACK})`;
  }
  const loopback = allowLoopback ? candidate.addresses.map(({ addr }) => addr).filter(isLoopback) : [];
  const settled = match.addresses === undefined ? [] : present(match.addresses);
  const own = usableAddresses(candidate).map(({ addr }) => addr);
  const addresses = firstOfEach([...settled, ...own, ...loopback], stack);
  const unreachable = present(addresses).find(isLoopback);
  if (unreachable !== undefined && !allowLoopback) {
    return `has ${formatAddr(unreachable)}, which no other host can reach (${FORCE_LOOPBACK})`;
  }
  const missing = familiesOf(stack).find(({ key }) => addresses[key] === undefined);
  if (missing !== undefined) return `fits, but has no usable ${missing.name} address`;
  if (candidate.mtuBytes === 0) return 'fits, but its MTU is 0';
  return { why: match.why, addresses };
}

function rejected(
  host: HostNetwork,
  lost: ReadonlyMap<string, readonly string[]>,
  chosen: string | undefined,
): RejectedInterface[] {
  return host.interfaces
    .filter((candidate) => candidate.name !== chosen)
    .map((candidate) => ({
      name: candidate.name,
      addresses: addressTexts(candidate),
      why: (lost.get(candidate.name) ?? [`comes after ${chosen}`]).join('; '),
    }));
}

function addressTexts(candidate: NetworkInterface): string[] {
  return candidate.addresses.map((address) => formatAddr(address.addr));
}

function explicitAttempts(request: InterfaceRequest, host: HostNetwork): Attempt[] {
  return [
    ...request.iface.map((text) => {
      const addr = parseAddr(text);
      return addr === undefined ? byName(text) : byAddress(addr, '--iface', request, host);
    }),
    ...request.ifaceRegex.map((regex) => byRegex(regex, request, host)),
    ...(request.ifaceCanReach === undefined ? [] : [byReach(request.ifaceCanReach, request, host)]),
    ...(request.nodeIps === undefined ? [] : [byNodeIps(request.nodeIps, request)]),
  ];
}

const PUBLIC_FLAGS: PerFamily<string> = { ipv4: '--public-ip', ipv6: '--public-ipv6' };

/** A public address is looked for only in a family that the network has. */
function defaultAttempt(request: InterfaceRequest, host: HostNetwork): Attempt {
  for (const { key } of familiesOf(request.stack)) {
    const address = request.publicAddresses[key];
    if (address !== undefined) return byAddress(address, PUBLIC_FLAGS[key], request, host);
  }
  return byDefaultRoute(request.stack, host);
}

function byName(name: string): Attempt {
  const shown = showInvisible(name);
  return {
    what: shown,
    methods: [
      {
        judge: (candidate) =>
          candidate.name === name ? { why: `it is named ${name} (--iface)` } : `is not named ${shown}`,
      },
    ],
    error: `error looking up interface ${shown}: no interface has that name`,
  };
}

/** In a dual-stack network with --public-ipv6, that address must be on the same interface. */
function byAddress(addr: IpAddr, flag: string, request: InterfaceRequest, host: HostNetwork): Attempt {
  const text = formatAddr(addr);
  const second = request.stack === 'dual' && isIpv4(addr) ? request.publicAddresses.ipv6 : undefined;
  const ownerOf = (wanted: IpAddr) => host.interfaces.find((candidate) => owns(candidate, wanted))?.name;
  const [first4, first6] = [ownerOf(addr), second === undefined ? undefined : ownerOf(second)];
  const noFamily = request.stack === (isIpv4(addr) ? 'ipv6' : 'ipv4');
  const error =
    first4 !== undefined && first6 !== undefined
      ? `v6 interface ${first6} must be the same with v4 interface ${first4}`
      : noFamily
        ? `the network has no ${isIpv4(addr) ? 'IPv4' : 'IPv6'}`
        : 'no interface with given IP found';
  return {
    what: text,
    methods: [
      {
        judge: (candidate) => {
          if (!owns(candidate, addr)) return `does not have ${text}`;
          if (noFamily) return `has ${text}, but ${error}`;
          if (second !== undefined && !owns(candidate, second)) {
            return `has ${text}, but not ${formatAddr(second)} (--public-ipv6)`;
          }
          const addresses = isIpv4(addr) ? { ipv4: addr, ipv6: second } : { ipv4: undefined, ipv6: addr };
          return { why: `it has ${text} (${flag})`, addresses };
        },
      },
    ],
    error: `error looking up interface ${text}: ${error}`,
  };
}

function byNodeIps(nodeIps: readonly IpAddr[], request: InterfaceRequest): Attempt {
  const addresses = firstOfEach(nodeIps, request.stack);
  const wanted = present(addresses);
  const text = wanted.map(formatAddr).join(' and ');
  const none = 'the Node has no InternalIP of the network’s family';
  return {
    what: `the Node's InternalIP ${text}`.trim(),
    methods: [
      {
        judge: (candidate) => {
          if (wanted.length === 0) return none;
          const lacking = wanted.filter((addr) => !owns(candidate, addr));
          if (lacking.length > 0) return `does not have ${lacking.map(formatAddr).join(' and ')}`;
          return { why: `it has the Node's InternalIP ${text} (--iface-from-node-ip)`, addresses };
        },
      },
    ],
    error: wanted.length === 0 ? none : `error looking up interface ${text}: no interface with given IP found`,
  };
}

function byRegex(regex: RegExp, request: InterfaceRequest, host: HostNetwork): Attempt {
  const shown = `--iface-regex ${regex.source}`;
  const matching = (candidate: NetworkInterface): IpAddr[] =>
    usableAddresses(candidate)
      .map((address) => address.addr)
      .filter((addr) => regex.test(formatAddr(addr)));
  const byOwnAddress: Method = {
    judge: (candidate) => {
      const addresses = firstOfEach(matching(candidate), request.stack);
      const found = present(addresses);
      if (found.length < familiesOf(request.stack).length) return `no address of it matches ${regex.source}`;
      return { why: `${found.map(formatAddr).join(' and ')} matches ${shown}`, addresses };
    },
  };
  const byOwnName: Method = {
    judge: (candidate) =>
      regex.test(candidate.name)
        ? { why: `its name matches ${shown}` }
        : `neither its addresses nor its name match ${regex.source}`,
  };
  const all = host.interfaces.map((candidate) => `${candidate.name}:[${addressTexts(candidate).join(' ')}]`);
  return {
    what: regex.source,
    methods: [byOwnAddress, byOwnName],
    error: `could not match pattern ${regex.source} to any of the available network interfaces (${all.join(', ')})`,
  };
}

function byReach(target: IpAddr, request: InterfaceRequest, host: HostNetwork): Attempt {
  const text = formatAddr(target);
  const lookup = host.canReach ?? { ok: false, error: 'the route was not looked up' };
  const noFamily = request.stack === (isIpv4(target) ? 'ipv6' : 'ipv4');
  // The kernel answers "lo" for an address of this host.
  const isOwn = (candidate: NetworkInterface) => candidate.name !== 'lo' && owns(candidate, target);
  const own = host.interfaces.find(isOwn)?.name;
  const error = lookup.ok
    ? noFamily
      ? `the network has no ${isIpv4(target) ? 'IPv4' : 'IPv6'}`
      : `the route to ${text} leads through ${lookup.dev}`
    : `failed to find the route to ${text}: ${lookup.error}`;
  return {
    what: `a route to ${text}`,
    methods: [
      {
        judge: (candidate) => {
          if (!lookup.ok || noFamily) return error;
          if (candidate.name !== (own ?? lookup.dev)) return error;
          const match = { why: `the route to ${text} leads through it (--iface-can-reach)` };
          const source = own === undefined ? lookup.source : target;
          if (source === undefined) return match;
          return { ...match, addresses: firstOfEach([source], 'dual') };
        },
      },
    ],
    error,
  };
}

function byDefaultRoute(stack: IpStack, host: HostNetwork): Attempt {
  const [dev4] = host.defaultDevices.ipv4;
  const [dev6] = host.defaultDevices.ipv6;
  const missing = [
    ...(stack !== 'ipv6' && dev4 === undefined ? ['IPv4'] : []),
    ...(stack !== 'ipv4' && dev6 === undefined ? ['IPv6'] : []),
  ];
  const chosen = stack === 'ipv6' ? dev6 : dev4;
  const differ = stack === 'dual' && missing.length === 0 && dev4 !== dev6;
  const error =
    missing.length > 0
      ? `failed to get default interface: there is no ${missing.join(' and no ')} default route`
      : differ
        ? `v6 interface ${dev6} must be the same with v4 interface ${dev4}: their default routes lead through different interfaces`
        : `failed to get default interface: there is no interface ${chosen}`;
  return {
    isDefault: true,
    what: 'the default route',
    methods: [
      {
        judge: (candidate) => {
          if (missing.length > 0) return `there is no ${missing.join(' and no ')} default route`;
          if (differ) {
            if (candidate.name === dev4) return 'has the IPv4 default route, but not the IPv6 one';
            if (candidate.name === dev6) return 'has the IPv6 default route, but not the IPv4 one';
          }
          if (candidate.name === chosen && !differ) return { why: 'the default route leads through it' };
          const devices = [...host.defaultDevices.ipv4, ...host.defaultDevices.ipv6];
          return devices.includes(candidate.name)
            ? `its default route comes after that of ${chosen}`
            : 'no default route leads through it';
        },
      },
    ],
    error,
  };
}

/** Any address of it, whatever its scope. */
function owns(candidate: NetworkInterface, addr: IpAddr): boolean {
  return candidate.addresses.some((address) => address.addr === addr);
}
