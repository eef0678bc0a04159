/**
 * Keys and values of the fast path's maps in the kernel, shared by the programs and by who fills them. Little endian. Maps outlive
 * the agent: another meaning of what is below is another number, and the next agent then begins with empty maps.
 */
export const LAYOUT = 5;

/** Longest-prefix tables of the peers' subnets, IPv4's and IPv6's: the values are alike. */
export const SUBNET_KEY_BYTES = 8; // u32 prefix length, be32 address
export const SUBNET_KEY_BYTES_6 = 20; // u32 prefix length, 16 bytes of an address
export const SUBNET_ENDPOINT = 0; // public address, see UnderlayLayout

/** What depends on the network between the hosts, where a host is known by its public address: that of IPv4, or where there is none, of IPv6. */
export interface UnderlayLayout {
  /** Of a public address, in network order: all of a key. */
  readonly addressBytes: 4 | 16;
  /** Of a subnet's value, behind the address. */
  readonly subnetPort: number; // be16
  readonly subnetMtu: number; // u16, longest inner packet
  readonly subnetSlot: number; // u32
  readonly subnetValueBytes: number;
  /** Of these maps, among those with other layouts. */
  readonly name: string;
}

/** @param version of IP between the hosts. */
export function underlayLayout(version: 4 | 6): UnderlayLayout {
  const addressBytes = version === 4 ? 4 : 16;
  return {
    addressBytes,
    subnetPort: addressBytes,
    subnetMtu: addressBytes + 2,
    subnetSlot: addressBytes + 4,
    subnetValueBytes: addressBytes + 8,
    name: version === 4 ? `${LAYOUT}` : `${LAYOUT}-ipv6`,
  };
}

/** This host's own subnet, the one entry, of key 0: what is delivered here. */
export const OWN_KEY_BYTES = 4;
export const OWN_VALUE_BYTES = 8;
/** The address, and behind it the mask, 4 bytes each; of IPv6 16. */
export const OWN_SUBNET = 0;
export const OWN_VALUE_BYTES_6 = 32;

/** By public address: what the programs know of a peer's host. Times are CLOCK_MONOTONIC nanoseconds; all start at 0. */
export const ENDPOINT_VALUE_BYTES = 176;
/** When a super-packet of its arrived here in one piece. */
export const ARRIVED_AT = 0;
/** Ours arrive there in one piece, it said. */
export const WHOLE_UNTIL = 8;
/** When a super-packet may be sent next to see how it arrives. */
export const NEXT_TRIAL = 16;
/** How long to wait after that one, in seconds; 0 as long as none was sent in vain. */
export const TRIAL_PAUSE = 24;
/** When a super-packet of its was cut on the way, and a segment of it came to the program before GRO. */
export const CUT_ARRIVED_AT = 32;
/** When the agent is to be asked next to renew what it grants. */
export const NEXT_ASK = 40;
/** When the first of the super-packets was sent about whose arrival nothing has been heard; 0 when there is none. */
export const UNANSWERED_SINCE = 48;
/** Nothing is learned from tags until then: somebody guesses them. */
export const DISTRUST_UNTIL = 56;
/** The way back to it leads through the device that its datagrams come from. */
export const WAY_BACK_UNTIL = 64;
/** When TCP's first data were sent since its fast path was heard; 0 when there are none. */
export const UNHEARD_SINCE = 72;
/** A question of its is not answered by the program before. */
export const NEXT_ANSWER = 80;
/** When a datagram that a socket may have sent is left to the forwarder's socket next by the program before GRO. */
export const NEXT_TO_SOCKET = 88;
/** Of IPv6 packets, what is above of IPv4's. */
export const ARRIVED_AT_6 = 96;
export const WHOLE_UNTIL_6 = 104;
export const NEXT_TRIAL_6 = 112;
export const TRIAL_PAUSE_6 = 120;
export const UNANSWERED_SINCE_6 = 128;
export const UNHEARD_SINCE_6 = 136;
/** Of both: where super-packets are cut, data may still be on the way through the forwarder; others of their flow would overtake them. */
export const LONG_WAY_UNTIL = 144;
/** Ours that are cut arrive there, it said: they may go out. */
export const CUT_UNTIL = 152;
/** The two of what is cut, of IPv6 packets. */
export const CUT_ARRIVED_AT_6 = 160;
export const CUT_UNTIL_6 = 168;

