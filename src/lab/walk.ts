/**
 * The walk of one packet: where it was seen, when, and what it looked like there. Everything is put together from
 * captured frames (matched by an ICMP echo's id and sequence, or by a token in a UDP payload) and from what two of them
 * prove about the step between them (a TTL that went down, a datagram that now wraps it). What was not captured is
 * reported as missing, never filled in. Pure; walk-probe.ts sends the packet and captures.
 */

import { type DecodedPacket, decodeFrame, unwrap } from '../capture/decode.ts';
import type { CapturedFrame } from '../capture/pcap.ts';
import { formatAddr } from '../ip/address.ts';
import type { Ipv4Addr } from '../ip/ipv4.ts';

/** How the packet is recognised wherever it is captured. */
export type Probe =
  | {
      readonly kind: 'udp';
      readonly source: Ipv4Addr;
      readonly destination: Ipv4Addr;
      readonly port: number;
      readonly token: string;
    }
  | {
      readonly kind: 'icmp';
      readonly source: Ipv4Addr;
      readonly destination: Ipv4Addr;
      readonly id: number;
      readonly sequence: number;
    };

/** Whether this is the probe itself (not its wrapping, not an answer to it). */
export function isProbe(probe: Probe, packet: DecodedPacket): boolean {
  if (packet.ip.source !== probe.source || packet.ip.destination !== probe.destination) return false;
  const { transport } = packet;
  switch (probe.kind) {
    case 'udp':
      return (
        transport.kind === 'udp' &&
        transport.destinationPort === probe.port &&
        Buffer.from(packet.payload).toString('latin1') === probe.token
      );
    case 'icmp':
      return (
        transport.kind === 'icmp' &&
        transport.type === 8 &&
        transport.echo?.id === probe.id &&
        transport.echo.sequence === probe.sequence
      );
  }
}

/** The probe as one frame shows it: bare, or inside a tunnel's packet. */
export interface Sighting {
  readonly timeNs: bigint;
  readonly packet: DecodedPacket;
  /** The probe inside `packet`, when that wraps it. */
  readonly inner: DecodedPacket | undefined;
  /** Of a VXLAN tunnel. */
  readonly vni?: number | undefined;
}

/** `undefined` when the frame has nothing to do with the probe. */
export function sight(probe: Probe, frame: CapturedFrame): Sighting | undefined {
  const packet = decodeFrame(frame.linkType, frame.bytes);
  if (packet === undefined) return undefined;
  if (isProbe(probe, packet)) return { timeNs: frame.timeNs, packet, inner: undefined };
  const wrapped = unwrap(packet);
  if (wrapped === undefined || !isProbe(probe, wrapped.packet)) return undefined;
  return { timeNs: frame.timeNs, packet, inner: wrapped.packet, vni: wrapped.vni };
}

export type Space = 'user' | 'kernel' | 'physical';

/** As it is, or inside a tunnel's packet. */
export type PacketForm = 'bare' | 'wrapped';

/** A device where the packet must be captured. */
export interface CapturedStep {
  readonly kind: 'captured';
  /** `h1`, `h1c1`, or `underlay`. */
  readonly node: string;
  readonly device: string;
  readonly space: Space;
  /** As seen from the node. */
  readonly direction: 'out' | 'in';
  /** What it must look like here. */
  readonly form: PacketForm;
}

/** What lies between two devices; holds when the frames on both sides of it say so. */
export interface InferredStep {
  readonly kind: 'inferred';
  readonly node: string;
  readonly space: Space;
  readonly place: string;
  /**
   * `sent`: a program handed the packet to the kernel; `received`: a program got exactly this payload from the kernel;
   * `headers-added`: the next capture shows the headers that the kernel put before the payload; `headers-removed`: the
   * last capture shows those that were taken off; `forwarded`: the kernel took it from the last device to the next, and
   * the TTL is one less; `encapsulated` and `decapsulated`: a program took it from one device and put it into a datagram,
   * or took it out of one, and the TTL is one less; `wrapped` and `unwrapped`: the kernel did that, and the TTL is the same;
   * `hidden`: between the two devices nobody can read it.
   */
  readonly evidence: Evidence;
}

export type Evidence =
  | 'sent'
  | 'headers-added'
  | 'forwarded'
  | 'encapsulated'
  | 'decapsulated'
  | 'wrapped'
  | 'unwrapped'
  | 'hidden'
  | 'headers-removed'
  | 'received';

export type Step = CapturedStep | InferredStep;

export interface PacketSummary {
  readonly source: string;
  readonly destination: string;
  readonly protocol: 'udp' | 'tcp' | 'icmp' | 'other';
  readonly sourcePort?: number;
  readonly destinationPort?: number;
  readonly ttl: number;
  /** IP total length in bytes. */
  readonly lengthBytes: number;
  readonly id: number;
  readonly dontFragment: boolean;
  readonly ethernet?: { readonly source: string; readonly destination: string };
}

