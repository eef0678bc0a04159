import { setTimeout as delay } from 'node:timers/promises';
import {
  type Backend,
  type ExternalInterface,
  NO_PEER_STATE,
  type PeerPart,
  type SkippedPeer,
} from '../backend/backend.ts';
import { type BackendSetup, type ConfiguredBackend, openBackend } from '../backend/registry.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import { ForwardingTable } from '../dataplane/forwarding-table.ts';
import type { PeerSlots } from '../dataplane/peer-slots.ts';
import type { Forwarder } from '../dataplane/supervisor.ts';
import type { OwnLink, WantedState } from '../desired/state.ts';
import { describeError } from '../errors.ts';
import { type Lease, type LeaseKey, leaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';

/** What could not be opened is tried again; peers of that backend are not reached meanwhile. */
const RETRY_MS = 5_000;

export interface OtherBackendsParts {
  /** By what their hosts publish as their type. */
  readonly candidates: ReadonlyMap<string, ConfiguredBackend>;
  readonly config: NetworkConfig;
  readonly identify: (backend: ConfiguredBackend, signal: AbortSignal) => Promise<BackendSetup>;
  readonly forwarder: (backend: () => Backend) => Forwarder;
  readonly slots: PeerSlots;
  /** One has been opened, or could not be: what is said of its peers, and what they need, is another. */
  readonly onChanged: () => void;
  readonly log: Pick<Log, 'info' | 'error'>;
}

/** One backend beside this host's own. */
interface Side {
  readonly type: string;
  readonly configured: ConfiguredBackend;
  readonly own: Lease;
  readonly external: ExternalInterface;
  /** Of the own lease and the interface that it was opened for. */
  readonly basis: string;
  readonly stop: AbortController;
  /** Ends when it is open; never rejects. */
  opening: Promise<void>;
  backend: Backend | undefined;
  forwarder: Forwarder | undefined;
  forwarding: ForwardingTable | undefined;
  isOpen: boolean;
  /** Why it could not be opened the last time. */
  failure: string | undefined;
}

/**
 * While a cluster goes from one backend to another, node by node, hosts of both are there: a host reaches each in the way of that
 * one's own backend, beside its own. Opened when the first such peer comes, closed when the last has gone. What fails here is said,
 * and costs those peers alone: the node is ready without.
 */
export class OtherBackends implements AsyncDisposable {
  readonly #parts: OtherBackendsParts;
  readonly #sides = new Map<string, Side>();
  /** Links of sides that have been open, by name. */
  readonly #links = new Map<string, { readonly link: OwnLink; readonly type: string }>();
  readonly #closing = new Set<Promise<void>>();

  constructor(parts: OtherBackendsParts) {
    this.#parts = parts;
  }

  /** Opens and closes, so that there is a side for each of these types and for no other; takes effect soon. */
  serve(own: Lease, external: ExternalInterface, types: ReadonlySet<string>): void {
    const basis = `${leaseKey(own)} ${external.name} ${external.addresses.ipv4} ${external.addresses.ipv6} ${external.mtuBytes}`;
    for (const [type, side] of this.#sides) {
      if (types.has(type) && side.basis === basis) continue;
      this.#close(side);
      if (!types.has(type)) this.#parts.log.info(`No peer uses the backend ${side.configured.kind.type} any longer`);
    }
    for (const type of types) {
      const configured = this.#parts.candidates.get(type);
      if (configured === undefined || this.#sides.has(type)) continue;
      this.#parts.log.info(
        `Some peers use the backend ${configured.kind.type}. This host uses it to reach them until they change`,
      );
      this.#open({ type, configured, own, external, basis });
    }
  }

  /** `undefined` when there is no side for it; nothing is said of a peer while its side is being opened for the first time. */
  peer(own: Lease, peer: Lease): PeerPart | SkippedPeer | undefined {
    const side = this.#sides.get(peer.attrs.backendType);
    if (side === undefined) return undefined;
    if (side.isOpen && side.backend !== undefined) return side.backend.peer(own, peer);
    return side.failure === undefined
      ? { kernel: NO_PEER_STATE }
      : {
          skipped: `its backend is ${side.configured.kind.type}, which could not be opened on this host: ${side.failure}`,
        };
  }

  setForward(key: LeaseKey, type: string | undefined, part: PeerPart | undefined): void {
    for (const [name, { forwarding }] of this.#sides)
      forwarding?.setPeer(key, name === type ? part?.forward : undefined);
  }

  publish(): void {
    for (const { forwarding } of this.#sides.values()) forwarding?.publish();
  }

  /** That of the open one that has a forwarder, as only one backend has. */
  get forwarder(): Forwarder | undefined {
    return [...this.#sides.values()].find(({ isOpen, forwarder }) => isOpen && forwarder !== undefined)?.forwarder;
  }

  /** What the open ones need of the host. */
  hostStates(own: Lease): WantedState[] {
    return [...this.#sides.values()].flatMap(({ isOpen, backend }) =>
      isOpen && backend ? backend.host(own).kernel : [],
    );
  }

  /** Of these links, which belong to others or to earlier runs, those that no side needs; and what closed sides have left. */
  unneeded(links: readonly OwnLink[], tuns: readonly string[]): readonly OwnLink[] {
    const needed = new Set(
      [...this.#sides.values()].flatMap(({ configured: { kind, config } }) =>
        kind.owns(config, tuns).map(({ name }) => name),
      ),
    );
    const left = new Map(links.map((link) => [link.name, link]));
    for (const { link, type } of this.#links.values()) {
      if (this.#sides.has(type)) needed.add(link.name);
      else left.set(link.name, link);
    }
    return [...left.values()].filter(({ name }) => !needed.has(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const side of this.#sides.values()) this.#close(side);
    await Promise.all(this.#closing);
  }

  #open(what: Pick<Side, 'type' | 'configured' | 'own' | 'external' | 'basis'>): void {
    const side: Side = {
      ...{ ...what, stop: new AbortController(), opening: Promise.resolve() },
      ...{ backend: undefined, forwarder: undefined, forwarding: undefined, isOpen: false, failure: undefined },
    };
    this.#sides.set(side.type, side);
    side.opening = this.#keepOpening(side);
  }

  async #keepOpening(side: Side): Promise<void> {
    const { signal } = side.stop;
    // One before it may still have the device and the port.
    await Promise.all(this.#closing);
    while (!signal.aborted) {
      try {
        await this.#tryOpen(side);
        return;
      } catch (error) {
        if (signal.aborted) return;
        const failure = describeError(error);
        if (failure !== side.failure) {
          side.failure = failure;
          this.#parts.log.error(`Cannot reach peers with the backend ${side.configured.kind.type}: ${failure}`);
          this.#parts.onChanged();
        }
        await side.forwarder?.[Symbol.asyncDispose]();
        side.forwarder = undefined;
        await delay(RETRY_MS, undefined, { signal, ref: false }).catch(() => {});
      }
    }
  }

  async #tryOpen(side: Side): Promise<void> {
    const { type, configured, own, external } = side;
    const { config, identify, slots, onChanged } = this.#parts;
    const { signal } = side.stop;
    const setup = await identify(configured, signal);
    const backend = openBackend(setup, config, external);
    side.backend = backend;
    const { kernel, forwarder: part } = backend.host(own);
    if (part !== undefined) {
      const forwarder = this.#parts.forwarder(() => backend);
      side.forwarder = forwarder;
      forwarder.prepare();
      await forwarder.start(part.addresses, signal);
      side.forwarding = new ForwardingTable(slots, forwarder);
      side.forwarding.set(part.table);
    }
    signal.throwIfAborted();
    for (const link of kernel.links) {
      if (link.kind !== 'external') this.#links.set(link.name, { link: { name: link.name, kind: link.kind }, type });
    }
    side.isOpen = true;
    onChanged();
  }

  #close(side: Side): void {
    this.#sides.delete(side.type);
    side.stop.abort(new Error('no peer needs it'));
    const closing = side.opening
      .then(() => side.forwarder?.[Symbol.asyncDispose]())
      .catch((error: unknown) => this.#parts.log.error(describeError(error)))
      .finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }
}
