/**
 * What became of one packet, from what was seen of it: frames on devices, drops of the kernel with their reasons, and what agents have
 * counted meanwhile. Pure.
 */
import type { DecodedPacket } from '../capture/decode.ts';
import { formatAddr, formatEndpoint, type IpFamily } from '../ip/address.ts';
import { ICMP, type IcmpReason, icmpReasonOf } from '../ip/icmp.ts';
import type { DroppingRule } from './rule-trace.ts';
import type { CountedRise, Proof } from './trace-copies.ts';
import type { TraceLeg, TraceMatch } from './trace-match.ts';

/** `source` and `target` are where the two programs are: containers, or the hosts themselves. */
export interface TracePlace {
  /** For people: `this host`, or the address of the far one. */
  readonly host: string;
  /** `host`, or the name of a container's network namespace. */
  readonly name: string;
  readonly isSource: boolean;
  readonly isTarget: boolean;
}

export interface TraceSighting {
  readonly place: TracePlace;
  readonly device: string;
  readonly direction: 'in' | 'out';
  readonly timeNs: bigint;
  readonly match: TraceMatch;
}

export interface TraceDrop {
  readonly place: TracePlace;
  /** Empty when the packet was on no device. */
  readonly device: string;
  readonly reason: string;
  /** The function of the kernel. */
  readonly function: string | undefined;
  readonly timeNs: bigint;
  readonly match: TraceMatch;
}

export interface TraceFacts {
  readonly protocol: 'icmp' | 'tcp' | 'udp';
  readonly source: TracePlace;
  readonly sightings: readonly TraceSighting[];
  readonly kernelDrops: readonly TraceDrop[];
  /** Sent after the packet, to know which counters are its own; 0 where that was not needed. */
  readonly copies: number;
  /** Of those copies. */
  readonly agentDrops: readonly CountedRise[];
  /** Name of the error with which the kernel refused to send. */
  readonly sendError: string | undefined;
  readonly farHost: string;
  /** Whether frames on the far host's devices could be seen. */
  readonly isFarSeen: boolean;
  /** Whether the far host's agent has received the copies; `unclear` beside many other packets, `undefined` when it was not asked, or does not know. */
  readonly hasFarAgentSeenMore: Proof['hasArrived'] | undefined;
}

export interface HeaderText {
  readonly source: string;
  readonly destination: string;
  readonly text: string;
}

export interface TraceHop {
  readonly host: string;
  readonly place: string;
  readonly device: string;
  readonly direction: 'in' | 'out';
  readonly leg: TraceLeg;
  /** Microseconds since the packet was first seen. */
  readonly atUs: number;
  readonly packet: HeaderText;
  /** What a tunnel's packet carries. */
  readonly inner?: HeaderText;
}

export type TraceOutcome = 'answered' | 'delivered' | 'refused' | 'lost';

export interface TraceVerdict {
  readonly outcome: TraceOutcome;
  readonly host: string;
  /** Place and device: `host eth0`. */
  readonly hop: string;
  /** `netfilter`, `no-route`, `too-big`, `no-listener`, `agent:REASON`, `kernel:REASON`, `unseen`, `silent`, `arrived`. */
  readonly reason: string;
  readonly text: string;
  /** Of `netfilter`, where it could be found. */
  readonly rule?: DroppingRule;
}

/** An answer follows all hops of the packet, whatever clocks say: one that is set meanwhile, or a time that is missing. */
const LEG_ORDER: Readonly<Record<TraceLeg, number>> = { request: 0, answer: 1, error: 1 };

