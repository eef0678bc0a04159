import { type BackendKeyTable, checked, integer, MTU } from '../config/backend-keys.ts';
import type { OwnLink, Route, WantedLink, WireguardKey, WireguardPeer } from '../desired/state.ts';
import { WeftError } from '../errors.ts';
import { type IpAddr, type IpPrefix, isIpv4 } from '../ip/address.ts';
import { FAMILIES, type Family, type FamilyKey, type PerFamily } from '../ip/family.ts';
import type { JsonValue, Lease } from '../lease/lease.ts';
import { Secret } from '../secret.ts';
import {
  type BackendKind,
  type ExternalInterface,
  isSkipped,
  NO_PEER_STATE,
  type PeerPart,
  type SkippedPeer,
} from './backend.ts';
import {
  attrsOf,
  hostAddress,
  hostState,
  joinParts,
  otherType,
  ownSubnet,
  peerFamilies,
  requireAddress,
  requireFamilies,
  unicast,
} from './shared.ts';
import { keyPairOf, newPrivateKey, parseWireguardKey, type WireguardKeyPair } from './wireguard-key.ts';

/** `separate`: a tunnel of each family, carried by that family. Else there is one tunnel for both, and this says over what. */
type Mode = 'separate' | 'auto' | FamilyKey;

const MODES = ['separate', 'auto', 'ipv4', 'ipv6'];

const KEYS = {
  ListenPort: integer(0, 65_535),
  ListenPortV6: integer(0, 65_535),
  MTU,
  PSK: checked((value) =>
    value === '' || parseWireguardKey(value) !== undefined
      ? undefined
      : 'must be 32 bytes in base64, as `wg genpsk` prints them',
  ),
  PersistentKeepaliveInterval: integer(0, 65_535),
  Mode: checked((value) =>
    value === '' || MODES.includes(value)
      ? undefined
      : `no valid Mode configured: ${JSON.stringify(value)} is none of ${MODES.join(', ')} (lower case)`,
  ),
} as const satisfies BackendKeyTable;

interface WireguardConfig {
  readonly mode: Mode;
  readonly ports: PerFamily<number>;
  /** MTU of the network between the hosts, instead of the external interface's. */
  readonly mtuBytes: number | undefined;
  readonly presharedKey: Secret | undefined;
  readonly keepaliveSeconds: number;
}

/** What a host publishes of itself. */
interface PeerData {
  readonly publicKey: WireguardKey;
  /** `undefined`: a flannel before 0.26, which expects everybody on the same port. */
  readonly port: number | undefined;
}

const DEVICES: PerFamily<string> = { ipv4: 'flannel-wg', ipv6: 'flannel-wg-v6' };
const DEFAULT_PORTS: PerFamily<number> = { ipv4: 51_820, ipv6: 51_821 };
/** Outer IPv6 and UDP headers, and head and tag of a WireGuard packet: 40 + 8 + 16 + 16. Over IPv4 flannel takes the same. */
const OVERHEAD_BYTES = 80;
/**
 * While a device is away, as when somebody deletes it, its route is away too, and the default route must not send its packets in
 * clear: a route that any other to the network is preferred to drops them.
 */
const GUARD_METRIC = 20_000;

