/** Keys and values of the fast path's maps in the kernel, shared by the programs and by who fills them. Little endian. */

/** Longest-prefix table of the peers' subnets. */
export const SUBNET_KEY_BYTES = 8; // u32 prefix length, be32 address
export const SUBNET_VALUE_BYTES = 12;
export const SUBNET_ENDPOINT = 0; // be32 public address
export const SUBNET_PORT = 4; // be16
export const SUBNET_SLOT = 8; // u32

/** By public address: what is known about a peer's fast path. Times are CLOCK_MONOTONIC nanoseconds; all start at 0. */
export const ENDPOINT_KEY_BYTES = 4; // be32
export const ENDPOINT_VALUE_BYTES = 56;
/** It has a fast path, and can be sent what only that understands. */
export const CAPABLE_UNTIL = 0;
/** Its super-packets arrive here in one piece. */
export const ARRIVES_UNTIL = 8;
/** Ours arrive there in one piece, it said. */
export const WHOLE_UNTIL = 16;
/** When a super-packet may be sent next to see how it arrives. */
export const NEXT_TRIAL = 24;
/** How long to wait after that one, in seconds; 0 as long as none was sent in vain. */
export const TRIAL_PAUSE = 32;
/** When a packet is to go through the forwarder next, for the sake of the neighbour entry. */
export const NEXT_LONG_WAY = 40;
/** When it is to hear from us next, whatever it be: what it knows of us must not run out while it sends. */
export const NEXT_SIGN = 48;

/** Public addresses of hosts that are due to hear from us; key and value are one. */
export const AWAITING_BYTES = 4; // be32
/** Of a sign: as long as the shortest inner packet, and none by its first byte. */
export const SIGN_BYTES = 20;

/** By slot: u64 each. */
export const COUNTER_KEY_BYTES = 4; // u32 slot
export const COUNTER_VALUE_BYTES = 32;
export const TX_PACKETS = 0;
export const TX_BYTES = 8;
export const RX_PACKETS = 16;
export const RX_BYTES = 24;
