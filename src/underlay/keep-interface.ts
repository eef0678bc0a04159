import { formatAddr, type IpAddr, isIpv4 } from '../ip/address.ts';
import type { Addresses } from '../ip/family.ts';
import { chooseInterface } from './choose-interface.ts';
import { type HostNetwork, type NetworkInterface, usableAddresses } from './host-network.ts';
import { type ChosenInterface, familiesOf, type InterfaceChoice, type InterfaceRequest } from './interface-choice.ts';

/** The interface whose addresses the other nodes know this host by. */
export interface InterfaceInUse {
  readonly name: string;
  /** Own addresses on it. */
  readonly addresses: Addresses;
}

export interface KeepOptions {
  /** Of this process, or of an earlier run. */
  readonly inUse: InterfaceInUse | undefined;
  /**
   * Packets flow through it now. Then routes count no more, for they only were a means of finding it: neither a second
   * default route nor one that is gone makes it a worse one, nor does an address that is deprecated but there.
   */
  readonly isRunning: boolean;
}

/**
 * Stays with the interface and the addresses in use as long as they are what was asked for; else chooses. What else
 * comes and goes on a host (a floating address, a VPN with a default route of its own) must not move a node, because
 * all others would have to learn its new address, and lose packets meanwhile. flannel never moves.
 */
export function keepOrChooseInterface(
  request: InterfaceRequest,
  host: HostNetwork,
  { inUse, isRunning }: KeepOptions,
): InterfaceChoice {
  const chosen = chooseInterface(request, host);
  // What was named and missing in the run before may be there now.
  const isNamedOne = request.elseDefault && chosen.found && !chosen.byDefault;
  const wanted = !isRunning && isNamedOne ? { ...request, elseDefault: false } : request;
  if (inUse !== undefined) {
    // The addresses may have gone to another interface with the name (a bond, a bridge), or stayed with one that was renamed.
    const owners = host.interfaces.filter((candidate) => addressesInUse(candidate, request, inUse) !== undefined);
    owners.sort((a, b) => Number(b.name === inUse.name) - Number(a.name === inUse.name));
    for (const owner of owners) {
      const kept = keep(owner, wanted, host, inUse, isRunning);
      if (kept !== undefined) return kept;
    }
  }
  return chosen;
}

function keep(
  owner: NetworkInterface,
  request: InterfaceRequest,
  host: HostNetwork,
  inUse: InterfaceInUse,
  isRunning: boolean,
): ChosenInterface | undefined {
  const wanted = addressesInUse(owner, request, inUse) ?? [];
  const addresses = owner.addresses
    .filter(({ addr }) => wanted.includes(addr))
    .map((address) => (isRunning ? { ...address, deprecated: false } : address));
  const alone = (defaultDevices: HostNetwork['defaultDevices']): HostNetwork => ({
    interfaces: [{ ...owner, addresses }],
    defaultDevices,
    // The source of a route follows the addresses that come and go; the route's device is what was asked for.
    canReach:
      host.canReach?.ok === true
        ? { ...host.canReach, source: undefined }
        : { ok: true, dev: owner.name, source: undefined },
  });
  const { ipv4, ipv6 } = host.defaultDevices;
  const own = { ipv4: ownOf(ipv4, owner), ipv6: ownOf(ipv6, owner) };
  let choice = chooseInterface(request, alone(own));
  if (!choice.found && isRunning && owner.up && isFoundByRoute(request)) {
    choice = chooseInterface(
      {
        ...request,
        iface: [owner.name],
        ifaceRegex: [],
        ifaceCanReach: undefined,
        elseDefault: false,
        nodeIps: undefined,
      },
      alone(own),
    );
  }
  if (!choice.found || (isFoundByRoute(request) && !owner.up)) return undefined;
  return {
    ...choice,
    interface: owner,
    why: `it is in use, and still matches the flags${owner.up ? '' : ' (but it is down)'}`,
    failures: [],
    rejected: host.interfaces
      .filter((candidate) => candidate.name !== owner.name)
      .map((candidate) => ({
        name: candidate.name,
        addresses: candidate.addresses.map((address) => formatAddr(address.addr)),
        why: `${owner.name} is in use`,
      })),
  };
}

/** Those in use that the network needs, when the interface has all of them. */
function addressesInUse(
  { addresses }: NetworkInterface,
  { stack }: InterfaceRequest,
  inUse: InterfaceInUse,
): readonly IpAddr[] | undefined {
  const wanted = familiesOf(stack).map(({ key }) => inUse.addresses[key]);
  const owned = wanted
    .filter((addr) => addr !== undefined)
    .filter((addr) => addresses.some((own) => own.addr === addr));
  return owned.length === wanted.length ? owned : undefined;
}

/** A host without any default route has none that says where else the others are. */
function ownOf(devices: readonly string[], owner: NetworkInterface): readonly string[] {
  return devices.length === 0 ? [owner.name] : devices.filter((device) => device === owner.name);
}

/** Whether nothing was asked for that an interface has or has not by itself. */
function isFoundByRoute(request: InterfaceRequest): boolean {
  const { stack, iface, ifaceRegex, ifaceCanReach, elseDefault, nodeIps, publicAddresses } = request;
  if (ifaceCanReach !== undefined || elseDefault) return true;
  const isNamed = iface.length > 0 || ifaceRegex.length > 0 || nodeIps !== undefined;
  const hasAddress = familiesOf(stack).some(({ key }) => publicAddresses[key] !== undefined);
  return !isNamed && !hasAddress;
}

/**
 * All addresses of a host by which another could have known it: what a lease under one of them says, this host has said
 * itself. Loopback and link-local ones are the same on many hosts.
 */
export function addressesOfHost(host: HostNetwork): readonly IpAddr[] {
  return host.interfaces.flatMap((candidate) =>
    usableAddresses({
      ...candidate,
      addresses: candidate.addresses.map((address) => ({ ...address, deprecated: false })),
    })
      .map((address) => address.addr)
      .filter((addr) => (isIpv4(addr) ? addr >>> 16 !== 0xa9fe : addr >> 118n !== 0x3fan)),
  );
}
