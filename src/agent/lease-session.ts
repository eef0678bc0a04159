import { assertNever } from '../assert-never.ts';
import { backendOfLease } from '../backend/registry.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { describeError } from '../errors.ts';
import type { NewEvent, RecordEvent } from '../events/event.ts';
import { formatAddr } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { GateRules } from '../lease/gate-rules.ts';
import { type Lease, type LeaseEvent, leaseKey } from '../lease/lease.ts';
import { LeaseGate } from '../lease/lease-gate.ts';
import { LeaseTable } from '../lease/lease-table.ts';
import { describeHolder, describeRefusal, type Refusal, type RefusalReason } from '../lease/refusal.ts';
import type { Log } from '../log/log.ts';
import type { LeaseUpdate, SubnetManager } from '../subnet/subnet-manager.ts';
import type { NodePlane } from './node-plane.ts';
import { PacedWork } from './paced-work.ts';
import { RefusalLog } from './refusal-log.ts';

/** More changes than this at once are one event: a list of thousands must not push all others out. */
const MAX_PEER_EVENTS = 100;
/** Updates that are there at once are dealt with in slices of so many milliseconds: between them others have their turn. */
const SLICE_MS = 10;

export interface SessionParts {
  readonly log: Log;
  readonly record: RecordEvent;
  /** What a lease of another host must be like to be believed. */
  readonly rules: GateRules;
  readonly plane: Pick<NodePlane, 'config' | 'program' | 'update' | 'usesPeerData'>;
  readonly manager: Pick<SubnetManager, 'watchLeases' | 'holdLease'>;
  /** Told of every update of the leases, before it is applied. */
  readonly onUpdate: (type: LeaseUpdate['type']) => void;
  /** Told whenever the own lease or the peers have changed, from the first snapshot on. */
  readonly onKnown: (own: Lease, peers: LeaseTable) => void;
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
  /** The leases of other hosts that are programmed. */
  readonly table = new LeaseTable();
  /** Settles once the first snapshot of peers is programmed; rejects when the session ends before. */
  readonly peersKnown: Promise<void>;
  /** Settles when the session is over by itself, never because it was disposed of; never rejects. */
  readonly ended: Promise<SessionEnd>;
  readonly #parts: SessionParts;
  /** What the store says, as far as it is believed. */
  readonly #gate: LeaseGate;
  readonly #refusals: RefusalLog;
  readonly #publishing = new PacedWork(() => this.#publish());
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>;
  #own: Lease;
  #hasSnapshot = false;
  #isFirstPublished = false;
  #conflict: string | undefined;

