/** A walk that a lab has captured, as a flow with times. Pure. */
import type { Hop, PacketSummary, Walk } from '../../../src/lab/walk.ts';
import { FLOW_TITLES, type Flow, type FlowHop, type FlowKind, flowOf, type Header } from './walk-flows.ts';

const ETHERNET = 14;
const IP = 20;
const UDP = 8;

/** Names of the lab's report that the picture has shorter ones for. */
const PLACES: Readonly<Record<string, string>> = {
  'socket · UDP · IP': 'UDP socket',
  'IP · UDP · socket': 'UDP socket',
  'VXLAN · UDP · IP': 'VXLAN',
  'IP · UDP · VXLAN': 'VXLAN',
};

export function capturedFlow(walk: Walk, kind: FlowKind): Flow {
  const wireAt = walk.hops.findIndex(({ node }) => node === 'underlay');
  const lastWire = walk.hops.findLastIndex(({ node }) => node === 'underlay');
  const hops = walk.hops.flatMap((hop, index): readonly FlowHop[] => {
    if (hop.space === 'physical' && !hop.captured) return betweenCards(kind);
    const side = index < wireAt ? 'from' : index <= lastWire ? 'wire' : 'to';
    const isContainer = hop.node === walk.from || hop.node === walk.to;
    return [
      {
        place: placeOf(hop, isContainer && kind !== 'native'),
        layer: hop.space,
        side,
        isContainer: isContainer && kind !== 'native',
        what: hop.note ?? captionOf(hop),
        headers: headersAt(walk.hops, index),
        ...(hop.atUs !== undefined && { atUs: hop.atUs }),
        ...(hop.packet !== undefined && { seen: linesOf(hop) }),
      },
    ];
  });
  return {
    kind,
    title: FLOW_TITLES[kind],
    colour: kind === 'native' ? 'native' : 'tun',
    hops,
    durationUs: walk.durationUs,
  };
}

/** A tunnel that encrypts can be captured at both ends alone; between them it is as it is everywhere, from card to card. */
function betweenCards(kind: FlowKind): readonly FlowHop[] {
  const { hops } = flowOf(kind);
  const isCard = ({ place, isContainer }: FlowHop): boolean => place === 'eth0' && !isContainer;
  return hops.slice(hops.findIndex(isCard), hops.findLastIndex(isCard) + 1);
}

function placeOf({ place, space }: Hop, isContainer: boolean): string {
  if (space === 'physical') return place.replace(/^port/, 'port ');
  const short = PLACES[place] ?? place;
  if (!isContainer) return short;
  return short === 'UDP socket' ? 'socket' : short === 'eth0' ? 'veth' : short;
}

function captionOf({ place, direction, node }: Hop): string {
  return `captured on ${place} of ${node}, ${direction === 'out' ? 'on its way out' : 'coming in'}`;
}

function linesOf({ packet, inner }: Hop): string[] {
  return [packet, inner].filter((one) => one !== undefined).map(describe);
}

function describe(packet: PacketSummary): string {
  const from = packet.sourcePort === undefined ? packet.source : `${packet.source}:${packet.sourcePort}`;
  const to =
    packet.destinationPort === undefined ? packet.destination : `${packet.destination}:${packet.destinationPort}`;
  return `${from} → ${to}  ttl ${packet.ttl}  len ${packet.lengthBytes}`;
}

/** Of a captured hop what was captured; of one in between what the next capture shows, but at the ends only the data. */
function headersAt(hops: readonly Hop[], index: number): readonly Header[] {
  const hop = hops[index]!;
  if (hop.packet !== undefined) return headersOf(hop);
  const before = hops.slice(0, index).findLast(({ packet }) => packet !== undefined);
  const after = hops.slice(index + 1).find(({ packet }) => packet !== undefined);
  if (index === 0 || index === hops.length - 1)
    return headersOf((after ?? before)!).filter(({ name }) => name === 'data');
  const isOutward = hop.place.startsWith('socket') || hop.place.startsWith('VXLAN');
  // A program has the packet as it came from the device, and a socket as it leaves.
  const shown = isOutward ? after : hop.space === 'user' ? withoutOuter(before, after) : after;
  return headersOf((shown ?? before)!).filter(({ name }) => name !== 'Ethernet');
}

/** Of two captures, the one without a tunnel's headers. */
function withoutOuter(a: Hop | undefined, b: Hop | undefined): Hop | undefined {
  return a?.inner === undefined ? a : b;
}

function headersOf({ packet, inner }: Hop): readonly Header[] {
  const ethernet =
    packet!.ethernet === undefined
      ? []
      : [{ name: 'Ethernet', bytes: ETHERNET, isOuter: inner !== undefined } as const];
  if (inner === undefined) return [...ethernet, ...layersOf(packet!, false)];
  const carried = layersOf(inner, false);
  const outer = layersOf(packet!, true).filter(({ name }) => name !== 'data');
  const between = packet!.lengthBytes - outer.reduce((sum, { bytes }) => sum + bytes, 0) - inner.lengthBytes;
  // VXLAN carries an Ethernet frame.
  const vxlan: Header[] =
    between <= 0
      ? []
      : [
          { name: 'VXLAN', bytes: between - ETHERNET, isOuter: true },
          { name: 'Ethernet', bytes: ETHERNET, isOuter: true },
        ];
  return [...ethernet, ...outer, ...vxlan, ...carried];
}

function layersOf({ protocol, lengthBytes }: PacketSummary, isOuter: boolean): Header[] {
  const udp = protocol === 'udp' ? UDP : 0;
  return [
    { name: 'IP', bytes: IP, isOuter },
    ...(udp === 0 ? [] : [{ name: 'UDP', bytes: udp, isOuter } as const]),
    { name: 'data', bytes: lengthBytes - IP - udp, isOuter },
  ];
}
