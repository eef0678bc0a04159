import { formatPrefix, type IpPrefix, overlaps, parsePrefix } from '../ip/address.ts';

/**
 * Which TUN device a forwarder has. flannel leaves the name to the kernel (`flannel%d`), which takes the first that is free: with
 * two networks on a host there are flannel0 and flannel1. Its devices end with it. Those of weft stay, so that a restart loses no
 * packet, and have to be told apart: each bears the network that it carries as its alias, for two agents of a host may share
 * neither a network nor a subnet.env.
 */

/** What flannel's pattern `flannel%d` gives the first device. */
export const FIRST_TUN_NAME = 'flannel0';
const PREFIX = 'flannel';
/** Nobody has that many networks on a host. */
const MAX_TUNS = 256;

export interface NamedTun {
  readonly name: string;
  /** Its alias; `undefined` when it has none. */
  readonly alias: string | undefined;
}

export interface TunHost {
  /** The TUN devices there are. */
  tunDevices(signal: AbortSignal): Promise<readonly NamedTun[]>;
  /**
   * Attaches to that TUN device, which is made when there is none, and holds it until the forwarder opens it: nobody else can
   * have it from then on. A new device does not stay when the process ends before.
   * @returns false when another process has it, or it is no device that a forwarder can have.
   * @throws WeftError when no TUN device could be had at all: WEFT_TUN_MISSING, WEFT_TUN_DENIED, WEFT_TUN_FAILED.
   */
  takeTun(name: string): boolean;
}

/** Whether a device may be one that a forwarder has made, by its name alone. */
export function isTunName(name: string): boolean {
  return numberOf(name) !== undefined;
}

/** The alias of the device that carries this network. Without white space. */
export function tunMark(network: IpPrefix): string {
  return `weft:${formatPrefix(network)}`;
}

function markedNetwork(alias: string | undefined): IpPrefix | undefined {
  return alias?.startsWith('weft:') === true ? parsePrefix(alias.slice('weft:'.length)) : undefined;
}

/** The names of those devices that carry, or carried, one of these networks or a part of it: nobody else can have that. */
export function ownTuns(tuns: readonly NamedTun[], networks: readonly IpPrefix[]): readonly string[] {
  return inOrder(tuns)
    .filter(({ alias }) => isOneOf(markedNetwork(alias), networks))
    .map(({ name }) => name);
}

/** Networks of other agents of this host, whose packets go into one of these devices. */
export function networksBeside(tuns: readonly NamedTun[], own: readonly IpPrefix[]): readonly IpPrefix[] {
  return tuns.flatMap(({ alias }) => {
    const network = markedNetwork(alias);
    return network === undefined || isOneOf(network, own) ? [] : network;
  });
}

/**
 * Takes a device for this network and says its name: the one that an earlier run of this agent has left, else the first of
 * flannel's pattern that is free. A device is free while nobody is attached to it, unless it bears the network of another agent,
 * which may be about to start again.
 * @param earlier networks that this agent carried before.
 * @throws WeftError as TunHost.takeTun.
 */
export async function takeTun(
  host: TunHost,
  network: IpPrefix | undefined,
  earlier: readonly IpPrefix[],
  signal: AbortSignal,
): Promise<string> {
  const networks = network === undefined ? earlier : [network, ...earlier];
  const tuns = await host.tunDevices(signal);
  const [own] = ownTuns(tuns, networks);
  if (own !== undefined) {
    // If another process has it, that is an agent with this network: opening it says so, with who that is.
    host.takeTun(own);
    return own;
  }
  const others = new Set(tuns.filter(({ alias }) => markedNetwork(alias) !== undefined).map(({ name }) => name));
  for (let number = 0; number < MAX_TUNS; number++) {
    const name = `${PREFIX}${number}`;
    if (!others.has(name) && host.takeTun(name)) return name;
  }
  return FIRST_TUN_NAME;
}

function isOneOf(found: IpPrefix | undefined, networks: readonly IpPrefix[]): boolean {
  return found !== undefined && networks.some((network) => overlaps(network, found));
}

function inOrder(tuns: readonly NamedTun[]): readonly NamedTun[] {
  return tuns.toSorted((a, b) => (numberOf(a.name) ?? 0) - (numberOf(b.name) ?? 0));
}

function numberOf(name: string): number | undefined {
  const digits = /^flannel(0|[1-9]\d{0,8})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}
