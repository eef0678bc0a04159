import type { NetworkConfig } from '../config/network-config.ts';
import type { OwnLink } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { containsAddr, type IpAddr, type IpPrefix, isIpv4 } from '../ip/address.ts';
import type { LeaseAttrs } from '../lease/lease.ts';
import { alloc } from './alloc.ts';
import type { Backend, BackendKind, ExternalInterface, IdentityHost, Network, NodePast } from './backend.ts';
import { extension } from './extension.ts';
import { hostGw } from './host-gw.ts';
import { ipip } from './ipip.ts';
import { ipsec } from './ipsec.ts';
import { tencentVpc } from './tencent-vpc.ts';
import { udp } from './udp.ts';
import { vxlan } from './vxlan.ts';
import { wireguard } from './wireguard.ts';

/** A kind whose configuration and identity only it looks into. */
export type AnyBackendKind = BackendKind<unknown, unknown>;

/** In the order in which they are listed to people. A line more is all that a new backend needs outside its own file. */
const BACKENDS = [vxlan, hostGw, wireguard, udp, ipip, ipsec, extension, alloc, tencentVpc] as const;

/** All backends that weft offers. */
export function backendKinds(): readonly AnyBackendKind[] {
  // Each value that a kind is given came from that same kind.
  return BACKENDS as unknown as readonly AnyBackendKind[];
}

/** The backend of that (lower-cased) name. */
export function backendKind(type: string): AnyBackendKind | undefined {
  return backendKinds().find((kind) => kind.type === type);
}

/**
 * The backend of a lease, for people. Where the lease names none it is this host's own, if leases of that name none either, and
 * udp otherwise.
 */
export function backendOfLease(
  { backendType }: Pick<LeaseAttrs, 'backendType'>,
  own: { readonly backend: Pick<NetworkConfig['backend'], 'type'> } | undefined,
): string {
  if (backendType !== '') return backendType;
  const kind = own && backendKind(own.backend.type);
  return kind?.isUnnamed === true ? kind.type : udp.type;
}

/** A backend with its part of the network configuration. */
export interface ConfiguredBackend {
  readonly kind: AnyBackendKind;
  readonly config: unknown;
}

/** One that also knows by what its peers know it. */
export interface BackendSetup extends ConfiguredBackend {
  readonly identity: unknown;
}

/** A link of this host with its addresses. */
interface AddressedLink {
  readonly name: string;
  readonly addresses: readonly { readonly addr: IpAddr; readonly prefixLength: number }[];
}

/** @throws WeftError WEFT_BACKEND_UNKNOWN. */
export function configuredBackend({ backend }: Pick<NetworkConfig, 'backend'>): ConfiguredBackend {
  const kind = backendKind(backend.type);
  if (kind === undefined) {
    const offered = backendKinds()
      .map(({ type }) => type)
      .join(', ');
    throw new WeftError('WEFT_BACKEND_UNKNOWN', `Error fetching backend: unknown backend type: ${backend.type}`, {
      hint: `weft supports: ${offered}`,
    });
  }
  return { kind, config: backend.settings };
}

/** See BackendKind.identify. */
export async function identifyBackend(
  { kind, config }: ConfiguredBackend,
  network: Network,
  past: NodePast,
  host: IdentityHost,
  signal: AbortSignal,
): Promise<BackendSetup> {
  return { kind, config, identity: await kind.identify(config, network, past, host, signal) };
}

/**
 * The same for who only compares the kernel with this node's lease, which `past.published` has: no secret is read, and no program of
 * the user's runs.
 */
export async function publishedBackend(
  { kind, config }: ConfiguredBackend,
  network: Network,
  past: NodePast,
  host: IdentityHost,
  signal: AbortSignal,
): Promise<BackendSetup> {
  if (kind.identityIn === undefined) return await identifyBackend({ kind, config }, network, past, host, signal);
  return { kind, config, identity: kind.identityIn(past.published) };
}

/** @throws WeftError as BackendKind.open. */
export function openBackend(setup: BackendSetup, network: Network, external: ExternalInterface): Backend {
  return setup.kind.open(setup.config, setup.identity, network, external);
}

/**
 * The links that the backend of an earlier configuration has made, and that of this one does not make: it is another one, or the
 * network has a family less.
 * @param tuns names of this agent's own TUN devices.
 */
export function linksOfFormerBackend(
  former: Pick<NetworkConfig, 'backend'>,
  { kind, config }: ConfiguredBackend,
  network: Network,
  tuns: readonly string[],
): readonly OwnLink[] {
  const before = backendKind(former.backend.type);
  if (before === undefined) return [];
  const own = new Set(madeIn(network, kind.owns(config, tuns)).map(({ name }) => name));
  return before.owns(former.backend.settings, tuns).filter(({ name }) => !own.has(name));
}

function madeIn(network: Network, links: readonly OwnLink[]): readonly OwnLink[] {
  return links.filter(({ family }) => family === undefined || network[family] !== undefined);
}

/**
 * The links that an agent of one of these networks has left on this host, weft's or a flanneld, whatever its configuration was, and
 * that this backend does not make: by their names, and because no other agent of the host has an address in these networks. None where
 * others carry the packets: flannel's own sample of the backend extension makes a `flannel-wg` with such an address.
 */
export function linksLeftBehind(
  interfaces: readonly AddressedLink[],
  networks: readonly IpPrefix[],
  { kind, config }: ConfiguredBackend,
  network: Network,
): readonly OwnLink[] {
  if (kind.isCarriedByOthers === true) return [];
  const own = new Set(madeIn(network, kind.owns(config, [])).map(({ name }) => name));
  const names = interfaces.flatMap(({ name, addresses }) => {
    const isOfNetwork = addresses.some(
      ({ addr, prefixLength }) =>
        prefixLength === (isIpv4(addr) ? 32 : 128) && networks.some((one) => containsAddr(one, addr)),
    );
    return isOfNetwork && !own.has(name) ? [name] : [];
  });
  return ownLinksCalled(names, []);
}

/**
 * The backends in whose way this host may reach hosts that do not use its own yet, or no more: by the type in their leases.
 * None for a backend that lets no other stand beside it, such as one that encrypts.
 * @param former the configuration before this one, for settings that peers still have.
 */
export function backendsBeside(
  { kind: own }: ConfiguredBackend,
  former: Pick<NetworkConfig, 'backend'> | undefined,
): ReadonlyMap<string, ConfiguredBackend> {
  if (own.reachableAs === undefined || own.ignoresPeerType === true) return new Map();
  return new Map(
    backendKinds().flatMap((kind) => {
      if (kind === own || kind.reachableAs === undefined) return [];
      const config = former?.backend.type === kind.type ? former.backend.settings : kind.parse({});
      return [[kind.reachableAs, { kind, config }] as const];
    }),
  );
}

/**
 * Of the links with these names, those that a backend makes in some configuration.
 * @param tuns names of the TUN devices that forwarders on the host have, or have had.
 */
export function ownLinksCalled(names: readonly string[], tuns: readonly string[]): readonly OwnLink[] {
  const defaults = new Map(defaultOwnLinks(tuns).map((link) => [link.name, link]));
  return names.flatMap((name) => defaults.get(name) ?? backendKinds().flatMap((kind) => kind.linkCalled?.(name) ?? []));
}

/** Every link that a backend makes in its default configuration, for those who look for what an earlier run has left. */
export function defaultOwnLinks(tuns: readonly string[]): readonly OwnLink[] {
  return backendKinds().flatMap((kind) => kind.owns(kind.parse({}), tuns));
}
