import { type BackendKeyTable, BOOLEAN, checked, integer, MTU } from '../config/backend-keys.ts';
import type { OwnLink, WantedLink } from '../desired/state.ts';
import type { Family, FamilyKey, PerFamily } from '../ip/family.ts';
import { type MacAddr, macOfBytes, parseMac } from '../ip/mac.ts';
import type { JsonValue } from '../lease/lease.ts';
import type { BackendKind, PeerPart, SkippedPeer } from './backend.ts';
import {
  attrsOf,
  directRoute,
  hostAddress,
  hostState,
  joinParts,
  otherType,
  ownSubnet,
  type PeerFamily,
  peerFamilies,
  requireAddress,
  requireFamilies,
  unicast,
} from './shared.ts';

const OFFLOADS = ['auto', 'on', 'off'] as const;
type Offload = (typeof OFFLOADS)[number];

const KEYS = {
  VNI: integer(0, 0xffffff),
  Port: integer(0, 65_535),
  MTU,
  GBP: BOOLEAN,
  Learning: BOOLEAN,
  DirectRouting: BOOLEAN,
  TxChecksumOffload: checked((value) => (isOffload(value) ? undefined : `want one of ${OFFLOADS.join(', ')}`)),
} as const satisfies BackendKeyTable;

interface VxlanConfig {
  readonly vni: number;
  /** `undefined` is the kernel's own, 8472. */
  readonly port: number | undefined;
  readonly gbp: boolean;
  readonly learning: boolean;
  readonly directRouting: boolean;
  /** Whether the device leaves checksums of what it carries to the network card; `on` is the kernel's own, and nothing is done. */
  readonly offload: Offload;
  /** MTU of the network between the hosts, instead of the external interface's. */
  readonly mtuBytes: number | undefined;
}

/** Linux's own, from before the one of RFC 7348. */
const KERNEL_PORT = 8472;
/** flannel's VNI on Linux. */
const DEFAULT_VNI = 1;
/** Outer IP, UDP and VXLAN headers and the inner Ethernet header (RFC 7348, section 5). */
const OVERHEAD_BYTES: PerFamily<number> = { ipv4: 20 + 8 + 8 + 14, ipv6: 40 + 8 + 8 + 14 };

