import { assertNever } from '../assert-never.ts';
import { describeError } from '../errors.ts';
import { formatIpv4 } from '../ip/ipv4.ts';
import { type Lease, type LeaseEvent, leaseKey } from '../lease/lease.ts';
import { LeaseTable } from '../lease/lease-table.ts';
import type { Log } from '../log/log.ts';
import type { LeaseUpdate, SubnetManager } from '../subnet/subnet-manager.ts';
import type { NodePlane } from './node-plane.ts';

export interface SessionParts {
  readonly log: Log;
  readonly plane: Pick<NodePlane, 'config' | 'program' | 'backend'>;
  readonly manager: Pick<SubnetManager, 'watchLeases' | 'holdLease'>;
  /** Told of every update of the leases, before it is applied. */
  readonly onUpdate: (type: LeaseUpdate['type']) => void;
  /** Told whenever the own lease or the peers have changed, from the first snapshot on. */
  readonly onKnown: (own: Lease, peers: readonly Lease[]) => void;
}

/** Why a session is over before it was told to end. */
export type SessionEnd =
  /** The subnet is somebody else's now. */
  | { readonly type: 'lost'; readonly reason: string }
  /** Peers are no longer watched, or the lease is no longer renewed; a new session may do better. */
  | { readonly type: 'failed'; readonly error: unknown };

/**
 * The time during which one lease is held: peers are watched and programmed, the lease is renewed. Ends when the lease is
 * lost or the signal fires; the kernel and the forwarder keep what they have.
 */
export class LeaseSession implements AsyncDisposable {
  readonly table: LeaseTable;
  /** Settles once the first snapshot of peers is programmed; rejects when the session ends before. */
  readonly peersKnown: Promise<void>;
  /** Settles when the session is over by itself, never because it was disposed of; never rejects. */
  readonly ended: Promise<SessionEnd>;
  readonly #parts: SessionParts;
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>;
  #own: Lease;
  #hasSnapshot = false;
  #storeFailure: string | undefined;

  /** @param peers those known from before, which count until the first snapshot. */
  constructor(parts: SessionParts, own: Lease, peers: readonly Lease[]) {
    this.#parts = parts;
    this.#own = own;
    this.table = new LeaseTable(own);
    this.table.applySnapshot(peers);
    const known = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<SessionEnd>();
    this.peersKnown = known.promise;
    this.ended = ended.promise;
    known.promise.catch(() => {}); // nobody need wait for it
    this.#program();
    const settle = async (running: Promise<SessionEnd>): Promise<void> => {
      const end = await running.catch((error: unknown) => ({ type: 'failed', error }) as const);
      if (!this.#stop.signal.aborted) ended.resolve(end);
    };
    this.#running = Promise.all([
      settle(this.#watch(known.resolve)).then(() => known.reject(new Error('the session ended'))),
      settle(this.#hold()),
    ]);
  }

  get own(): Lease {
    return this.#own;
  }

  /** What is wrong with the store, for status; packets flow all the same. */
  get storeFailure(): string | undefined {
    return this.#storeFailure;
  }

  async #watch(onSnapshot: () => void): Promise<SessionEnd> {
    const { manager, plane, onUpdate } = this.#parts;
    const options = { backendData: plane.backend.usesPeerData };
    for await (const update of manager.watchLeases(plane.config, this.#stop.signal, options)) {
      onUpdate(update.type);
      this.#parts.log.verbose(2, `Lease event: ${describeUpdate(update)}`);
      const events = this.table.applyUpdate(update);
      for (const event of events) this.#logEvent(event);
      const isFirst = update.type === 'snapshot' && !this.#hasSnapshot;
      if (isFirst) this.#hasSnapshot = true;
      // Everything read again, and nothing changed: nothing is done.
      if (events.length > 0 || isFirst) this.#program();
      if (isFirst) onSnapshot();
    }
    return unasked('watching the leases');
  }

  #logEvent(event: LeaseEvent): void {
    const { lease } = event;
    const { publicIp } = lease.attrs;
    const via = publicIp === undefined ? 'no address' : formatIpv4(publicIp);
    const subnet = leaseKey(lease).replaceAll('-', '/');
    this.#parts.log.info(event.type === 'set' ? `Subnet added: ${subnet} via ${via}` : `Subnet removed: ${subnet}`);
  }

  #program(): void {
    const peers = this.table.peers();
    this.#parts.plane.program(this.#own, peers);
    if (this.#hasSnapshot) this.#parts.onKnown(this.#own, peers);
  }

  async #hold(): Promise<SessionEnd> {
    const { manager, log } = this.#parts;
    for await (const event of manager.holdLease(this.#own, this.#stop.signal)) {
      switch (event.type) {
        case 'renewed':
          this.#own = event.lease;
          this.#storeFailure = undefined;
          break;
        case 'store-unavailable':
          this.#storeFailure = describeError(event.error);
          log.warn(`The lease store cannot be reached; packets flow on, trying again: ${this.#storeFailure}`);
          break;
        case 'lost':
          return event;
        default:
          assertNever(event, 'own lease event');
      }
    }
    return unasked('holding the lease');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error('the lease session ended'));
    await this.#running;
  }
}

function unasked(what: string): SessionEnd {
  return { type: 'failed', error: new Error(`${what} ended without being told to`) };
}

function describeUpdate(update: LeaseUpdate): string {
  switch (update.type) {
    case 'snapshot':
      return `snapshot of ${update.leases.length} leases`;
    case 'set':
      return `set ${leaseKey(update.lease)}`;
    case 'removed':
      return `removed ${update.key}`;
    default:
      return assertNever(update, 'lease update');
  }
}
