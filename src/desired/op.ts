import { assertNever } from '../assert-never.ts';
import { formatAddr, formatEndpoint, formatPrefix } from '../ip/address.ts';
import type { MacAddr } from '../ip/mac.ts';
import {
  type ActualAddress,
  type ActualIpsecPolicy,
  type ActualRoute,
  type Address,
  describeAddress,
  describePolicy,
  describeRoute,
  type FdbEntry,
  type IpsecPolicy,
  type LinkSysctl,
  type Neighbour,
  type OwnWantedLink,
  type Route,
  type WireguardKey,
  type WireguardPeer,
  type WireguardSettings,
} from './state.ts';

/** One change to the kernel. Every one of them is idempotent: deleting what is gone is a success. */
export type Op =
  /** Made with all its properties, and up. */
  | { readonly type: 'link-add'; readonly link: OwnWantedLink }
  | { readonly type: 'link-delete'; readonly name: string }
  | {
      readonly type: 'link-set';
      readonly name: string;
      readonly mtuBytes?: number;
      readonly mac?: MacAddr;
      readonly alias?: string;
      readonly queuePackets?: number;
      readonly up?: boolean;
    }
  | { readonly type: 'link-rename'; readonly name: string; readonly to: string }
  /** The device computes no checksums any more. */
  | { readonly type: 'link-sum-before'; readonly name: string }
  | { readonly type: 'sysctl-set'; readonly sysctl: LinkSysctl }
  | { readonly type: 'address-add'; readonly address: Address }
  | { readonly type: 'address-delete'; readonly address: ActualAddress }
  | { readonly type: 'neighbour-replace'; readonly neighbour: Neighbour }
  | { readonly type: 'neighbour-delete'; readonly neighbour: Neighbour }
  | { readonly type: 'fdb-replace'; readonly entry: FdbEntry }
  | { readonly type: 'fdb-delete'; readonly entry: FdbEntry }
  | { readonly type: 'wireguard-set'; readonly link: string; readonly settings: WireguardSettings }
  /** Added, or all of it set anew. What it allows goes from any other peer of the device. */
  | { readonly type: 'wireguard-peer-set'; readonly peer: WireguardPeer }
  | { readonly type: 'wireguard-peer-delete'; readonly link: string; readonly publicKey: WireguardKey }
  /** Added, or in the place of the one with this key. */
  | { readonly type: 'policy-set'; readonly policy: IpsecPolicy }
  | { readonly type: 'policy-delete'; readonly policy: ActualIpsecPolicy }
  /** Fails when there is a route with this key. */
  | { readonly type: 'route-add'; readonly route: Route }
  /** Takes the place of the route in use with this key, without a gap. */
  | { readonly type: 'route-replace'; readonly route: Route }
  | { readonly type: 'route-delete'; readonly route: ActualRoute };

/** One line for logs and error messages. */
export function describeOp(op: Op): string {
  switch (op.type) {
    case 'link-add':
      return `add link ${op.link.name} (${op.link.kind})`;
    case 'link-delete':
      return `delete link ${op.name}`;
    case 'link-set': {
      const parts = [
        ...(op.mtuBytes === undefined ? [] : [`mtu ${op.mtuBytes}`]),
        ...(op.mac === undefined ? [] : [`address ${op.mac}`]),
        ...(op.alias === undefined ? [] : [`alias ${op.alias}`]),
        ...(op.queuePackets === undefined ? [] : [`txqueuelen ${op.queuePackets}`]),
        ...(op.up === undefined ? [] : [op.up ? 'up' : 'down']),
      ];
      return `set link ${op.name} ${parts.join(' ')}`;
    }
    case 'link-rename':
      return `rename link ${op.name} to ${op.to}`;
    case 'link-sum-before':
      return `turn tx-checksum-ip-generic of ${op.name} off`;
    case 'sysctl-set':
      return `set ${op.sysctl.name} to ${op.sysctl.value}`;
    case 'address-add':
      return `add address ${describeAddress(op.address)}`;
    case 'address-delete':
      return `delete address ${describeAddress(op.address)}`;
    case 'neighbour-replace':
      return `set neighbour ${formatAddr(op.neighbour.addr)} lladdr ${op.neighbour.mac} dev ${op.neighbour.link}`;
    case 'neighbour-delete':
      return `delete neighbour ${formatAddr(op.neighbour.addr)} dev ${op.neighbour.link}`;
    case 'fdb-replace':
      return `set fdb ${op.entry.mac} dst ${formatAddr(op.entry.dst)} dev ${op.entry.link}`;
    case 'fdb-delete':
      return `delete fdb ${op.entry.mac} dst ${formatAddr(op.entry.dst)} dev ${op.entry.link}`;
    case 'wireguard-set':
      return `set key and port ${op.settings.listenPort} of ${op.link}`;
    case 'wireguard-peer-set': {
      const { link, publicKey, endpoint, allowedIps } = op.peer;
      return `set peer ${publicKey} of ${link}, ${formatEndpoint(endpoint)}, for ${allowedIps.map(formatPrefix).join(', ')}`;
    }
    case 'wireguard-peer-delete':
      return `delete peer ${op.publicKey} of ${op.link}`;
    case 'policy-set':
      return `set IPsec policy ${describePolicy(op.policy)}`;
    case 'policy-delete':
      return `delete IPsec policy ${describePolicy(op.policy)}`;
    case 'route-add':
      return `add route ${describeRoute(op.route)}`;
    case 'route-replace':
      return `replace route ${describeRoute(op.route)}`;
    case 'route-delete':
      return `delete route ${describeRoute(op.route)}`;
    default:
      return assertNever(op, 'kernel operation');
  }
}
