import { assertNever } from '../assert-never.ts';
import { formatEndpoint, formatPrefix } from '../ip/address.ts';
import {
  type ActualRoute,
  describeRoute,
  KERNEL_ROUTE_PROTOCOL,
  type LinkSysctl,
  type Route,
  type WireguardPeer,
} from './state.ts';

/** Why a part of the wanted state cannot be had for now. Looked at again on every run. */
export type Problem =
  | { readonly type: 'link-missing'; readonly link: string }
  | { readonly type: 'link-down'; readonly link: string }
  | { readonly type: 'link-kind'; readonly link: string; readonly wanted: string; readonly actual: string }
  | { readonly type: 'underlay-missing'; readonly link: string; readonly underlay: string }
  | { readonly type: 'sysctl-read-only'; readonly sysctl: LinkSysctl; readonly actual: string }
  | { readonly type: 'route-taken'; readonly route: Route; readonly by: ActualRoute }
  | { readonly type: 'route-twice'; readonly route: Route }
  | { readonly type: 'key-twice'; readonly peer: WireguardPeer };

/** What a person needs to know and can do about it. */
export function describeProblem(problem: Problem): string {
  switch (problem.type) {
    case 'link-missing':
      return `there is no interface ${problem.link}`;
    case 'link-down':
      return `interface ${problem.link} is down`;
    case 'link-kind':
      return `interface ${problem.link} is not a ${problem.wanted} device but ${problem.actual === 'other' ? 'something else' : `a ${problem.actual}`}; remove it: ip link delete ${problem.link}`;
    case 'underlay-missing':
      return `${problem.link} cannot be created: there is no interface ${problem.underlay}`;
    case 'sysctl-read-only':
      return `${problem.sysctl.name} is ${problem.actual} and cannot be set to ${problem.sysctl.value} from here (/proc/sys is read-only): ${problem.sysctl.risk ?? ''}; set it on the host: echo ${problem.sysctl.value} > /proc/sys/${problem.sysctl.name}`;
    case 'route-taken':
      return `${formatPrefix(problem.route.dst)} is already routed by another program (${describeRoute(problem.by)} proto ${problem.by.protocol}), wanted: ${describeRoute(problem.route)}; ${remedy(problem.by)}`;
    case 'route-twice':
      return `two routes to ${formatPrefix(problem.route.dst)} are configured; the second was ignored: ${describeRoute(problem.route)}`;
    case 'key-twice':
      return `the public key ${problem.peer.publicKey} is that of two peers of ${problem.peer.link}; the second was ignored: ${formatEndpoint(problem.peer.endpoint)}, for ${problem.peer.allowedIps.map(formatPrefix).join(', ')}. Give each host its own key: weft rotate-key`;
    default:
      return assertNever(problem, 'kernel problem');
  }
}

/** A connected route is the other side of an address: without it that interface reaches none of its neighbours. */
function remedy(by: ActualRoute): string {
  const { dev } = by;
  if (by.protocol === KERNEL_ROUTE_PROTOCOL && dev !== undefined) {
    return `${dev} has an address in that subnet: choose another Network in net-conf.json, or give ${dev} another address; its route must stay`;
  }
  return `remove that route: ip route delete ${describeRoute(by)} proto ${by.protocol}`;
}
