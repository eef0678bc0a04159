declare const brand: unique symbol;

/** A 48-bit link-layer address as the kernel prints it: six lower-case hexadecimal octets with colons. */
export type MacAddr = string & { readonly [brand]: 'MacAddr' };

/** Accepts upper case, as Go's net.ParseMAC does; `undefined` when it is not six octets with colons. */
export function parseMac(text: string): MacAddr | undefined {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? (text.toLowerCase() as MacAddr) : undefined;
}
