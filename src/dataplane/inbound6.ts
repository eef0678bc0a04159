import type { Arena } from './arena.ts';
import { decrementHopLimit } from './checksum.ts';
import type { Coalescer } from './coalescer.ts';
import type { DestinationCheck } from './destination-check.ts';
import {
  DROP_FOREIGN_DESTINATION,
  DROP_FOREIGN_SOURCE,
  DROP_IPV6_MULTICAST,
  DROP_MALFORMED,
  DROP_NONE,
  DROP_SPOOFED_SOURCE,
  DROP_TTL_EXCEEDED,
} from './drop-reason.ts';
import { type Icmp6Errors, isHost } from './icmp6-error.ts';
import type { LocalAddresses6 } from './local-addresses6.ts';
import type { Slot } from './peer-table-layout.ts';
import type { PeerTableReader } from './peer-table-reader.ts';
import type { SourceCheck } from './source-check.ts';
import { ICMPV6_HOP_LIMIT_EXCEEDED, ICMPV6_TIME_EXCEEDED, IPV6_HEADER } from './wire.ts';

export interface Inbound6Parts {
  readonly arena: Arena;
  readonly table: PeerTableReader;
  readonly icmp: Icmp6Errors;
  readonly coalescer: Coalescer;
  readonly sourceCheck: SourceCheck;
  readonly destinationCheck: DestinationCheck;
  readonly localAddresses6: LocalAddresses6;
}

/** The part of Inbound for IPv6: the same checks, of longer addresses. */
export class Inbound6 {
  readonly #arena: Arena;
  readonly #table: PeerTableReader;
  readonly #icmp: Icmp6Errors;
  readonly #coalescer: Coalescer;
  readonly #sourceCheck: SourceCheck;
  readonly #destinationCheck: DestinationCheck;
  readonly #localAddresses: LocalAddresses6;

  constructor(parts: Inbound6Parts) {
    this.#arena = parts.arena;
    this.#table = parts.table;
    this.#icmp = parts.icmp;
    this.#coalescer = parts.coalescer;
    this.#sourceCheck = parts.sourceCheck;
    this.#destinationCheck = parts.destinationCheck;
    this.#localAddresses = parts.localAddresses6;
  }

  /** @param available bytes from `ip` on, a whole IPv6 header at least. Returns why not, or DROP_NONE. */
  deliver(ip: number, available: number, slot: Slot, endpoint: number): number {
    const { view } = this.#arena;
    const total = IPV6_HEADER + view.getUint16(ip + 4);
    if (total > available) return DROP_MALFORMED;
    if (view.getUint8(ip + 24) === 0xff) return DROP_IPV6_MULTICAST;
    if (this.#sourceCheck !== 'off') {
      const refused = this.#checkSource(ip + 8, slot, endpoint);
      if (refused !== DROP_NONE) return refused;
    }
    if (this.#destinationCheck !== 'off' && !this.#isForUs(ip + 24)) return DROP_FOREIGN_DESTINATION;
    if (decrementHopLimit(view, ip) === 0) {
      this.#icmp.send(ip, total, ICMPV6_TIME_EXCEEDED, ICMPV6_HOP_LIMIT_EXCEEDED, 0);
      return DROP_TTL_EXCEEDED;
    }
    this.#coalescer.push(ip, total, slot);
    return DROP_NONE;
  }

  /** One host may own several subnets, so owners are compared by their endpoints. The sender is known: slot is not 0. */
  #checkSource(source: number, slot: Slot, endpoint: number): number {
    const { view } = this.#arena;
    const table = this.#table;
    if (table.inNetwork6(view, source)) {
      const owner = table.lookup6(view, source);
      // A host whose address lies in the network, where no subnet can be, answers containers under that address.
      if (owner === 0) return table.isHostAddress6(slot, view, source) ? DROP_NONE : DROP_SPOOFED_SOURCE;
      return owner === slot || table.endpoint(owner) === endpoint ? DROP_NONE : DROP_SPOOFED_SOURCE;
    }
    if (!isHost(view, source)) return DROP_FOREIGN_SOURCE;
    // As this host itself, whom containers may trust: the kernel refuses that of IPv4 (a martian), and not of IPv6.
    if (this.#localAddresses.has(view, source)) return DROP_SPOOFED_SOURCE;
    const isStranger = this.#sourceCheck === 'strict' && !table.isHostAddress6(slot, view, source);
    return isStranger ? DROP_FOREIGN_SOURCE : DROP_NONE;
  }

  #isForUs(destination: number): boolean {
    const { view } = this.#arena;
    if (this.#table.isOwn6(view, destination)) return true;
    return this.#destinationCheck === 'loose' && this.#localAddresses.has(view, destination);
  }
}
