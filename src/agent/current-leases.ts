import type { Lease } from '../lease/lease.ts';

/** The leases that this host works with: those of an earlier run until the store has said more. */
export class CurrentLeases {
  #own: Lease | undefined;
  #held: Lease | undefined;
  #peers: () => readonly Lease[] = () => [];

  /** The subnet whose packets are carried. */
  get own(): Lease | undefined {
    return this.#own;
  }

  /** The lease that this process has acquired, and not lost since. */
  get held(): Lease | undefined {
    return this.#held;
  }

  get peers(): readonly Lease[] {
    return this.#peers();
  }

  /** @param peers is asked when they are needed: they change meanwhile. */
  knowPeers(peers: () => readonly Lease[]): void {
    this.#peers = peers;
  }

  /** Packets of a subnet are carried, as an earlier run did, before the lease of it was acquired again; `undefined`: no more. */
  carry(own: Lease | undefined): void {
    this.#own = own;
  }

  acquired(own: Lease): void {
    this.#own = own;
    this.#held = own;
  }

  lost(): void {
    this.#own = undefined;
    this.#held = undefined;
  }
}