/** The devices that the packet and its answer were seen on, in the order of time and each once; the answer comes last. */
export function hopsOf({ sightings }: TraceFacts): readonly TraceHop[] {
  const seen = new Set<string>();
  const sorted = sightings.toSorted((a, b) => LEG_ORDER[a.match.leg] - LEG_ORDER[b.match.leg] || byTime(a, b));
  const first = sorted[0]?.timeNs ?? 0n;
  return sorted.flatMap(({ place, device, direction, timeNs, match: { leg, packet, inner } }): TraceHop[] => {
    // A repeated packet of TCP is not a hop more.
    const key = [place.host, place.name, device, direction, leg, inner !== undefined].join(' ');
    if (seen.has(key)) return [];
    seen.add(key);
    return [
      {
        ...{ host: place.host, place: place.name, device, direction, leg },
        ...{ atUs: Number(timeNs - first) / 1_000, packet: headersOf(packet) },
        ...(inner && { inner: headersOf(inner) }),
      },
    ];
  });
}

/** A packet's ends, and a line like `10.244.1.2:4000 > 10.244.2.2:53 udp ttl 64 len 46`. */
export function headersOf({ ip, transport }: DecodedPacket): HeaderText {
  const [source, destination] = [formatAddr(ip.source), formatAddr(ip.destination)];
  const [from, to] =
    transport.kind === 'udp' || transport.kind === 'tcp'
      ? [
          formatEndpoint({ addr: ip.source, port: transport.sourcePort }),
          formatEndpoint({ addr: ip.destination, port: transport.destinationPort }),
        ]
      : [source, destination];
  const what = transport.kind === 'other' ? `protocol ${ip.protocol}` : transport.kind;
  const more = transport.kind === 'tcp' ? ` ${transport.flags}` : '';
  const kind = transport.kind === 'icmp' ? ` ${icmpName(ip.family, transport.type, transport.code)}` : '';
  const df = ip.dontFragment && ip.family === 4 ? ' DF' : '';
  return {
    source,
    destination,
    text: `${from} > ${to} ${what}${kind}${more} ttl ${ip.ttl} len ${ip.totalLength}${df}`,
  };
}

const ICMP_NAMES: Readonly<Record<Exclude<IcmpReason, 'other'>, string>> = {
  net: 'net-unreachable',
  host: 'host-unreachable',
  port: 'port-unreachable',
  'too-big': 'too-big',
  prohibited: 'prohibited',
  'hop-limit': 'ttl-exceeded',
};

function icmpName(family: IpFamily, type: number, code: number): string {
  const { request, reply } = ICMP[family];
  if (type === request) return 'echo';
  if (type === reply) return 'reply';
  const reason = icmpReasonOf(family, type, code);
  return reason === undefined || reason === 'other' ? `${type}/${code}` : ICMP_NAMES[reason];
}