/** Encrypted tunnels: one WireGuard device for each family, or one for both, and a peer for each other host. */
export const wireguard: BackendKind<WireguardConfig, WireguardKeyPair, typeof KEYS> = {
  type: 'wireguard',
  families: ['ipv4', 'ipv6'],
  keys: KEYS,
  routesWholeNetwork: true,
  owns: ({ mode }) =>
    mode === 'separate'
      ? FAMILIES.map(({ key }): OwnLink => ({ name: DEVICES[key], kind: 'wireguard', family: key }))
      : [{ name: DEVICES.ipv4, kind: 'wireguard' }],
  udpPorts: ({ mode, ports }) => (mode === 'separate' ? [ports.ipv4, ports.ipv6] : [ports.ipv4]),
  overheadBytes: { ipv4: OVERHEAD_BYTES, ipv6: OVERHEAD_BYTES },
  programs: [{ name: 'wg', packages: 'wireguard-tools' }],
  followsIdentity: true,

  parse: (values) => ({
    // Its key table lets no other value pass.
    mode: (values.Mode || 'separate') as Mode,
    ports: { ipv4: values.ListenPort || DEFAULT_PORTS.ipv4, ipv6: values.ListenPortV6 || DEFAULT_PORTS.ipv6 },
    mtuBytes: values.MTU,
    presharedKey: values.PSK ? new Secret(values.PSK) : undefined,
    keepaliveSeconds: values.PersistentKeepaliveInterval ?? 0,
  }),

  identify: async (_config, _network, _past, host, signal) =>
    keyPairOf(await host.keyFile(() => newPrivateKey((count) => host.randomBytes(count)), signal)),

  identityIn({ ipv4, ipv6 }) {
    // A lease without a key is not that of any device.
    const { publicKey } = peerData(ipv4) ?? peerData(ipv6) ?? { publicKey: '' as WireguardKey };
    return { privateKey: new Secret(''), publicKey };
  },

  open({ mode, ports, mtuBytes, presharedKey, keepaliveSeconds }, { privateKey, publicKey }, network, external) {
    const families = requireFamilies(network, wireguard);
    requireOuterAddresses(mode, families, external);
    const mtu = (mtuBytes ?? external.mtuBytes) - OVERHEAD_BYTES;
    const isSeparate = mode === 'separate';
    const deviceOf = (key: FamilyKey): string => (isSeparate ? DEVICES[key] : DEVICES.ipv4);
    const portOf = (key: FamilyKey): number => (isSeparate ? ports[key] : ports.ipv4);
    const devices = new Map(families.map(({ key }) => [deviceOf(key), portOf(key)]));

    /** Where that peer listens. A flannel with one tunnel publishes for IPv6 the port of a second one, which it does not have. */
    const peerPort = (key: FamilyKey, { port }: PeerData): number =>
      port === undefined || (!isSeparate && port === ports.ipv6) ? portOf(key) : port;

    const peerOf = (key: FamilyKey, to: IpAddr, data: PeerData, allowedIps: readonly IpPrefix[]): WireguardPeer => ({
      ...{ link: deviceOf(key), publicKey: data.publicKey, endpoint: { addr: to, port: peerPort(key, data) } },
      ...{ allowedIps, keepaliveSeconds, presharedKey },
    });

    const partOf = (...peers: readonly WireguardPeer[]): PeerPart => ({
      kernel: { ...NO_PEER_STATE, wireguard: peers },
    });

    const separatePeer = (peer: Lease): PeerPart | SkippedPeer => {
      const reachable = peerFamilies(peer, families);
      if ('skipped' in reachable) return reachable;
      return joinParts(
        reachable.map(({ family: { key, name }, subnet, publicAddress }) => {
          const data = peerData(peer.attrs.backendData[key]);
          return data === undefined
            ? { skipped: `its ${name} backend data has no usable PublicKey` }
            : partOf(peerOf(key, publicAddress, data, [subnet]));
        }),
      );
    };

    const joinedPeer = (peer: Lease, over: 'auto' | FamilyKey): PeerPart | SkippedPeer => {
      const subnets = families.flatMap(({ key }) => peer.subnets[key] ?? []);
      if (subnets.length === 0) return { skipped: `it has no subnet in ${namesOf(families)}` };
      const outer = over === 'auto' ? easiest(peer, external) : over;
      const to = peer.attrs.publicAddresses[outer];
      if (to === undefined) return { skipped: `its lease has no public address in ${namesOf(familyOf(outer))}` };
      // Both families publish the same key. Only the port of the first is that of the one tunnel, whoever says so.
      const [data] = FAMILIES.flatMap(({ key }) => peerData(peer.attrs.backendData[key]) ?? []);
      return data === undefined
        ? { skipped: 'its backend data has no usable PublicKey' }
        : partOf(peerOf(outer, to, data, subnets));
    };

    return {
      attrs: attrsOf(wireguard.type, external, families, (key) => ({ PublicKey: publicKey, Port: portOf(key) })),
      usesPeerData: true,
      mtuBytes: mtu,
      host: (own) => ({
        kernel: hostState(
          {
            links: [
              { kind: 'external', name: external.name },
              ...Array.from(devices, ([name, listenPort]): WantedLink => {
                return { kind: 'wireguard', name, mtuBytes: mtu, settings: { privateKey, publicKey, listenPort } };
              }),
            ],
            addresses: families.map(({ key }) => hostAddress(deviceOf(key), ownSubnet(own, key))),
            routes: families.flatMap(({ key }): Route[] => {
              const dst = network[key]?.network;
              if (dst === undefined) return [];
              const guard: Route = { type: 'blackhole', dst, metric: GUARD_METRIC };
              return [unicast({ dst, dev: deviceOf(key), scope: 'link' }), guard];
            }),
          },
          network,
        ),
      }),
      peer(_own, peer) {
        const other = otherType(peer, wireguard.type);
        if (other !== undefined) return other;
        const part = mode === 'separate' ? separatePeer(peer) : joinedPeer(peer, mode);
        if (isSkipped(part)) return part;
        // The kernel would take it and forget it at once.
        if (part.kernel.wireguard?.some((one) => one.publicKey === publicKey)) {
          return { skipped: "it has this host's key: give one of them another key with weft rotate-key" };
        }
        return part;
      },
    };
  },
};