export interface Hop {
  readonly node: string;
  /** A device such as `eth0`, or a part of the system such as `TCP/IP`. */
  readonly place: string;
  readonly space: Space;
  /** False for what is concluded from the hops around it; `note` says from what. */
  readonly captured: boolean;
  readonly direction?: 'out' | 'in';
  /** Microseconds since the packet was first captured. */
  readonly atUs?: number;
  readonly packet?: PacketSummary;
  /** The container's packet inside the datagram. */
  readonly inner?: PacketSummary;
  readonly note?: string;
}

export interface Walk {
  readonly title: string;
  readonly probe: string;
  readonly from: string;
  readonly to: string;
  /** From the first to the last capture. */
  readonly durationUs: number;
  /** Of that, between the captures on both sides of forwarding programs: their user space, system calls and wake-ups. */
  readonly forwarderUs: number;
  readonly hops: readonly Hop[];
}

/** What was seen, one entry per step: the sighting of a captured step, `undefined` for other steps and where there was none. */
export type Sightings = readonly (Sighting | undefined)[];

export interface WalkFacts {
  readonly title: string;
  readonly probe: Probe;
  readonly from: string;
  readonly to: string;
  readonly steps: readonly Step[];
  readonly sightings: Sightings;
  /** Whether the program at the end read exactly the probe's payload. */
  readonly delivered: boolean;
}

export type WalkResult =
  | { readonly ok: true; readonly walk: Walk }
  /** What is missing or contradicts the path, one sentence each, in path order. */
  | { readonly ok: false; readonly problems: readonly string[] };

/** The hops of the probe, in order, with what each has done to it, and what is wrong with them. Pure. */
export function buildWalk(facts: WalkFacts): WalkResult {
  const { steps, sightings, probe } = facts;
  const problems: string[] = [];
  const hops: Hop[] = [];
  let forwarderNs = 0n;
  const times = sightings.filter((sighting) => sighting !== undefined).map((sighting) => sighting.timeNs);
  const first = times[0] ?? 0n;
  const last = times.at(-1) ?? 0n;

  steps.forEach((step, i) => {
    if (step.kind === 'captured') {
      const sighting = sightings[i];
      const where = `${step.node} ${step.device}`;
      if (sighting === undefined) {
        problems.push(`the packet was not captured on ${where}`);
        return;
      }
      const form: PacketForm = sighting.inner === undefined ? 'bare' : 'wrapped';
      if (form !== step.form) {
        problems.push(`on ${where} the packet was ${form === 'bare' ? 'not' : 'still'} inside a datagram`);
        return;
      }
      hops.push({
        node: step.node,
        place: step.device,
        space: step.space,
        captured: true,
        direction: step.direction,
        atUs: microseconds(sighting.timeNs - first),
        packet: summarise(sighting.packet),
        ...(sighting.inner === undefined ? {} : { inner: summarise(sighting.inner) }),
      });
      return;
    }
    const before = nearest(steps, sightings, i, -1);
    const after = nearest(steps, sightings, i, 1);
    const conclusion = conclude(step, facts.delivered, probe, before, after);
    if (conclusion === undefined) return; // A missing neighbour is a problem of its own, and already reported.
    if (!conclusion.ok) {
      problems.push(`${step.node} ${step.place}: ${conclusion.text}`);
      return;
    }
    if (before !== undefined && after !== undefined && isForwarder(step)) forwarderNs += after.timeNs - before.timeNs;
    hops.push({ node: step.node, place: step.place, space: step.space, captured: false, note: conclusion.text });
  });

  if (problems.length > 0) return { ok: false, problems };
  return {
    ok: true,
    walk: {
      title: facts.title,
      probe: describeProbe(probe),
      from: facts.from,
      to: facts.to,
      durationUs: microseconds(last - first),
      forwarderUs: microseconds(forwarderNs),
      hops,
    },
  };
}

function isForwarder(step: InferredStep): boolean {
  return step.evidence === 'encapsulated' || step.evidence === 'decapsulated';
}

/** The closest captured step in one direction; `undefined` when there is none or it saw nothing. */
function nearest(steps: readonly Step[], sightings: Sightings, from: number, by: 1 | -1): Sighting | undefined {
  for (let i = from + by; i >= 0 && i < steps.length; i += by) {
    if (steps[i]?.kind === 'captured') return sightings[i];
  }
  return undefined;
}

interface Conclusion {
  readonly ok: boolean;
  readonly text: string;
}