/** Drops that befall copies, or come after a packet was given to its program. */
const OF_COPIES: readonly string[] = ['OTHERHOST', 'SOCKET_FILTER', 'PACKET_SOCK_ERROR', 'UNHANDLED_PROTO'];
const NETFILTER = 'NETFILTER_DROP';
/** What the kernel's reasons mean here; any other is told by its own name. */
const KERNEL_REASONS: Readonly<Record<string, readonly [reason: string, text: string]>> = {
  [NETFILTER]: ['netfilter', 'a rule of netfilter (nftables or iptables) drops it'],
  IP_OUTNOROUTES: ['no-route', 'the kernel has no route for it'],
  IP_INNOROUTES: ['no-route', 'the kernel has no route for it'],
  PKT_TOO_BIG: ['too-big', 'it is longer than the next device takes, and must not be fragmented'],
  NO_SOCKET: ['no-listener', 'no program listens on that port'],
  SOCKET_RCVBUFF: ['socket-buffer', 'the buffer of the receiving socket is full'],
  SOCKET_BACKLOG: ['socket-buffer', 'the buffer of the receiving socket is full'],
  FULL_RING: ['queue-full', 'the queue of the device is full'],
  QDISC_DROP: ['queue-full', 'the queueing discipline of the device drops it'],
  IP_RPFILTER: ['rp-filter', 'the reverse path filter (rp_filter) drops it: the route back leads elsewhere'],
  NEIGH_FAILED: ['no-neighbour', 'no host answers for the next hop’s address (ARP)'],
  TC_INGRESS: ['tc', 'a program or filter of tc drops it on the way in'],
  TC_EGRESS: ['tc', 'a program or filter of tc drops it on the way out'],
};
/** Functions of the kernel that say no reason (its own is NOT_SPECIFIED). */
const KERNEL_FUNCTIONS: Readonly<Record<string, string>> = {
  ip_error: 'IP_INNOROUTES',
  dst_discard: 'IP_INNOROUTES',
  dst_discard_out: 'IP_OUTNOROUTES',
  ip_forward: 'PKT_TOO_BIG',
  ip_fragment: 'PKT_TOO_BIG',
};
const SEND_ERRORS: Readonly<Record<string, readonly [reason: string, text: string]>> = {
  ENETUNREACH: ['no-route', 'the kernel has no route to it'],
  EHOSTUNREACH: ['no-route', 'a route says that it is unreachable'],
  EINVAL: ['no-route', 'a blackhole route swallows it'],
  EACCES: ['no-route', 'a route prohibits it'],
  EPERM: ['netfilter', 'a rule of netfilter (nftables or iptables) refuses it on the way out'],
  EMSGSIZE: ['too-big', 'it is longer than the device takes, and must not be fragmented'],
};
const ICMP_REASONS: Readonly<Record<Exclude<IcmpReason, 'other'>, readonly [reason: string, text: string]>> = {
  net: ['no-route', 'there is no route (ICMP net unreachable)'],
  host: ['no-route', 'the next hop or the container is not there (ICMP host unreachable)'],
  port: ['no-listener', 'no program listens on that port, or a firewall rejects it (ICMP port unreachable)'],
  'too-big': ['too-big', 'it is too long for the next link, and must not be fragmented (ICMP packet too big)'],
  prohibited: ['netfilter', 'a firewall rejects it (ICMP prohibited)'],
  'hop-limit': ['ttl', 'its TTL ran out: a routing loop'],
};

/** The one thing to say. */
export function judgeTrace(facts: TraceFacts): TraceVerdict {
  const { source, sendError, sightings } = facts;
  if (sendError !== undefined) {
    const [reason, text] = SEND_ERRORS[sendError] ?? [`send:${sendError}`, `the kernel refuses it: ${sendError}`];
    return { outcome: 'lost', host: source.host, hop: `${source.name} socket`, reason, text };
  }
  const answer = sightings.find(isHome);
  const refusedHome = dropOf(facts, 'answer', (drop) => drop.place.isSource && drop.reason !== 'NO_SOCKET');
  if (answer !== undefined && refusedHome === undefined) {
    const { transport } = answer.match.packet;
    if (transport.kind === 'tcp' && transport.flags.includes('RST')) {
      const at = lastOf(facts, 'request');
      const place = { host: at?.place.host ?? facts.farHost, hop: at === undefined ? 'tcp' : hopOf(at) };
      return {
        outcome: 'refused',
        ...place,
        reason: 'no-listener',
        text: 'no program listens on that port (TCP reset)',
      };
    }
    const text = 'it arrived, and the answer came back';
    return { outcome: 'answered', host: answer.place.host, hop: hopOf(answer), reason: 'arrived', text };
  }
  return refusedHome ?? lostVerdict(facts);
}

