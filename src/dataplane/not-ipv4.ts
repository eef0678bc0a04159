import { DROP_IPV6_MULTICAST, DROP_MALFORMED, DROP_NOT_IPV4 } from './drop-reason.ts';
import { IPV6_HEADER } from './wire.ts';

/** Why a packet whose first byte does not say IPv4 is dropped. @param available bytes that are there. */
export function reasonNotIpv4(view: DataView, ip: number, available: number): number {
  if (available < 1) return DROP_MALFORMED;
  const isIpv6 = view.getUint8(ip) >>> 4 === 6 && available >= IPV6_HEADER;
  return isIpv6 && view.getUint8(ip + 24) === 0xff ? DROP_IPV6_MULTICAST : DROP_NOT_IPV4;
}