/** @throws WeftError WEFT_CONFIG_INVALID, WEFT_INTERFACE_NOT_FOUND when this host has no address of a family that carries a tunnel. */
function requireOuterAddresses(mode: Mode, families: readonly Family[], external: ExternalInterface): void {
  if (mode === 'auto') return;
  const outer = mode === 'separate' ? families : familyOf(mode);
  for (const family of outer) {
    if (!families.includes(family)) {
      throw new WeftError(
        'WEFT_CONFIG_INVALID',
        `Mode "${mode}" of the wireguard backend needs ${family.name}, which is off`,
        {
          hint: `Turn it on (Enable${family.name}, with a network), or choose another Mode.`,
        },
      );
    }
    requireAddress(external.addresses[family.key], family, external, wireguard.type);
  }
}

/**
 * Over which family a peer is most likely reached, as flannel chooses: IPv4 when that address of it is public, IPv6 when those
 * of both are, else IPv4.
 */
function easiest(peer: Lease, external: ExternalInterface): FamilyKey {
  const { ipv4: publicIp, ipv6: publicIpv6 } = peer.attrs.publicAddresses;
  if (publicIpv6 === undefined) return 'ipv4';
  if (publicIp === undefined) return 'ipv6';
  if (!isPrivate(publicIp) && external.addresses.ipv4 !== undefined) return 'ipv4';
  const own = external.addresses.ipv6;
  return !isPrivate(publicIpv6) && own !== undefined && !isPrivate(own) ? 'ipv6' : 'ipv4';
}

/** RFC 1918, and RFC 4193 for IPv6. */
function isPrivate(addr: IpAddr): boolean {
  if (!isIpv4(addr)) return addr >> 121n === 0xfcn >> 1n;
  return addr >>> 24 === 10 || addr >>> 20 === 0xac1 || addr >>> 16 === 0xc0a8;
}

function familyOf(wanted: FamilyKey): readonly Family[] {
  return FAMILIES.filter(({ key }) => key === wanted);
}

function namesOf(families: readonly Family[]): string {
  return families.map(({ name }) => name).join(' or ');
}

/** As Go's decoder reads it: key case does not matter, and the last of several counts. */
function peerData(data: JsonValue | undefined): PeerData | undefined {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return undefined;
  const member = (name: string): JsonValue | undefined =>
    Object.entries(data).findLast(([key]) => key.toLowerCase() === name)?.[1];
  const [key, port] = [member('publickey'), member('port')];
  const publicKey = typeof key === 'string' ? parseWireguardKey(key) : undefined;
  if (publicKey === undefined) return undefined;
  const isPort = typeof port === 'number' && Number.isInteger(port) && port > 0 && port <= 65_535;
  return { publicKey, port: isPort ? port : undefined };
}
