import type { Arena } from './arena.ts';
import { putSockaddr, putSockaddr6, SOCKADDR_SIZE, SOCKADDR6_ADDRESS, SOCKADDR6_SIZE } from './mmsghdr.ts';
import type { Slot } from './peer-table-layout.ts';
import type { PeerTableReader } from './peer-table-reader.ts';
import { ENCAPSULATION_OVERHEAD, ENCAPSULATION_OVERHEAD_6 } from './wire.ts';

/**
 * What the network between the hosts is, as packet workers see it. A host is known there by one number, its endpoint: the IPv4 address, or
 * where that is too long the first slot that has it.
 */
export interface Underlay {
  readonly version: 4 | 6;
  /** Length of an address as the socket has it. */
  readonly nameBytes: number;
  /** What is put before each packet, in bytes. */
  readonly overhead: number;
  /** Where in such an address the IP address is. */
  readonly addressAt: number;
  /** Writes the outer address of a slot for the socket. */
  putName(arena: Arena, at: number, table: PeerTableReader, slot: Slot): void;
  /** The slot of the sender whose address the socket has written to `name`; 0 when it is nobody's. */
  senderOf(table: PeerTableReader, view: DataView, name: number): Slot;
  /** The sender's endpoint. */
  endpointOf(view: DataView, name: number, sender: Slot): number;
}

export const IPV4_UNDERLAY: Underlay = {
  version: 4,
  nameBytes: SOCKADDR_SIZE,
  overhead: ENCAPSULATION_OVERHEAD,
  addressAt: 4,
  putName: (arena, at, table, slot) => putSockaddr(arena, at, table.endpoint(slot), table.endpointPort(slot)),
  senderOf: (table, view, name) => table.lookupEndpoint(view.getUint32(name + 4)),
  endpointOf: (view, name) => view.getUint32(name + 4),
};

export const IPV6_UNDERLAY: Underlay = {
  version: 6,
  nameBytes: SOCKADDR6_SIZE,
  overhead: ENCAPSULATION_OVERHEAD_6,
  addressAt: SOCKADDR6_ADDRESS,
  putName: (arena, at, table, slot) => {
    putSockaddr6(arena, at, table.endpointPort(slot));
    table.putHostAddress6(slot, arena.view, at + SOCKADDR6_ADDRESS);
  },
  senderOf: (table, view, name) => table.lookupEndpoint6(view, name + SOCKADDR6_ADDRESS),
  endpointOf: (_view, _name, sender) => sender,
};
