// AssemblyScript, compiled by scripts/build-wasm.ts into packets-module.ts. Runs on the arena's memory: what it is given was
// checked by the caller, and an address outside the arena traps.

const PROTO_TCP: u32 = 6;
const TCP_FIN: u32 = 0x01;
const TCP_PSH: u32 = 0x08;
const TCP_ACK: u32 = 0x10;
const TCP_CWR: u32 = 0x80;
const IOVEC_SIZE: usize = 16;

/** Where the arena lies in this process, for the pointers that the kernel gets. */
@external('env', 'base')
declare const base: u64;

/**
 * Partial ones'-complement sum (RFC 1071) of `length` bytes at `address`, taken as little-endian 16-bit words; an odd last byte
 * counts as a word with a zero high half. Folded to 16 bits, not complemented. Little-endian sums of big-endian data are
 * the byte-swapped sum (RFC 1071 §2B), so nothing is swapped here. A lane gains at most 2 × 65,535 per 32 bytes: it cannot
 * overflow below 1 MiB, and a packet is at most 64 KiB.
 */
export function sum16(address: usize, length: usize): u32 {
  let even = i32x4.splat(0);
  let odd = i32x4.splat(0);
  const end = address + (length & ~31);
  while (address < end) {
    even = i32x4.add(even, i32x4.extadd_pairwise_i16x8_u(v128.load(address)));
    odd = i32x4.add(odd, i32x4.extadd_pairwise_i16x8_u(v128.load(address, 16)));
    address += 32;
  }
  even = i32x4.add(even, odd);
  let sum: u64 =
    <u64>(<u32>i32x4.extract_lane(even, 0)) +
    <u64>(<u32>i32x4.extract_lane(even, 1)) +
    <u64>(<u32>i32x4.extract_lane(even, 2)) +
    <u64>(<u32>i32x4.extract_lane(even, 3));
  let rest = length & 31;
  while (rest >= 2) {
    sum += load<u16>(address);
    address += 2;
    rest -= 2;
  }
  if (rest) sum += load<u8>(address);
  return fold(sum);
}