function conclude(
  step: InferredStep,
  delivered: boolean,
  probe: Probe,
  before: Sighting | undefined,
  after: Sighting | undefined,
): Conclusion | undefined {
  switch (step.evidence) {
    case 'sent':
      return after && { ok: true, text: `writes ${describeProbe(probe)} to a socket` };
    case 'received':
      if (before === undefined) return undefined;
      return delivered
        ? { ok: true, text: `reads exactly ${describeProbe(probe)} from its socket` }
        : { ok: false, text: 'the program did not read the payload that was sent' };
    case 'headers-added':
      return after && { ok: true, text: describeHeaders(after.packet) };
    case 'headers-removed':
      return (
        before && { ok: true, text: `takes the headers off, gives the payload to the socket${portOf(before.packet)}` }
      );
    case 'forwarded':
    case 'encapsulated':
    case 'decapsulated': {
      if (before === undefined || after === undefined) return undefined;
      const { inTtl, outTtl } = ttls(before, after);
      const text = `${describeForwarding(step.evidence, before, after)}, TTL ${inTtl} → ${outTtl}`;
      return { ok: outTtl === inTtl - 1, text: outTtl === inTtl - 1 ? text : `${text}, but one less was expected` };
    }
    case 'wrapped':
    case 'unwrapped':
    case 'hidden': {
      if (before === undefined || after === undefined) return undefined;
      const { inTtl, outTtl } = ttls(before, after);
      const text = describeTunnel(step.evidence, before, after);
      return outTtl === inTtl
        ? { ok: true, text }
        : { ok: false, text: `${text}, TTL ${inTtl} → ${outTtl}, but the same was expected` };
    }
  }
}

/** Of the packet that is carried, whatever is around it. */
function ttls(before: Sighting, after: Sighting): { readonly inTtl: number; readonly outTtl: number } {
  return { inTtl: (before.inner ?? before.packet).ip.ttl, outTtl: (after.inner ?? after.packet).ip.ttl };
}

function describeTunnel(evidence: 'wrapped' | 'unwrapped' | 'hidden', before: Sighting, after: Sighting): string {
  const headersOf = ({ packet, vni }: Sighting): string =>
    packet.transport.kind !== 'udp' ? 'an IP header' : `Ethernet, VXLAN (VNI ${vni ?? '?'}), UDP and IP headers`;
  switch (evidence) {
    case 'wrapped':
      return `puts ${headersOf(after)} before it, to ${formatAddr(after.packet.ip.destination)}${portOf(after.packet)}`;
    case 'unwrapped':
      return `takes ${headersOf(before)} off that come from ${formatAddr(before.packet.ip.source)}`;
    case 'hidden':
      return 'between the hosts it cannot be read';
  }
}

function describeHeaders(packet: DecodedPacket): string {
  const { ip, transport } = packet;
  const from = transport.kind === 'udp' ? `:${transport.sourcePort}` : '';
  return `puts ${transport.kind === 'udp' ? 'UDP and IP headers' : 'an IP header'} before it: from ${formatAddr(ip.source)}${from}, TTL ${ip.ttl}`;
}

function portOf(packet: DecodedPacket): string {
  return packet.transport.kind === 'udp' ? ` on port ${packet.transport.destinationPort}` : '';
}

function describeForwarding(
  evidence: 'forwarded' | 'encapsulated' | 'decapsulated',
  before: Sighting,
  after: Sighting,
): string {
  switch (evidence) {
    case 'forwarded':
      return 'routes it to the next device';
    case 'encapsulated':
      return `reads it from the TUN device, sends it inside a datagram to ${formatAddr(after.packet.ip.destination)}`;
    case 'decapsulated':
      return `takes it out of the datagram from ${formatAddr(before.packet.ip.source)}, writes it to the TUN device`;
  }
}

/** Three decimals: the clock's nanoseconds. */
function microseconds(ns: bigint): number {
  return Number(ns) / 1000;
}

export function describeProbe(probe: Probe): string {
  return probe.kind === 'udp' ? `"${probe.token}"` : `echo request id ${probe.id} sequence ${probe.sequence}`;
}

export function summarise(packet: DecodedPacket): PacketSummary {
  const { ip, transport, ethernet } = packet;
  const ports =
    transport.kind === 'udp' || transport.kind === 'tcp'
      ? { sourcePort: transport.sourcePort, destinationPort: transport.destinationPort }
      : {};
  return {
    source: formatAddr(ip.source),
    destination: formatAddr(ip.destination),
    protocol: transport.kind,
    ...ports,
    ttl: ip.ttl,
    lengthBytes: ip.totalLength,
    id: ip.id,
    dontFragment: ip.dontFragment,
    ...(ethernet === undefined ? {} : { ethernet: { source: ethernet.source, destination: ethernet.destination } }),
  };
}
