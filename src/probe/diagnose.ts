import { assertNever } from '../assert-never.ts';
import type { IcmpReason } from '../ip/icmp.ts';
import type { ProbeKind } from './probe-kind.ts';

/** Whether packets of a kind arrive and are answered; `unknown`: not enough was tried, or nobody has ever answered. */
export type Passing = 'yes' | 'no' | 'unknown';

/** What is known of the way to one peer, as its probes show it. */
export interface PathEvidence {
  readonly passes: Readonly<Record<ProbeKind, Passing>>;
  /** Whether probes of that peer have arrived here lately: its packets come through, whatever becomes of ours. */
  readonly isHeard: boolean;
  /** The latest refusal of a probe that has not been followed by an answer. */
  readonly refusal: Refusal | undefined;
  /** Of probes through the overlay, 0 … 1; `undefined`: too few. */
  readonly lossRatio: number | undefined;
  /** The longest packet that got through, once found. */
  readonly pathMtuBytes: number | undefined;
  /** What the overlay should take. */
  readonly mtuBytes: number;
}

/** `errno`: this host's kernel did not send it. `icmp`: somebody on the way says why it went no further. */
export type Refusal =
  | { readonly by: 'kernel'; readonly errno: 'no-route' | 'not-permitted' | 'too-long' | 'other' }
  | { readonly by: 'icmp'; readonly reason: IcmpReason; readonly from: string };

/** Stable words, for scripts and metrics. */
export const PATH_FAULTS = [
  'no-route',
  'local-firewall',
  'rejected',
  'peer-unreachable',
  'one-way',
  'tunnel-blocked',
  'mtu-lowered',
  'mtu-blackhole',
  'fragments-dropped',
  'checksum-offload',
  'lossy',
] as const;
export type PathFault = (typeof PATH_FAULTS)[number];

export interface Diagnosis {
  readonly fault: PathFault;
  /** What is the case and why that follows, one sentence or two. */
  readonly cause: string;
  readonly remedy: string;
}

/** From here on loss is no accident: a busy host loses a probe now and then. */
const LOSSY_RATIO = 0.1;

/**
 * The cause that which probes pass points to; `undefined` when nothing is wrong, or nothing is known. Pure. A kind that was
 * never answered says nothing by itself: hosts may refuse echo between them, and firewalls closed ports.
 */
export function diagnose(evidence: PathEvidence): Diagnosis | undefined {
  const { passes } = evidence;
  const fault = passes.small === 'no' ? faultOfSilence(evidence) : faultOfSome(evidence);
  return fault && { fault, ...describe(fault, evidence) };
}

/** Whether nothing passes, rather than only a part or packets of a kind. */
export function isSilence(fault: PathFault): boolean {
  switch (fault) {
    case 'mtu-lowered':
    case 'mtu-blackhole':
    case 'fragments-dropped':
    case 'checksum-offload':
    case 'lossy':
      return false;
    case 'no-route':
    case 'local-firewall':
    case 'rejected':
    case 'peer-unreachable':
    case 'one-way':
    case 'tunnel-blocked':
      return true;
    default:
      return assertNever(fault);
  }
}

/** Whether the probes say that this fault is over: that they do not show it may mean that they show nothing yet. Pure. */
export function isOver(fault: PathFault, { passes, lossRatio }: PathEvidence): boolean {
  if (passes.small !== 'yes') return false;
  switch (fault) {
    case 'mtu-lowered':
    case 'mtu-blackhole':
      return passes.full === 'yes';
    case 'fragments-dropped':
      return passes.fragments === 'yes';
    case 'checksum-offload':
      return passes.udp === 'yes';
    case 'lossy':
      return lossRatio !== undefined && lossRatio < LOSSY_RATIO;
    default:
      return true;
  }
}

function faultOfSilence({ passes, isHeard, refusal }: PathEvidence): PathFault {
  if (refusal?.by === 'kernel' && refusal.errno === 'no-route')
    return passes.underlay === 'no' ? 'peer-unreachable' : 'no-route';
  if (refusal?.by === 'kernel' && refusal.errno === 'not-permitted') return 'local-firewall';
  if (refusal?.by === 'icmp' && refusal.reason !== 'too-big')
    return refusal.reason === 'host' && passes.underlay === 'no' ? 'peer-unreachable' : 'rejected';
  if (isHeard) return 'one-way';
  return passes.underlay === 'no' ? 'peer-unreachable' : 'tunnel-blocked';
}