function lostVerdict(facts: TraceFacts): TraceVerdict {
  const drop = dropOf(facts, 'request', () => true) ?? dropOf(facts, 'answer', ({ reason }) => reason !== 'NO_SOCKET');
  if (drop !== undefined) return drop;
  const error = facts.sightings.filter(({ match }) => match.leg === 'error').toSorted(byTime)[0];
  if (error !== undefined) return errorVerdict(error, facts);
  const agent = agentVerdict(facts);
  if (agent !== undefined) return agent;
  const back = lastOf(facts, 'answer');
  if (back !== undefined) {
    const text = `it arrived, and the answer was last seen here, going ${back.direction}; the reason for the drop after that is unknown`;
    return { outcome: 'lost', host: back.place.host, hop: hopOf(back), reason: 'unseen', text };
  }
  const last = lastOf(facts, 'request');
  if (last === undefined)
    return {
      ...{ outcome: 'lost', host: facts.source.host, hop: `${facts.source.name} socket`, reason: 'unseen' },
      text: 'the kernel accepted it, but it appeared on no device: it may have gone to an address in the same namespace',
    };
  const at = { host: last.place.host, hop: hopOf(last) };
  if (last.place.isTarget && last.match.inner === undefined && last.direction === 'in') {
    if (facts.protocol === 'udp')
      return { outcome: 'delivered', ...at, reason: 'arrived', text: 'it arrived; the program there sent no answer' };
    return { outcome: 'lost', ...at, reason: 'silent', text: 'it arrived, and nothing answered' };
  }
  return { outcome: 'lost', ...at, reason: 'unseen', text: unseen(last, facts) };
}

function unseen(last: TraceSighting, { isFarSeen, farHost, hasFarAgentSeenMore }: TraceFacts): string {
  if (last.place.host === farHost) return 'it was last seen here, and the reason for the drop after that is unknown';
  if (last.direction === 'in') return 'it was last seen entering here; this host did not forward it';
  if (isFarSeen) return `it left this device and did not reach ${farHost}: the network between the hosts lost it`;
  if (hasFarAgentSeenMore === true)
    return `it left this device, and the agent of ${farHost} has received its copies: look for it on that host`;
  if (hasFarAgentSeenMore === 'unclear')
    return `it left this device; too many other packets reach ${farHost} to tell whether it arrived: look for it on that host`;
  if (hasFarAgentSeenMore === false)
    return `it left this device, and the agent of ${farHost} has received none of its copies: the network or a firewall of ${farHost} lost it`;
  return `it left this device; only ${farHost} knows what happened then, and its agent could not be asked (--host, --cluster)`;
}

interface Timed {
  readonly timeNs: bigint;
  readonly direction?: 'in' | 'out';
  readonly match: TraceMatch;
}

/**
 * A packet that the fast path redirects keeps the time at which the underlay's device received it, so that it has one time on two
 * devices: in the tunnel's datagram comes before, on the way in, and after, on the way out.
 */
function byTime(a: Timed, b: Timed): number {
  if (a.timeNs !== b.timeNs) return a.timeNs < b.timeNs ? -1 : 1;
  if (a.direction !== b.direction) return a.direction === 'in' ? -1 : 1;
  const wrapped = Number(b.match.inner !== undefined) - Number(a.match.inner !== undefined);
  return a.direction === 'in' ? wrapped : -wrapped;
}

/** The answer as the program that sent the packet gets it: not in a tunnel, on the way in, where that program is. */
export function isHome({ place, direction, match: { leg, inner } }: TraceSighting): boolean {
  return place.isSource && direction === 'in' && leg === 'answer' && inner === undefined;
}

function lastOf({ sightings }: TraceFacts, leg: TraceLeg): TraceSighting | undefined {
  return sightings
    .filter(({ match }) => match.leg === leg)
    .toSorted(byTime)
    .at(-1);
}

function hopOf({ place, device }: { readonly place: TracePlace; readonly device: string }): string {
  return device === '' ? place.name : `${place.name} ${device}`;
}

/** What netfilter has dropped there, as the verdict says; `undefined` when the verdict comes from somewhere else. */
export function netfilterDropOf({ kernelDrops }: TraceFacts, { host, hop }: TraceVerdict): TraceDrop | undefined {
  return kernelDrops
    .filter((drop) => drop.reason === NETFILTER && drop.place.host === host && hopOf(drop) === hop)
    .toSorted(byTime)
    .at(-1);
}

