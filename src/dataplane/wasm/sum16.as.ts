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
