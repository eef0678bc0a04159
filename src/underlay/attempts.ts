import { showInvisible } from '../invisible.ts';
import { formatAddr, type IpAddr, isIpv4, parseAddr } from '../ip/address.ts';
import { type Addresses, type PerFamily, present } from '../ip/family.ts';
import type { Ipv6Addr } from '../ip/ipv6.ts';
import { addressTexts, type HostNetwork, type NetworkInterface, owns, usableAddresses } from './host-network.ts';
import { familiesOf, type InterfaceRequest, type IpStack } from './interface-choice.ts';

/** An interface that is the one. */
export interface Match {
  readonly why: string;
  /** What the way of looking has settled on already; else the first of the interface. */
  readonly addresses?: Addresses;
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

/** What was asked for, one attempt after the other. */
export function explicitAttempts(request: InterfaceRequest, host: HostNetwork): Attempt[] {
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
export function defaultAttempt(request: InterfaceRequest, host: HostNetwork): Attempt {
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

/** The interface of the default route, which in dual stack both families must share. */
export function byDefaultRoute(stack: IpStack, host: HostNetwork): Attempt {
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

/** The first address of each family that the network has. */
export function firstOfEach(addresses: readonly IpAddr[], stack: IpStack): Addresses {
  return {
    ipv4: stack === 'ipv6' ? undefined : addresses.find(isIpv4),
    ipv6: stack === 'ipv4' ? undefined : addresses.find(isIpv6),
  };
}

function isIpv6(addr: IpAddr): addr is Ipv6Addr {
  return !isIpv4(addr);
}
