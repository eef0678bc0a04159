/** Which way packets take to the containers of another host: the kernel is asked, so that the lab need not know backends. */
import * as v from 'valibot';
import { WeftError } from '../errors.ts';
import { formatIpv4, type Ipv4Addr } from '../ip/ipv4.ts';
import { HOST_DEVICE } from './namespaces.ts';
import type { LabHost, Topology } from './topology.ts';
import type { InferredStep, PacketForm, Step } from './walk.ts';

export interface OverlayWay {
  /** The device by which packets for them leave the host's routing. */
  readonly device: string;
  /** What the kernel calls its kind (`tun`, `vxlan`, …); `direct` when it is the one to the underlay. */
  readonly kind: string;
}

const routeSchema = v.tuple([v.object({ dev: v.string() })]);
const linkSchema = v.tuple([
  v.object({ linkinfo: v.optional(v.object({ info_kind: v.optional(v.string(), 'unknown') })) }),
]);

/** The way from a host to a container of another one. */
export async function readWay(
  topology: Topology,
  host: LabHost,
  destination: Ipv4Addr,
  signal?: AbortSignal,
): Promise<OverlayWay> {
  const ip = async (...argv: string[]): Promise<unknown> =>
    JSON.parse((await topology.exec(host, ['ip', '-j', ...argv], { signal })).stdout);
  try {
    const [{ dev: device }] = v.parse(routeSchema, await ip('route', 'get', formatIpv4(destination)));
    if (device === HOST_DEVICE) return { device, kind: 'direct' };
    const [{ linkinfo }] = v.parse(linkSchema, await ip('-d', 'link', 'show', 'dev', device));
    return { device, kind: linkinfo?.info_kind ?? 'unknown' };
  } catch (error) {
    signal?.throwIfAborted();
    throw new WeftError('WEFT_LAB_FAILED', `${host.name} has no route to ${formatIpv4(destination)}`, { cause: error });
  }
}

/** Tunnels that the kernel itself puts packets into, with the headers that it adds. */
const KERNEL_TUNNELS: ReadonlyMap<string, { readonly out: string; readonly in: string }> = new Map([
  ['vxlan', { out: 'VXLAN · UDP · IP', in: 'IP · UDP · VXLAN' }],
  ['ipip', { out: 'IP in IP', in: 'IP in IP' }],
]);

/** From the routing of one host to that of the other. `underlay` gives what lies between them. */
export function overlaySteps(
  a: string,
  b: string,
  { device, kind }: OverlayWay,
  underlay: (form: PacketForm) => readonly Step[],
): Step[] {
  const inferred = (
    node: string,
    place: string,
    evidence: InferredStep['evidence'],
    space: InferredStep['space'] = 'kernel',
  ): Step => ({ kind: 'inferred', node, space, place, evidence });
  const [out, back]: Step[] = [
    { kind: 'captured', node: a, device, space: 'kernel', direction: 'out', form: 'bare' },
    { kind: 'captured', node: b, device, space: 'kernel', direction: 'in', form: 'bare' },
  ];
  const tunnel = KERNEL_TUNNELS.get(kind);
  const between = (): readonly Step[] => {
    if (kind === 'direct') return underlay('bare');
    if (kind === 'tun') {
      return [
        out!,
        inferred(a, 'flanneld', 'encapsulated', 'user'),
        inferred(a, 'socket · UDP · IP', 'headers-added'),
        ...underlay('wrapped'),
        inferred(b, 'IP · UDP · socket', 'headers-removed'),
        inferred(b, 'flanneld', 'decapsulated', 'user'),
        back!,
      ];
    }
    if (tunnel === undefined) return [out!, inferred('underlay', `${kind} tunnel`, 'hidden', 'physical'), back!];
    return [
      out!,
      inferred(a, tunnel.out, 'wrapped'),
      ...underlay('wrapped'),
      inferred(b, tunnel.in, 'unwrapped'),
      back!,
    ];
  };
  return [inferred(a, 'routing', 'forwarded'), ...between(), inferred(b, 'routing', 'forwarded')];
}
