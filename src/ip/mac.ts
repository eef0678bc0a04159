declare const brand: unique symbol;

/** A 48-bit link-layer address as the kernel prints it: six lower-case hexadecimal octets with colons. */
export type MacAddr = string & { readonly [brand]: 'MacAddr' };

/** Accepts upper case, as Go's net.ParseMAC does; `undefined` when it is not six octets with colons. */
export function parseMac(text: string): MacAddr | undefined {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? (text.toLowerCase() as MacAddr) : undefined;
}

/** @throws RangeError unless there are six bytes. */
export function macOfBytes(bytes: Uint8Array): MacAddr {
  if (bytes.length !== 6) throw new RangeError(`not the bytes of a MAC address: ${bytes.length}`);
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':') as MacAddr;
}
