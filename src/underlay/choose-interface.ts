import { formatAddr, type IpAddr, isIpv4 } from '../ip/address.ts';
import { type Addresses, present } from '../ip/family.ts';
import { byDefaultRoute, defaultAttempt, explicitAttempts, firstOfEach, type Match } from './attempts.ts';
import { addressTexts, type HostNetwork, type NetworkInterface, usableAddresses } from './host-network.ts';
import { familiesOf, type InterfaceChoice, type InterfaceRequest, type RejectedInterface } from './interface-choice.ts';

interface Usable {
  readonly why: string;
  readonly addresses: Addresses;
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

/** What was asked for, in the families that the interface has. */
function publishedFor({ ipv4, ipv6 }: Addresses, { publicAddresses }: InterfaceRequest): Addresses {
  return { ipv4: ipv4 && (publicAddresses.ipv4 ?? ipv4), ipv6: ipv6 && (publicAddresses.ipv6 ?? ipv6) };
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
