/**
 * `small`, `full`: echo through the overlay, of the least size and of the overlay's MTU; `underlay`, `underlay-full`: the same
 * beside it, between the hosts; `udp`, `udp-plain`: a datagram through the overlay with and without a checksum, to a closed
 * port; `fragments`: echo through the overlay that is too long for one packet, both ways.
 */
export type ProbeKind = 'small' | 'full' | 'underlay' | 'underlay-full' | 'udp' | 'udp-plain' | 'fragments';

export const PROBE_KINDS: readonly ProbeKind[] = [
  'small',
  'underlay',
  'full',
  'underlay-full',
  'udp-plain',
  'udp',
  'fragments',
];

/** The first two of those that traceroute sends to: nothing listens there, and firewalls know them. */
export const CLOSED_PORTS: Readonly<Record<'udp' | 'udp-plain', number>> = { udp: 33_434, 'udp-plain': 33_435 };

/** How silence is told from a lost packet, soon after the first probe of a peer that has answered so far has no answer. */
export interface Confirmation {
  /** An answer counts as missing after that time … */
  readonly leastPatienceMs: number;
  /** … or after so many of the peer's usual round-trip times, if that is longer. */
  readonly roundTrips: number;
  /** Then so many more probes are sent, at that distance. */
  readonly probes: number;
  readonly everyMs: number;
}

/** How silence is noticed sooner where there are few peers. */
export interface Watch {
  /** Of so many, each is asked once more … */
  readonly mostPeers: number;
  /** … so long after what is sent together. */
  readonly afterMs: number;
}

/** When each kind is sent to one peer, in milliseconds (infinity: never), and when a probe counts as lost. */
export interface Cadence {
  /** What is due is sent together, once in so long: each turn wakes the process. 0: whenever there is a turn. */
  readonly togetherMs: number;
  /** While nothing is to be confirmed, turns are wanted at multiples of this by the clock: what else the process does is done then. */
  readonly tickMs: number;
  readonly everyMs: Readonly<Record<ProbeKind, number>>;
  /** After a loss: chance or fault, that is soon known. */
  readonly againMs: Readonly<Record<ProbeKind, number>>;
  /** Whether that holds for kinds that were never answered as well: hosts may refuse echo, and firewalls closed ports. */
  readonly insists: boolean;
  readonly timeoutMs: number;
  /** Of the search for what passes: many probes are lost on purpose, one after the other. */
  readonly searchTimeoutMs: number;
  /** Of `small` and `underlay`; `undefined`: their cadence is quick enough. */
  readonly confirmation: Confirmation | undefined;
  /** `undefined`: what is sent together is quick enough. */
  readonly watch: Watch | undefined;
  /** A new peer is left alone for so long: until it has heard of this host, it refuses what comes from it. */
  readonly startAfterMs: number;
}

/** Closed ports are tried seldom: each answer is an ICMP error that the peer's kernel limits and counts. Fragments are a question on demand. */
export const IN_BACKGROUND: Cadence = {
  // This and the patience below are a little less than some ticks, so that a turn that was a little late puts off no other.
  togetherMs: 950,
  tickMs: 250,
  everyMs: {
    ...{ small: 1_000, full: 5_000, fragments: Number.POSITIVE_INFINITY },
    ...{ underlay: 5_000, 'underlay-full': 15_000, udp: 15_000, 'udp-plain': 15_000 },
  },
  againMs: {
    ...{ small: 1_000, full: 2_000, fragments: Number.POSITIVE_INFINITY },
    ...{ underlay: 2_000, 'underlay-full': 2_000, udp: 3_000, 'udp-plain': 3_000 },
  },
  insists: false,
  // A little less than two turns: what is lost is then known at the second one, and tried again with it.
  timeoutMs: 1_950,
  searchTimeoutMs: 1_950,
  confirmation: { leastPatienceMs: 225, roundTrips: 4, probes: 3, everyMs: 100 },
  // With more, it would take the room of those that confirm.
  watch: { mostPeers: 2, afterMs: 450 },
  startAfterMs: 3_000,
};

/**
 * Of a command that somebody waits for. The kernel answers one host's packets to closed ports once a second (icmp_ratelimit), so
 * that a kind that was answered must not take the answers of the other.
 */
export const ON_DEMAND: Cadence = {
  togetherMs: 0,
  tickMs: 0,
  everyMs: {
    ...{ small: 120, full: 600, fragments: 600 },
    ...{ underlay: 600, 'underlay-full': 600, udp: 60_000, 'udp-plain': 60_000 },
  },
  againMs: {
    ...{ small: 120, full: 300, fragments: 300 },
    ...{ underlay: 300, 'underlay-full': 300, udp: 1_200, 'udp-plain': 1_200 },
  },
  insists: true,
  timeoutMs: 700,
  searchTimeoutMs: 250,
  confirmation: undefined,
  watch: undefined,
  startAfterMs: 0,
};