  /** @param peers those known from before, which count until the first snapshot. */
  constructor(parts: SessionParts, own: Lease, peers: readonly Lease[]) {
    this.#parts = parts;
    this.#own = own;
    this.#gate = new LeaseGate(parts.rules, own);
    this.#refusals = new RefusalLog(parts.log);
    this.#gate.apply({ type: 'snapshot', leases: peers });
    this.table.apply(this.#gate.takeChanges());
    this.#sayRefusals();
    const known = Promise.withResolvers<void>();
    const ended = Promise.withResolvers<SessionEnd>();
    this.peersKnown = known.promise;
    this.ended = ended.promise;
    known.promise.catch(() => {}); // nobody need wait for it
    parts.plane.program(own, this.table.peers);
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

  /** That another host has this host's subnet and came before it: the others send its packets there. */
  get failure(): string | undefined {
    return this.#conflict;
  }

  /** Entries of the store that are not believed now, with why. */
  refusals(): readonly Refusal[] {
    return this.#gate.refused();
  }

  /** Entries of the store that are not believed now, by reason. */
  get refused(): Partial<Record<RefusalReason, number>> {
    return this.#gate.refusals;
  }

  async #watch(onSnapshot: () => void): Promise<SessionEnd> {
    const { manager, plane, onUpdate, log } = this.#parts;
    let sliceFromMs = performance.now();
    const options = { backendData: plane.usesPeerData };
    for await (const update of manager.watchLeases(plane.config, this.#stop.signal, options)) {
      onUpdate(update.type);
      this.#parts.log.verbose(2, `Lease event: ${describeUpdate(update)}`);
      try {
        this.#gate.apply(update);
      } catch (error) {
        // A mistake of ours, which one entry has brought to light: it must not keep the others from being dealt with.
        log.error(`Could not apply a change of the leases (${update.type}): ${describeError(error)}`);
      }
      if (update.type === 'snapshot' && !this.#hasSnapshot) {
        this.#hasSnapshot = true;
        this.#publishing.now();
        onSnapshot();
      } else {
        this.#publishing.soon();
      }
      if (performance.now() - sliceFromMs > SLICE_MS) {
        await nextTurn();
        sliceFromMs = performance.now();
      }
    }
    return unasked('watching the leases');
  }

  /** Everything read again, and nothing changed: nothing is done, but for the first list, which others wait for. */
  #publish(): void {
    const events = this.table.apply(this.#gate.takeChanges());
    for (const event of events) this.#logEvent(event);
    this.#recordPeers(events);
    this.#sayRefusals();
    this.#lookForConflict();
    if (events.length === 0 && this.#isFirstPublished) return;
    this.#isFirstPublished = true;
    this.#parts.plane.update(this.#own, events);
    if (this.#hasSnapshot) this.#parts.onKnown(this.#own, this.table);
  }

  #lookForConflict(): void {
    const other = this.#gate.ownConflict;
    const before = this.#conflict;
    this.#conflict =
      other &&
      `the subnet of this host, ${leaseKey(this.#own).replaceAll('-', '/')}, overlaps ${describeHolder(other)}, which came first, so other hosts send this host's packets there. Give this host another subnet (with Kubernetes, delete its Node object so that it registers again)`;
    const { log, record } = this.#parts;
    const subject = leaseKey(this.#own).replaceAll('-', '/');
    if (this.#conflict !== undefined && this.#conflict !== before) {
      log.error(this.#conflict);
      record({ kind: 'subnet-conflict', severity: 'error', subject, text: this.#conflict });
    }
    if (this.#conflict === undefined && before !== undefined) {
      const text = 'The subnet of this host is no longer claimed by another host';
      log.info(text);
      record({ kind: 'subnet-conflict-over', severity: 'info', subject, text });
    }
  }

  #sayRefusals(): void {
    for (const refusal of this.#refusals.say(this.#gate.takeNews())) {
      const { lease, reason } = refusal;
      this.#parts.record({
        ...{ kind: 'entry-refused', severity: reason === 'overlaps-own' ? 'error' : 'warning', cause: reason },
        ...{ subject: leaseKey(lease).replaceAll('-', '/'), text: describeRefusal(refusal) },
        revision: lease.origin?.since,
      });
    }
  }

  #recordPeers(events: readonly LeaseEvent[]): void {
    const { record } = this.#parts;
    const isMany = events.length > MAX_PEER_EVENTS;
    if (!isMany) {
      for (const event of events) record(peerEvent(event, this.#parts.plane.config));
      return;
    }
    const removed = events.filter(({ type }) => type === 'removed').length;
    record({
      ...{ kind: 'peers-changed', severity: 'info', subject: `${events.length} peers` },
      text: `${events.length - removed} peers added or changed, and ${removed} removed, at once`,
      cause: 'a full list from the store',
    });
  }

  #logEvent(event: LeaseEvent): void {
    const { lease } = event;
    const [address] = present(lease.attrs.publicAddresses);
    const via = address === undefined ? 'no address' : formatAddr(address);
    const subnet = leaseKey(lease).replaceAll('-', '/');
    this.#parts.log.info(event.type === 'set' ? `Subnet added: ${subnet} via ${via}` : `Subnet removed: ${subnet}`);
  }

  async #hold(): Promise<SessionEnd> {
    const { manager, log } = this.#parts;
    for await (const event of manager.holdLease(this.#own, this.#stop.signal)) {
      switch (event.type) {
        case 'renewed':
          this.#own = event.lease;
          break;
        case 'store-unavailable':
          log.warn(
            `The lease store cannot be reached. Packets continue to flow; retrying: ${describeError(event.error)}`,
          );
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
    this.#publishing[Symbol.dispose]();
    await this.#running;
    this.#publishing[Symbol.dispose]();
  }
}

function peerEvent(event: LeaseEvent, config: NetworkConfig): NewEvent {
  const { lease } = event;
  const subject = leaseKey(lease).replaceAll('-', '/');
  const revision = lease.origin?.since;
  if (event.type === 'removed') {
    const text = `the lease of ${describeHolder(lease)} is gone from the store`;
    return { kind: 'peer-removed', severity: 'info', subject, text };
  }
  const described = (one: Lease): string => `${describeHolder(one)}, backend ${backendOfLease(one.attrs, config)}`;
  const now = described(lease);
  const { before } = event;
  if (before === undefined) return { kind: 'peer-added', severity: 'info', subject, text: now, revision };
  const cause = `its host published other attributes; before: ${described(before)}`;
  return { kind: 'peer-changed', severity: 'info', subject, text: now, cause, revision };
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
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
