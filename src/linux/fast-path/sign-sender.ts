import { UNSUMMED_SIGN_BYTES, unsummedDatagram } from '../../dataplane/fast-path/sign.ts';
import type { ForwarderUnderlay } from '../../dataplane/forwarder-underlay.ts';
import { type IpAddr, isIpv4 } from '../../ip/address.ts';
import { EAGAIN, ENOBUFS, MSG_DONTWAIT } from '../constants.ts';
import { addressOf, sendto } from '../ffi.ts';
import { sockaddrOf } from '../udp-socket.ts';

/** Sends a sign to a peer; false when it may not. */
export type SendSign = (
  to: { readonly addr: IpAddr; readonly port: number },
  packet: Uint8Array,
  checksum: 'checksum' | 'no-checksum',
) => boolean;

/** By the forwarder's socket; or, without a checksum, by a raw one that sends whole packets. */
export function signSender(
  socketFd: number,
  rawFd: number,
  { listenAddress, listenPort }: ForwarderUnderlay,
): SendSign {
  // Made once: memory that does not move is dear, and signs are most of what an idle host sends.
  const outgoing = new Uint8Array(new SharedArrayBuffer(UNSUMMED_SIGN_BYTES));
  const sendBytes = (fd: number, packet: Uint8Array, name: Uint8Array): boolean => {
    outgoing.set(packet);
    const sent = sendto(fd, addressOf(outgoing), packet.length, MSG_DONTWAIT, addressOf(name), name.length);
    // A full buffer says nothing about what is allowed.
    return sent >= 0 || sent === -EAGAIN || sent === -ENOBUFS;
  };
  return (to, packet, checksum) => {
    if (checksum === 'checksum') return sendBytes(socketFd, packet, sockaddrOf(to.addr, to.port));
    if (isIpv4(to.addr) || isIpv4(listenAddress)) throw new TypeError('unreachable: datagrams of IPv4 need no proof');
    const from = { addr: listenAddress, port: listenPort };
    return sendBytes(rawFd, unsummedDatagram(from, { addr: to.addr, port: to.port }, packet), sockaddrOf(to.addr, 0));
  };
}
