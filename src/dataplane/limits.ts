/** What weft chose; what a specification fixes is in wire.ts. */

/** Longest packet a TUN read can return (virtio header included); reads always offer this much room. */
export const MAX_TUN_READ = 65_550;
/** Packets taken from the TUN before their datagrams are sent. */
export const TUN_BATCH_PACKETS = 64;
/** Bytes after which a batch is sent although more could be read: two super-packets stay in the second-level cache. */
export const TUN_BATCH_BYTES = 131_072;
/** Datagrams in one UDP_SEGMENT message; UDP_MAX_SEGMENTS was 64 until Linux 6.9. */
export const MAX_SEGMENTS = 64;
/** Messages in one sendmmsg. */
export const SEND_MESSAGES = 64;
/** Vector entries in one sendmmsg; a message has at most 2 × MAX_SEGMENTS (the kernel allows 1,024). */
export const SEND_IOVECS = 2_048;
/** Rewritten headers waiting to be sent. 60 bytes IP + 60 bytes TCP, rounded up. */
export const SEND_HEADERS = 1_024;
export const HEADER_STRIDE = 128;
/** Messages in one recvmmsg, each up to 64 KiB of equal datagrams (UDP_GRO). */
export const RECEIVE_MESSAGES = 24;
export const RECEIVE_BUFFER = 65_536;
/** Flows that are put together at the same time on the way in. */
export const COALESCE_FLOWS = 8;
/** Packets put together at most; 64 KiB of full TCP segments are 46, small UDP packets can be more. */
export const COALESCE_SEGMENTS = 128;
/** Quoted offender + headers, at most: RFC 1812 §4.3.2.3. */
export const ICMP_MAX_LENGTH = 576;
/** Token bucket for ICMP errors a worker may send in all, as the kernel's icmp_msgs_per_sec and icmp_msgs_burst. */
export const ICMP_PER_SECOND = 1_000;
export const ICMP_BURST = 50;
/** … to one source, of each kind (see IcmpLimits); the kernel's own limit for a destination is 1 a second. */
export const ICMP_SOURCE_PER_SECOND = 100;
export const ICMP_SOURCE_BURST = 10;
/** … for "fragmentation needed" when the others have used up what all share. */
export const ICMP_RESERVE_PER_SECOND = 250;
export const ICMP_RESERVE_BURST = 25;