/** A VXLAN device for each family, and for each peer a neighbour, a forwarding entry and a route, all of them permanent. */
export const vxlan: BackendKind<VxlanConfig, PerFamily<MacAddr>, typeof KEYS> = {
  type: 'vxlan',
  families: ['ipv4', 'ipv6'],
  keys: KEYS,
  reachableAs: 'vxlan',
  owns: ({ vni }) =>
    (['ipv4', 'ipv6'] as const).map((key): OwnLink => ({ name: deviceName(vni, key), kind: 'vxlan', family: key })),
  linkCalled(name) {
    const [, v6, vni] = /^flannel(-v6)?\.(\d{1,8})$/.exec(name) ?? [];
    return vni === undefined ? undefined : { name, kind: 'vxlan', family: v6 === undefined ? 'ipv4' : 'ipv6' };
  },
  udpPorts: ({ port = KERNEL_PORT }) => [port],
  overheadBytes: OVERHEAD_BYTES,

  parse: (values) => ({
    vni: values.VNI ?? DEFAULT_VNI,
    port: values.Port || undefined,
    gbp: values.GBP === true,
    learning: values.Learning === true,
    directRouting: values.DirectRouting === true,
    offload: isOffload(values.TxChecksumOffload) ? values.TxChecksumOffload : 'on',
    mtuBytes: values.MTU,
  }),

  /** What was published is kept, so that peers need not learn anything new; then what the device has; then a random one. */
  async identify({ vni }, _network, { published }, host, signal) {
    const macOf = async (key: FamilyKey): Promise<MacAddr> =>
      vtepMac(published[key]) ?? parseMac((await host.linkMac(deviceName(vni, key), signal)) ?? '') ?? randomMac(host);
    return { ipv4: await macOf('ipv4'), ipv6: await macOf('ipv6') };
  },

  open({ vni, port, gbp, learning, directRouting, mtuBytes, offload }, macs, network, external) {
    const families = requireFamilies(network, vxlan);
    const underlayMtu = mtuBytes ?? external.mtuBytes;
    const mtuOf = ({ key }: Family): number => underlayMtu - OVERHEAD_BYTES[key];
    const devices = families.map((family): WantedLink => {
      const local = requireAddress(external.addresses[family.key], family, external, vxlan.type);
      return {
        kind: 'vxlan',
        name: deviceName(vni, family.key),
        mtuBytes: mtuOf(family),
        mac: macs[family.key],
        ...(offload === 'off' ? { sumsBefore: true } : {}),
        settings: { vni, underlay: external.name, local, port, learning, gbp },
      };
    });
    const peerPart = (peer: PeerFamily, data: JsonValue | undefined): PeerPart | SkippedPeer => {
      const { family, subnet, publicAddress } = peer;
      if (directRouting) {
        const route = directRoute(peer, external);
        if (!('skipped' in route)) return { kernel: { routes: [route], neighbours: [], fdb: [] } };
      }
      const mac = vtepMac(data);
      if (mac === undefined) return { skipped: `its ${family.name} backend data has no usable VtepMAC` };
      const link = deviceName(vni, family.key);
      return {
        kernel: {
          neighbours: [{ link, addr: subnet.addr, mac }],
          fdb: [{ link, mac, dst: publicAddress }],
          routes: [unicast({ dst: subnet, dev: link, via: subnet.addr, onlink: true })],
        },
      };
    };
    return {
      attrs: attrsOf(vxlan.type, external, families, (key) => ({ VNI: vni, VtepMAC: macs[key] })),
      usesPeerData: true,
      // One number for both families: containers have one interface.
      mtuBytes: Math.min(...families.map(mtuOf)),
      host: (own) => ({
        kernel: hostState(
          {
            links: [{ kind: 'external', name: external.name }, ...devices],
            addresses: families.map(({ key }) => hostAddress(deviceName(vni, key), ownSubnet(own, key))),
          },
          network,
        ),
        outer: { traffic: [{ protocol: 'udp', port: port ?? KERNEL_PORT }], from: 'strict' },
        ...(offload === 'auto' ? { probeChecksums: devices.map(({ name }) => name) } : {}),
      }),
      peer(_own, peer) {
        const other = otherType(peer, vxlan.type);
        if (other !== undefined) return other;
        const reachable = peerFamilies(peer, families);
        if ('skipped' in reachable) return reachable;
        return joinParts(reachable.map((family) => peerPart(family, peer.attrs.backendData[family.family.key])));
      },
    };
  },
};

function isOffload(value: string | undefined): value is Offload {
  return OFFLOADS.some((offload) => offload === value);
}

function deviceName(vni: number, family: FamilyKey): string {
  return family === 'ipv4' ? `flannel.${vni}` : `flannel-v6.${vni}`;
}

/** The MAC address in a peer's data, in any form that a peer could publish it; a group address is none. */
function vtepMac(data: JsonValue | undefined): MacAddr | undefined {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return undefined;
  const entry = Object.entries(data).findLast(([key]) => key.toLowerCase() === 'vtepmac');
  const mac = typeof entry?.[1] === 'string' ? parseMac(entry[1]) : undefined;
  return mac === undefined || isGroup(mac) ? undefined : mac;
}

/** IEEE 802: the lowest bit of the first byte. */
function isGroup(mac: MacAddr): boolean {
  return (Number.parseInt(mac.slice(0, 2), 16) & 1) === 1;
}

/** Locally administered, not a group address. */
function randomMac(host: { randomBytes(count: number): Uint8Array }): MacAddr {
  const bytes = host.randomBytes(6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfe) | 0x02;
  return macOfBytes(bytes);
}