/**
 * The agent of this host, the one entry, of key 0. Knowledge ages by a clock that stands still from `AGENT_UNTIL` on, which the
 * agent moves ahead of it several times a second: what was true when it ended holds until there is one again.
 */
export const AGENT_KEY_BYTES = 4;
export const AGENT_VALUE_BYTES = 16;
export const AGENT_UNTIL = 0;
/** The bits of it, a millisecond in all, that number the agent that wrote it: each counts on from the one that it has found. */
export const AGENT_TURNS = 0xf_ffffn;
/** A number for the place that the programs were made for: what is known counts there alone. */
export const AGENT_PLACE = 8;

/** By public address: what the agent grants, after what its socket has sent and received. Written by the agent alone. */
export const GRANT_VALUE_BYTES = 56;
/** Packets may be sent to it by the fast path. */
export const SEND_UNTIL = 0;
/** Packets of its may be taken by the fast path. */
export const ACCEPT_UNTIL = 8;
/** Our super-packets arrive there in one piece, it answered. */
export const GRANT_WHOLE_UNTIL = 16;
/** be16 each: the tags of outer headers that it wants to see, and those that we want to see; see `tagAt` of outer.ts. */
export const SEND_TAG = 24;
export const SEND_TAG_WHOLE = 26;
export const EXPECT_TAG = 28;
export const EXPECT_TAG_WHOLE = 30;
/** IPv6 packets may be sent to it by the fast path, which its program takes, or any host can receive; and they arrive in one piece. */
export const SEND_UNTIL_6 = 32;
export const GRANT_WHOLE_UNTIL_6 = 40;
/** It takes what is cut on the way before its kernel joins packets, of either family, and tells of it. */
export const TAKES_CUT_UNTIL = 48;

/**
 * What is added to `SEND_TAG`, and may be to what is seen of `EXPECT_TAG`, between hosts of which one takes what is cut: the packet is a
 * super-packet, or a segment of one; and one of the receiver's has arrived cut.
 */
export const TAG_SUPER = 512;
export const TAG_CUT_ARRIVED = 256;

/** By slot: u64 each. */
export const COUNTER_KEY_BYTES = 4; // u32 slot
export const COUNTER_VALUE_BYTES = 32;
export const TX_PACKETS = 0;
export const TX_BYTES = 8;
export const RX_PACKETS = 16;
export const RX_BYTES = 24;

/** What the program before GRO puts in front of a packet that it has taken, for the one behind GRO: "weft". */
export const XDP_MARK = 0x77656674;
export const XDP_MARK_BYTES = 4;

/** What the maps are, for who makes them. `awaiting` names hosts that the agent is to exchange signs with; key and value are one. */
const mapShapes = ({ addressBytes, subnetValueBytes }: UnderlayLayout) =>
  ({
    subnets: { kind: 'lpm-trie', keyBytes: SUBNET_KEY_BYTES, valueBytes: subnetValueBytes },
    subnets6: { kind: 'lpm-trie', keyBytes: SUBNET_KEY_BYTES_6, valueBytes: subnetValueBytes },
    own: { kind: 'hash', keyBytes: OWN_KEY_BYTES, valueBytes: OWN_VALUE_BYTES },
    own6: { kind: 'hash', keyBytes: OWN_KEY_BYTES, valueBytes: OWN_VALUE_BYTES_6 },
    endpoints: { kind: 'hash', keyBytes: addressBytes, valueBytes: ENDPOINT_VALUE_BYTES },
    grants: { kind: 'hash', keyBytes: addressBytes, valueBytes: GRANT_VALUE_BYTES },
    counters: { kind: 'hash', keyBytes: COUNTER_KEY_BYTES, valueBytes: COUNTER_VALUE_BYTES },
    awaiting: { kind: 'hash', keyBytes: addressBytes, valueBytes: addressBytes },
    agent: { kind: 'array', keyBytes: AGENT_KEY_BYTES, valueBytes: AGENT_VALUE_BYTES },
  }) as const;
type MapShapes = ReturnType<typeof mapShapes>;
export type MapName = keyof MapShapes;
export type MapShape = MapShapes[MapName];

/** One of each, as `open` makes it. */
export function mapsBy<T>(
  layout: UnderlayLayout,
  open: (name: MapName, shape: MapShape) => T,
): Readonly<Record<MapName, T>> {
  const shapes = mapShapes(layout);
  const names = Object.keys(shapes) as MapName[];
  return Object.fromEntries(names.map((name) => [name, open(name, shapes[name])])) as Record<MapName, T>;
}