function faultOfSome({ passes, refusal, lossRatio }: PathEvidence): PathFault | undefined {
  if (passes.small !== 'yes') return undefined;
  // First: where packets are lost at random, three of another kind in a row may be among them.
  if (lossRatio !== undefined && lossRatio >= LOSSY_RATIO) return 'lossy';
  if (passes.full === 'no') {
    const isTold = refusal?.by === 'kernel' ? refusal.errno === 'too-long' : refusal?.reason === 'too-big';
    return isTold ? 'mtu-lowered' : 'mtu-blackhole';
  }
  if (passes.fragments === 'no' && passes.full === 'yes') return 'fragments-dropped';
  // What passes without a checksum and not with one has met a wrong checksum.
  return passes.udp === 'no' && passes['udp-plain'] === 'yes' ? 'checksum-offload' : undefined;
}

function describe(fault: PathFault, evidence: PathEvidence): Omit<Diagnosis, 'fault'> {
  const { passes, refusal, pathMtuBytes, mtuBytes, lossRatio } = evidence;
  const passesUpTo = pathMtuBytes === undefined ? '' : `; packets of up to ${pathMtuBytes} bytes pass`;
  switch (fault) {
    case 'no-route':
      return {
        cause: 'this host has no route to the peer’s subnet, or no way to the next hop of that route',
        remedy: 'Check that the agent runs, and what weft status and weft doctor report.',
      };
    case 'local-firewall':
      return {
        cause: 'a firewall of this host drops outgoing packets to the peer’s subnet',
        remedy: 'Check the OUTPUT chains of this host: nft list ruleset, iptables-save.',
      };
    case 'rejected':
      return {
        cause: `${refusal?.by === 'icmp' ? `${refusal.from} answers "${describeReason(refusal.reason)}"` : 'packets are refused'}: the packets get that far and are refused there`,
        remedy: 'Check the agent, the routes and the firewall of that host.',
      };
    case 'peer-unreachable':
      return {
        cause:
          'the peer’s host cannot be reached directly either: it is down, has another address now, or the network between the hosts is broken',
        remedy: 'Check that the host runs, which address it has, and the network between the hosts.',
      };
    case 'one-way':
      return {
        cause: 'the peer’s packets arrive here, but ours do not reach it: something drops packets in one direction',
        remedy:
          'Check the peer’s firewall for incoming packets, this host’s firewall for outgoing packets, and the network between them.',
      };
    case 'tunnel-blocked':
      return {
        cause:
          passes.underlay === 'yes'
            ? 'the peer’s host answers outside the overlay, and nothing comes back through it: its agent does not carry packets, it expects another port or network, or a firewall drops the packets of the tunnel'
            : 'nothing comes back through the overlay, and the peer’s host answers no direct echo either',
        remedy:
          'On the peer: weft status, weft doctor, and its firewall. Between the hosts, the port or protocol of the backend must be open in both directions.',
      };
    case 'mtu-lowered':
      return {
        cause: `a link on the way takes less than the overlay’s ${mtuBytes} bytes, and reports it${passesUpTo}`,
        remedy:
          'Set the overlay’s MTU in net-conf.json ("MTU"), or the MTU of the interface between the hosts, to a size that passes.',
      };
    case 'mtu-blackhole':
      return {
        cause: `packets of the overlay’s full ${mtuBytes} bytes vanish without an ICMP message${passesUpTo}: a link on the way has a lower MTU, and the ICMP messages about that are dropped`,
        remedy:
          'Allow ICMP "fragmentation needed" between the hosts, and set "MTU" in net-conf.json to a size that passes.',
      };
    case 'fragments-dropped':
      return {
        cause:
          'packets that fill the MTU pass, and longer ones that are sent in fragments do not: something on the way drops fragments',
        remedy:
          'Look for a firewall that drops fragments on both hosts (nft list ruleset, iptables-save), and for net.ipv4.ipfrag_high_thresh or net.ipv6.ip6frag_high_thresh of 0.',
      };
    case 'checksum-offload':
      return {
        cause:
          'packets whose checksum the network device computes are lost, others pass: a device on the way computes it wrongly',
        remedy:
          'Turn the offload off at the tunnel’s device of both hosts: ethtool -K DEVICE tx-checksum-ip-generic off (flannel.1 with vxlan, else the interface between the hosts).',
      };
    case 'lossy':
      return {
        cause: `${Math.round((lossRatio ?? 0) * 100)} % of the packets are lost on the way`,
        remedy: 'Check the drop counters of both hosts (weft peers, ip -s link) and the network between them.',
      };
    default:
      return assertNever(fault);
  }
}

function describeReason(reason: IcmpReason): string {
  switch (reason) {
    case 'too-big':
      return 'packet too big';
    case 'port':
      return 'port unreachable';
    case 'host':
      return 'host unreachable';
    case 'net':
      return 'network unreachable';
    case 'prohibited':
      return 'administratively prohibited';
    case 'hop-limit':
      return 'time exceeded';
    case 'other':
      return 'destination unreachable';
    default:
      return assertNever(reason);
  }
}
