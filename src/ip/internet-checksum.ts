/** The Internet checksum (RFC 1071) of `length` bytes, the field itself zero; an odd last byte counts as the high half of a word. */
export function internetChecksum(view: DataView, length: number): number {
  let sum = 0;
  for (let at = 0; at + 1 < length; at += 2) sum += view.getUint16(at);
  if (length % 2 === 1) sum += view.getUint8(length - 1) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