function dropOf(
  { kernelDrops }: TraceFacts,
  leg: TraceLeg,
  isMeant: (drop: TraceDrop) => boolean,
): TraceVerdict | undefined {
  const drop = kernelDrops
    .filter((one) => one.match.leg === leg && !OF_COPIES.includes(one.reason) && isMeant(one))
    .toSorted(byTime)
    .at(-1);
  if (drop === undefined) return undefined;
  const name = drop.reason === 'NOT_SPECIFIED' ? (KERNEL_FUNCTIONS[drop.function ?? ''] ?? drop.reason) : drop.reason;
  const [known, what] = KERNEL_REASONS[name] ?? [`kernel:${name}`, 'the kernel drops it'];
  // Of a tunnel's datagram, no socket is the agent that does not listen.
  const [reason, text] =
    known === 'no-listener' && drop.match.inner !== undefined
      ? ['no-agent', 'nothing receives the tunnel’s packets there: the agent is not running, or its device is missing']
      : [known, what];
  const where = drop.function === undefined ? drop.reason : `${drop.reason} in ${drop.function}`;
  const isRefused = reason === 'no-listener';
  const whose = leg === 'answer' ? 'of the answer: ' : '';
  const outcome = isRefused ? 'refused' : 'lost';
  return { outcome, host: drop.place.host, hop: hopOf(drop), reason, text: `${whose}${text} (${where})` };
}

function errorVerdict(error: TraceSighting, { protocol }: TraceFacts): TraceVerdict {
  const { transport, ip } = (error.match.inner ?? error.match.packet) as DecodedPacket;
  const [type, code] = transport.kind === 'icmp' ? [transport.type, transport.code] : [0, 0];
  const known = icmpReasonOf(ip.family, type, code) ?? 'other';
  const name = `${type}/${code}`;
  const [reason, text] = known === 'other' ? [`icmp:${name}`, `ICMP ${name} came back`] : ICMP_REASONS[known];
  const isRefused = reason === 'no-listener' && protocol === 'udp';
  const from = `${text}, says ${formatAddr(ip.source)}`;
  return { outcome: isRefused ? 'refused' : 'lost', host: error.place.host, hop: hopOf(error), reason, text: from };
}

/** Whether it may be on its way to the far host as something else. */
function isHidden({ place, direction, match }: TraceSighting, { farHost }: TraceFacts): boolean {
  return match.leg === 'request' && match.inner === undefined && direction === 'out' && place.host !== farHost;
}

/** The agent in whose hands the packet was: it is inside the tunnel's device, and not in a datagram after that. */
function agentVerdict(facts: TraceFacts): TraceVerdict | undefined {
  const last = lastOf(facts, 'answer') ?? lastOf(facts, 'request');
  const fitting = facts.agentDrops.filter(({ host, side }) => {
    if (last === undefined) return false;
    const isFar = host === facts.farHost;
    // What the kernel of this host drops is known from itself, and everything of a far host only from its agent.
    if (isFar && !facts.isFarSeen) return true;
    // An encrypted tunnel's packets are not known on their way between the hosts, nor when they are dropped there.
    if (side === 'kernel') return isFar && isHidden(last, facts);
    const isRequest = last.match.leg === 'request';
    if (side === 'rx') return last.match.inner !== undefined && isRequest === isFar;
    return last.match.inner === undefined && isRequest !== isFar;
  });
  const [most] = fitting.toSorted((a, b) => b.packets - a.packets);
  if (most === undefined) return undefined;
  const { host, side, reason, packets } = most;
  const [who, hop] = side === 'kernel' ? ['the kernel of that host', 'host'] : ['the agent', 'agent'];
  const others = fitting.length > 1 ? '; copies were dropped for other reasons as well' : '';
  const whose = last?.match.leg === 'answer' ? 'of the answer: ' : '';
  return {
    ...{ outcome: 'lost', host, hop, reason: `${side === 'kernel' ? 'host' : 'agent'}:${reason}` },
    text: `${whose}${who} drops it: ${reason} (${side}, ${packets} counted for ${facts.copies} copies${others})`,
  };
}
