import { type Backend, isSkipped, type PeerPart, type SkippedPeer } from '../backend/backend.ts';
import type { Lease } from '../lease/lease.ts';

/** What the own backend says of peers. It is asked once for each lease of a peer of another type, however often this is. */
export class OwnAnswers {
  readonly backend: Backend;
  readonly own: Lease;
  readonly #answers = new WeakMap<Lease, PeerPart | SkippedPeer>();

  constructor(backend: Backend, own: Lease) {
    this.backend = backend;
    this.own = own;
  }

  /** @throws what the backend throws for this peer. */
  of(peer: Lease): PeerPart | SkippedPeer {
    if (this.#isOfOwnType(peer)) return this.backend.peer(this.own, peer);
    const known = this.#answers.get(peer);
    if (known !== undefined) return known;
    const answer = this.backend.peer(this.own, peer);
    this.#answers.set(peer, answer);
    return answer;
  }

  /** Whether this peer is for another backend, by what it says of itself. @throws what the backend throws for this peer. */
  isForAnother(peer: Lease): boolean {
    return !this.#isOfOwnType(peer) && isSkipped(this.of(peer));
  }

  #isOfOwnType(peer: Lease): boolean {
    return peer.attrs.backendType === this.backend.attrs.backendType;
  }
}
