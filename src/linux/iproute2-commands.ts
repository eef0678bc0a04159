import { assertNever } from '../assert-never.ts';
import type { LinkKind } from '../desired/link-kinds/link-kind.ts';
import { linkKind } from '../desired/link-kinds/table.ts';
import type { Op } from '../desired/op.ts';
import { type ActualRoute, type OwnLinkKind, type Route, WEFT_ROUTE_PROTOCOL } from '../desired/state.ts';
import { formatAddr, formatPrefix } from '../ip/address.ts';
import { policyCommandOf } from './ipsec-policies.ts';

/**
 * Operations of one tool in a row are one batch. Three are apart from the rest because their failure ends the program in
 * spite of `-force` (iproute2 6.1: `exit(2)` in ipneigh.c and xfrm_policy.c; a missing underlay in iplink_vxlan.c).
 */
export type Tool = 'ip' | 'ip link add' | 'ip neigh' | 'ip xfrm' | 'bridge' | 'sysctl' | 'wg' | 'ethtool';

/** By which an operation is done. */
export function toolOf(op: Op): Tool {
  switch (op.type) {
    case 'link-add':
      return 'ip link add';
    case 'link-sum-before':
      return 'ethtool';
    case 'sysctl-set':
      return 'sysctl';
    case 'neighbour-replace':
    case 'neighbour-delete':
      return 'ip neigh';
    case 'policy-set':
    case 'policy-delete':
      return 'ip xfrm';
    case 'fdb-replace':
    case 'fdb-delete':
      return 'bridge';
    case 'wireguard-set':
    case 'wireguard-peer-set':
    case 'wireguard-peer-delete':
      return 'wg';
    default:
      return 'ip';
  }
}

/** The line of `ip -batch` (or `bridge -batch`) for an operation. */
export function commandOf(op: Op): string {
  switch (op.type) {
    case 'link-add': {
      const { link } = op;
      const words = ['link add name', link.name];
      if (link.mtuBytes !== undefined) words.push('mtu', String(link.mtuBytes));
      if ('mac' in link && link.mac !== undefined) words.push('address', link.mac);
      const kind: LinkKind<OwnLinkKind> = linkKind(link.kind);
      words.push('up type', link.kind, ...kind.create(link));
      return words.join(' ');
    }
    case 'link-delete':
      return `link delete dev ${op.name}`;
    case 'link-set': {
      const words = ['link set dev', op.name];
      if (op.mtuBytes !== undefined) words.push('mtu', String(op.mtuBytes));
      if (op.mac !== undefined) words.push('address', op.mac);
      if (op.alias !== undefined) words.push('alias', op.alias);
      if (op.queuePackets !== undefined) words.push('txqueuelen', String(op.queuePackets));
      if (op.up !== undefined) words.push(op.up ? 'up' : 'down');
      return words.join(' ');
    }
    case 'link-rename':
      return `link set dev ${op.name} name ${op.to}`;
    case 'link-sum-before':
    case 'sysctl-set':
    case 'wireguard-set':
    case 'wireguard-peer-set':
    case 'wireguard-peer-delete':
      throw new TypeError(`unreachable: ${op.type} is not done by ip`);
    case 'address-add': {
      const { link, addr, prefixLength, scope, prefixRoute } = op.address;
      const words = ['addr replace', `${formatAddr(addr)}/${prefixLength}`, 'dev', link];
      // An IPv6 address is used at once: nobody else has an address of this node's own subnet.
      words.push(...(typeof addr === 'number' ? ['scope', scope] : ['nodad']));
      if (!prefixRoute) words.push('noprefixroute');
      return words.join(' ');
    }
    case 'address-delete': {
      const { link, addr, prefixLength, peer } = op.address;
      const local = peer === undefined ? '' : `${formatAddr(addr)} peer `;
      return `addr delete ${local}${formatAddr(peer ?? addr)}/${prefixLength} dev ${link}`;
    }
    case 'neighbour-replace':
      return `neigh replace ${formatAddr(op.neighbour.addr)} lladdr ${op.neighbour.mac} dev ${op.neighbour.link} nud permanent`;
    case 'neighbour-delete':
      return `neigh delete ${formatAddr(op.neighbour.addr)} dev ${op.neighbour.link}`;
    case 'fdb-replace':
      return `fdb replace ${op.entry.mac} dev ${op.entry.link} dst ${formatAddr(op.entry.dst)} self permanent`;
    case 'fdb-delete':
      return `fdb delete ${op.entry.mac} dev ${op.entry.link} dst ${formatAddr(op.entry.dst)} self`;
    case 'policy-set':
    case 'policy-delete':
      return policyCommandOf(op);
    case 'route-add':
      return `route add ${routeWords(op.route)}`;
    case 'route-replace':
      return `route replace ${routeWords(op.route)}`;
    case 'route-delete':
      return `route delete ${routeDeletionWords(op.route)}`;
    default:
      return assertNever(op, 'kernel operation');
  }
}

function routeWords(route: Route): string {
  const words = [...(route.type === 'blackhole' ? ['blackhole'] : []), formatPrefix(route.dst)];
  if (route.type === 'unicast') {
    if (route.via !== undefined) words.push('via', formatAddr(route.via));
    words.push('dev', route.dev);
    if (route.onlink) words.push('onlink');
    if (typeof route.dst.addr === 'number') words.push('scope', route.scope);
  }
  if (route.metric !== undefined) words.push('metric', String(route.metric));
  words.push('table main proto', String(WEFT_ROUTE_PROTOCOL));
  return words.join(' ');
}

/** The protocol number keeps the kernel from ever taking somebody else's route for it. */
function routeDeletionWords(route: ActualRoute): string {
  const words = [...(route.type === 'blackhole' ? ['blackhole'] : []), formatPrefix(route.dst)];
  if (route.via !== undefined) words.push('via', formatAddr(route.via));
  // The kernel puts an IPv6 blackhole route on lo, but does not find it there.
  if (route.dev !== undefined && route.type === 'unicast') words.push('dev', route.dev);
  if (typeof route.dst.addr === 'number' && route.type === 'unicast') words.push('scope', route.scope);
  words.push('metric', String(route.metric), 'table main proto', String(route.protocol));
  return words.join(' ');
}