function fold(wide: u64): u32 {
  let sum = (wide & 0xffffffff) + (wide >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return <u32>((sum & 0xffff) + (sum >> 16));
}

/** A 16-bit number as the word of memory that holds it in network byte order, and the other way round. */
function swap16(value: u32): u32 {
  return bswap<u16>(<u16>value);
}

/** What takes a word out of a sum again. */
function minus(word: u32): u64 {
  return 0xffff - word;
}

/**
 * Whether the IPv4 packet of `length` bytes at `ip`, its header 20 bytes long, has a right header checksum and, with the
 * pseudo header (RFC 9293 §3.1, RFC 768), a right TCP or UDP checksum.
 */
export function valid4(ip: usize, length: usize): u32 {
  const addresses: u64 = <u64>load<u32>(ip, 12) + <u64>load<u32>(ip, 16);
  const header: u64 = <u64>load<u32>(ip) + <u64>load<u32>(ip, 4) + <u64>load<u32>(ip, 8) + addresses;
  const transport = length - 20;
  const pseudo: u64 = addresses + (<u64>load<u8>(ip, 9) << 8) + <u64>swap16(transport);
  return fold(header) == 0xffff && fold(pseudo + sum16(ip + 20, transport)) == 0xffff ? 1 : 0;
}

/**
 * Whether the IPv6 packet of `length` bytes at `ip`, its transport header right behind the 40 bytes of the IP header, has a right TCP
 * or UDP checksum (pseudo header: RFC 8200 §8.1).
 */
export function valid6(ip: usize, length: usize): u32 {
  const transport = length - 40;
  const pseudo: u64 = sum16(ip + 8, 32) + (<u64>load<u8>(ip, 6) << 8) + <u64>swap16(transport);
  return fold(pseudo + sum16(ip + 40, transport)) == 0xffff ? 1 : 0;
}

/** What differs in the TCP header of a segment: sequence number, flags, and the checksum, of which `sum` has all but these. */
@inline
function putTcp(segment: usize, sum: u64, sequence: u32, flags: u32, isFirst: bool, isLast: bool): void {
  const at = bswap<u32>(sequence);
  const own = flags & ~(isLast ? 0 : TCP_FIN | TCP_PSH) & ~(isFirst ? 0 : TCP_CWR);
  store<u32>(segment, at, 4);
  store<u8>(segment, own, 13);
  store<u16>(segment, ~fold(sum + at + (own << 8)), 16);
}

/** The same in the UDP header: its length, which `sum` has once of the two times that it counts, and the checksum. */
@inline
function putUdp(segment: usize, sum: u64, length: u32): void {
  const checksum = ~fold(sum + length) & 0xffff;
  store<u16>(segment, length, 4);
  store<u16>(segment, checksum == 0 ? 0xffff : checksum, 6); // RFC 768: 0 means "none"
}

/** Vector entries of the headers at `header` and the payload at `from`. */
@inline
function putPair(iovecs: usize, header: usize, headers: usize, from: usize, payload: usize): void {
  store<u64>(iovecs, base + header);
  store<u64>(iovecs, headers, 8);
  store<u64>(iovecs, base + from, 16);
  store<u64>(iovecs, payload, 24);
}

/**
 * Cuts segments out of the TCP or UDP super-packet at `ip`: `count` of them from number `index` on, each with `size` bytes of
 * payload, the very last with what is left. `headers` bytes, IP options and transport header included, are written for
 * each at `header` and every `stride` bytes behind it, in pieces of 16; a pair of vector entries, header and payload, at
 * `iovecs`. Payloads are only summed. The super-packet stays as it is.
 *
 * Every segment gets its own length, IP id, TCP sequence number and checksums; FIN and PSH belong to the last segment, CWR
 * to the first (net/ipv4/tcp_offload.c, udp_offload.c). Sums of what the segments share are taken once.
 */
export function segment4(
  ip: usize,
  headerLength: usize,
  headers: usize,
  size: usize,
  index: u32,
  count: u32,
  header: usize,
  stride: usize,
  iovecs: usize,
): void {
  const total: usize = swap16(load<u16>(ip, 2));
  const identification = swap16(load<u16>(ip, 4));
  const isTcp = load<u8>(ip, 9) == PROTO_TCP;
  const transport = ip + headerLength;
  const transportLength = headers - headerLength;
  const sequence = bswap<u32>(load<u32>(transport, 4));
  const flags: u32 = isTcp ? load<u8>(transport, 13) : 0;
  const ipSum: u64 =
    sum16(ip, headerLength) + minus(load<u16>(ip, 2)) + minus(load<u16>(ip, 4)) + minus(load<u16>(ip, 10));
  let sharedSum: u64 = sum16(ip + 12, 8) + sum16(transport, transportLength) + (<u64>load<u8>(ip, 9) << 8);
  sharedSum += minus(load<u16>(transport, 4)) + minus(load<u16>(transport, 6));
  if (isTcp) sharedSum += minus(flags << 8) + minus(load<u16>(transport, 16));
  const end = index + count;
  for (; index < end; index++) {
    const from = headers + index * size;
    const payload = min<usize>(size, total - from);
    for (let at: usize = 0; at < headers; at += 16) v128.store(header + at, v128.load(ip + at));
    const length = swap16(headers + payload);
    const id = swap16(identification + index);
    store<u16>(header, length, 2);
    store<u16>(header, id, 4);
    store<u16>(header, ~fold(ipSum + length + id), 10);
    const segment = header + headerLength;
    const own = swap16(transportLength + payload);
    let sum: u64 = sharedSum + own + sum16(ip + from, payload);
    if (isTcp) putTcp(segment, sum, sequence + from - headers, flags, index == 0, from + payload == total);
    else putUdp(segment, sum, own);
    putPair(iovecs, header, headers, ip + from, payload);
    header += stride;
    iovecs += 2 * IOVEC_SIZE;
  }
}

/**
 * As segment4, for IPv6: `headerLength` includes extension headers. What the segments share of the pseudo header is taken from the
 * checksum field, which the kernel has left with the sum for the whole (virtio 1.2 §5.1.6.2): a routing header changes the address
 * that counts.
 */
export function segment6(
  ip: usize,
  headerLength: usize,
  headers: usize,
  size: usize,
  index: u32,
  count: u32,
  header: usize,
  stride: usize,
  iovecs: usize,
): void {
  const total: usize = 40 + swap16(load<u16>(ip, 4));
  const transport = ip + headerLength;
  const transportLength = headers - headerLength;
  // UDP has its length where TCP has its sequence number, and a checksum behind it; a TCP header has at least 20 bytes.
  const isTcp = transportLength >= 20;
  const sequence = bswap<u32>(load<u32>(transport, 4));
  const flags: u32 = isTcp ? load<u8>(transport, 13) : 0;
  // The field itself counts as what is left of the pseudo header, so the sum of the header, field included, is wanted.
  let sharedSum: u64 = sum16(transport, transportLength) + minus(swap16(total - headerLength));
  sharedSum += minus(load<u16>(transport, 4));
  if (isTcp) sharedSum += minus(load<u16>(transport, 6)) + minus(flags << 8);
  const end = index + count;
  for (; index < end; index++) {
    const from = headers + index * size;
    const payload = min<usize>(size, total - from);
    for (let at: usize = 0; at < headers; at += 16) v128.store(header + at, v128.load(ip + at));
    store<u16>(header, swap16(headers + payload - 40), 4);
    const segment = header + headerLength;
    const own = swap16(transportLength + payload);
    let sum: u64 = sharedSum + own + sum16(ip + from, payload);
    if (isTcp) putTcp(segment, sum, sequence + from - headers, flags, index == 0, from + payload == total);
    else putUdp(segment, sum, own);
    putPair(iovecs, header, headers, ip + from, payload);
    header += stride;
    iovecs += 2 * IOVEC_SIZE;
  }
}

/** Whether the TCP header at `segment`, `length` bytes long, has what segmentation would have made of the one at `first`. */
@inline
function continuesTcp(first: usize, segment: usize, length: usize, sequence: u32): bool {
  if ((load<u8>(segment, 13) & ~TCP_PSH) != TCP_ACK) return false;
  if (bswap<u32>(load<u32>(segment, 4)) != sequence) return false;
  if (load<u32>(segment, 8) != load<u32>(first, 8)) return false; // acknowledgement
  if (load<u8>(segment, 12) != load<u8>(first, 12)) return false; // data offset
  if (load<u16>(segment, 14) != load<u16>(first, 14)) return false; // window
  for (let at: usize = 18; at < length; at += 2) {
    if (load<u16>(segment + at) != load<u16>(first + at)) return false; // urgent pointer, options
  }
  return true;
}

@inline
function continuesUdp(datagram: usize, length: u32): bool {
  return load<u16>(datagram, 4) == length && load<u16>(datagram, 6) != 0;
}

/** PSH is set on the last segment of a run alone. */
@inline
function endsRun(segment: usize): bool {
  return load<u8>(segment, 13) != TCP_ACK;
}

/**
 * How many of the `most` packets of `length` bytes, one behind the other from `ip` on, continue the run of segments that the packet
 * at `first` began: equal in all that segmentation would copy, next in sequence, with right checksums. The first packet's
 * IP header has no options, and it and the transport header are `headers` bytes long together, fewer than `length`. Their
 * TTL is `older` above that of the first. A segment with PSH is the last of a run. Each one's payload becomes an entry
 * of the vector at `iovec`.
 * @param sequence what the next TCP segment has to have
 * @param identification what the next packet has to have if routers may fragment it
 */
export function continue4(
  first: usize,
  headers: usize,
  ip: usize,
  length: usize,
  most: u32,
  older: u32,
  sequence: u32,
  identification: u32,
  iovec: usize,
): u32 {
  const isTcp = load<u8>(first, 9) == PROTO_TCP;
  const total = swap16(length);
  const udpLength = swap16(length - 20);
  const ttl = load<u8>(first, 8) + older;
  const mayFragment = (load<u8>(first, 6) & 0x40) == 0;
  const payload = length - headers;
  for (let count: u32 = 0; count < most; count++) {
    if (load<u16>(ip) != load<u16>(first)) return count; // version, header length, TOS
    if (load<u16>(ip, 2) != total || load<u16>(ip, 6) != load<u16>(first, 6)) return count;
    if (load<u8>(ip, 8) != ttl || load<u8>(ip, 9) != load<u8>(first, 9)) return count;
    if (load<u64>(ip, 12) != load<u64>(first, 12) || load<u32>(ip, 20) != load<u32>(first, 20)) return count;
    if (mayFragment && load<u16>(ip, 4) != swap16(identification + count)) return count;
    if (isTcp ? !continuesTcp(first + 20, ip + 20, headers - 20, sequence) : !continuesUdp(ip + 20, udpLength)) return count;
    if (!valid4(ip, length)) return count;
    store<u64>(iovec, base + ip + headers);
    store<u64>(iovec, payload, 8);
    if (isTcp && endsRun(ip + 20)) return count + 1;
    sequence += payload;
    ip += length;
    iovec += IOVEC_SIZE;
  }
  return most;
}

/**
 * As continue4, for IPv6 without extension headers: equal traffic class, flow label and addresses too; there is no identification.
 */
export function continue6(
  first: usize,
  headers: usize,
  ip: usize,
  length: usize,
  most: u32,
  older: u32,
  sequence: u32,
  _identification: u32,
  iovec: usize,
): u32 {
  const isTcp = load<u8>(first, 6) == PROTO_TCP;
  const total = swap16(length - 40);
  const hopLimit = load<u8>(first, 7) + older;
  const payload = length - headers;
  for (let count: u32 = 0; count < most; count++) {
    if (load<u32>(ip) != load<u32>(first)) return count; // version, traffic class, flow label
    if (load<u16>(ip, 4) != total || load<u8>(ip, 6) != load<u8>(first, 6) || load<u8>(ip, 7) != hopLimit) return count;
    if (load<u64>(ip, 8) != load<u64>(first, 8) || load<u64>(ip, 16) != load<u64>(first, 16)) return count;
    if (load<u64>(ip, 24) != load<u64>(first, 24) || load<u64>(ip, 32) != load<u64>(first, 32)) return count;
    if (load<u32>(ip, 40) != load<u32>(first, 40)) return count; // ports
    if (isTcp ? !continuesTcp(first + 40, ip + 40, headers - 40, sequence) : !continuesUdp(ip + 40, total)) return count;
    if (!valid6(ip, length)) return count;
    store<u64>(iovec, base + ip + headers);
    store<u64>(iovec, payload, 8);
    if (isTcp && endsRun(ip + 40)) return count + 1;
    sequence += payload;
    ip += length;
    iovec += IOVEC_SIZE;
  }
  return most;
}
