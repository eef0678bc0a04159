import type { PeerSlots } from './peer-slots.ts';
import type { Peer, PeerTableContent } from './peer-table.ts';
import type { Slot } from './peer-table-layout.ts';

/** Where packets for one peer's subnets are sent. */
export type ForwardTo = Omit<Peer, 'slot'>;

/** The part of a forwarder that its peers are told to. */
export interface ForwardingTarget {
  /** The slot goes to another peer: its counters start again. */
  clearTraffic(slot: Slot): void;
  publish(content: PeerTableContent): void;
}

/**
 * The peers of the forwarder, set one at a time and published together: it takes its table as a whole.
 */
export class ForwardingTable {
  readonly #slots: PeerSlots;
  readonly #forwarder: ForwardingTarget;
  readonly #peers = new Map<string, ForwardTo>();
  #network: Omit<PeerTableContent, 'peers'> | undefined;

  constructor(slots: PeerSlots, forwarder: ForwardingTarget) {
    this.#slots = slots;
    this.#forwarder = forwarder;
  }

  /** Nothing is published before the network is known. */
  set(network: Omit<PeerTableContent, 'peers'>): void {
    this.#network = network;
  }

  /** `undefined` takes the peer away. */
  setPeer(key: string, to: ForwardTo | undefined): void {
    if (to === undefined) this.#peers.delete(key);
    else this.#peers.set(key, to);
  }

  publish(): void {
    const forwarder = this.#forwarder;
    if (this.#network === undefined) return;
    const assigned = this.#slots.assign([...this.#peers.keys()], (slot) => forwarder.clearTraffic(slot));
    const peers = [...this.#peers.values()].flatMap((to, index): Peer[] => {
      const slot = assigned[index];
      return slot === undefined ? [] : [{ slot, ...to }];
    });
    forwarder.publish({ ...this.#network, peers });
  }
}
