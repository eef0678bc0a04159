// AssemblyScript, compiled by scripts/build-wasm.ts into sum16-module.ts. Runs on the arena's memory.

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
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return <u32>sum;
}

/**
 * Whether the IPv4 packet of `length` bytes at `ip`, its header 20 bytes long, has a right header checksum and, with the
 * pseudo header (RFC 9293 §3.1, RFC 768), a right TCP or UDP checksum. One call a packet instead of three.
 */
export function valid4(ip: usize, length: usize): u32 {
  const addresses: u64 = <u64>load<u32>(ip, 12) + <u64>load<u32>(ip, 16);
  const header: u64 = <u64>load<u32>(ip) + <u64>load<u32>(ip, 4) + <u64>load<u32>(ip, 8) + addresses;
  const transport = length - 20;
  const pseudo: u64 = addresses + (<u64>load<u8>(ip, 9) << 8) + <u64>bswap<u16>(<u16>transport);
  return fold(header) == 0xffff && fold(pseudo + sum16(ip + 20, transport)) == 0xffff ? 1 : 0;
}

function fold(wide: u64): u64 {
  let sum = (wide & 0xffffffff) + (wide >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (sum & 0xffff) + (sum >> 16);
}

/** Copies `length` bytes in pieces of 16: what lies behind them up to the next multiple is copied too. */
export function copyHeader(to: usize, from: usize, length: usize): void {
  for (let at: usize = 0; at < length; at += 16) v128.store(to + at, v128.load(from + at));
}
