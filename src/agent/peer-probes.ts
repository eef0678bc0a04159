import type { Backend, ExternalInterface, PeerPart } from '../backend/backend.ts';
import { describeError } from '../errors.ts';
import type { RecordEvent } from '../events/event.ts';
import { formatPrefix, nextAddr } from '../ip/address.ts';
import { FAMILIES } from '../ip/family.ts';
import type { Lease, LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import { FaultLog } from '../probe/fault-log.ts';
import type { ProbeIo, ProbeTarget } from '../probe/ports.ts';
import { IN_BACKGROUND } from '../probe/probe-kind.ts';
import type { PathResult } from '../probe/probe-path.ts';
import { type ProbePackets, Prober, type ProberOptions } from '../probe/prober.ts';
import { ticker } from '../ticker.ts';
import { pathEvent } from './path-event.ts';

/** With the answers of this host's kernel to as many probes of others, less than 20 packets a second. */
const PER_SECOND = 8;
/** In addition, when peers fall silent, which then neither answer nor ask. */
const CONFIRMING_PER_SECOND = 8;
/** More peers at a time could not be measured often enough. */
const MOST_WATCHED = 64;
/** How often the peers that packets are exchanged with are looked for, in a large cluster. */
const ACTIVE_EVERY_MS = 10_000;

/** What an agent needs to measure the ways to its peers. */
export interface ProbePort {
  /** @throws WeftError WEFT_SOCKET_FAILED, without CAP_NET_RAW. */
  readonly open: () => ProbeIo;
  readonly describeErrno: ProberOptions['describeErrno'];
}

export interface PeerProbesParts {
  /** `undefined`: --probe=off. */
  readonly port: ProbePort | undefined;
  /** Subnets of peers that packets are exchanged with; asked seldom. */
  readonly active: () => Iterable<string>;
  readonly record: RecordEvent;
  /** That a way has changed, which is not recorded because it does so too often. */
  readonly hint: () => void;
  readonly log: Pick<Log, 'info' | 'warn'>;
}

/** The background probes of an agent: to all peers that are reached by packets of this host, in both families. */
export class PeerProbes implements Disposable {
  readonly #parts: PeerProbesParts;
  readonly #targets = new Map<LeaseKey, readonly ProbeTarget[]>();
  #prober: Prober | undefined;
  #io: ProbeIo | undefined;
  #next: Disposable | undefined;
  #isTried = false;
  #activeAtMs = 0;
  #changes = 0;
  readonly #faults = new FaultLog(
    (change) => {
      this.#changes++;
      this.#parts.record(pathEvent(change));
    },
    () => {
      this.#changes++;
      this.#parts.hint();
    },
  );

  constructor(parts: PeerProbesParts) {
    this.#parts = parts;
  }

  /** Empty for a peer that is gone, or that no packets are sent to. */
  setPeer(key: LeaseKey, targets: readonly ProbeTarget[]): void {
    if (this.#parts.port === undefined) return;
    if (targets.length > 0) this.#open(this.#parts.port);
    const before = this.#targets.get(key) ?? [];
    for (const { id } of before) {
      if (targets.some((target) => target.id === id)) continue;
      this.#prober?.set(id, undefined);
      this.#faults.gone(id, performance.now());
    }
    for (const target of targets) this.#prober?.set(target.id, target);
    if (targets.length === 0) this.#targets.delete(key);
    else this.#targets.set(key, targets);
  }

  /** No peer is known any more. */
  clear(): void {
    for (const key of this.#targets.keys()) this.setPeer(key, []);
  }

  /** What is known of the peers that are looked at now, of which there are at most {@link MOST_WATCHED}. */
  results(): readonly PathResult[] {
    return this.#prober?.results(performance.now()) ?? [];
  }

  /** By the peer's subnet. */
  result(id: string): PathResult | undefined {
    return this.#prober?.result(id, performance.now());
  }

  /** Rises when a way to a peer breaks, or is well again: what was looked at before is old. */
  get changes(): number {
    return this.#changes;
  }

  /** Packets to and from a peer that were probes, of this host and of that one. */
  packets(id: string): ProbePackets {
    return this.#prober?.packets(id) ?? { tx: 0, rx: 0 };
  }

  /** Probes sent since the start; `undefined` while there are none. */
  get sent(): number | undefined {
    return this.#prober?.sent;
  }

  [Symbol.dispose](): void {
    this.#next?.[Symbol.dispose]();
    this.#io?.[Symbol.dispose]();
    this.#io = undefined;
    this.#prober = undefined;
  }

  #open({ open, describeErrno }: ProbePort): void {
    if (this.#isTried) return;
    // Once: what keeps it from being opened does not change while the process lives.
    this.#isTried = true;
    try {
      this.#io = open();
    } catch (error) {
      this.#parts.log.warn(`Background probes are off: ${describeError(error)}`);
      return;
    }
    const limits = { cadence: IN_BACKGROUND, perTurn: PER_SECOND, perSecond: PER_SECOND, watched: MOST_WATCHED };
    const confirming = { confirmingPerSecond: CONFIRMING_PER_SECOND };
    const faults = this.#faults;
    this.#prober = new Prober({ io: this.#io, describeErrno, faults, ...limits, ...confirming });
    this.#turnAt(this.#prober, performance.now() + IN_BACKGROUND.togetherMs);
  }

  #turnAt(prober: Prober, atMs: number): void {
    this.#next = ticker.once(atMs, () => {
      const nowMs = performance.now();
      if (this.#targets.size > MOST_WATCHED && nowMs >= this.#activeAtMs) {
        this.#activeAtMs = nowMs + ACTIVE_EVERY_MS;
        prober.setActive(this.#parts.active());
      }
      this.#turnAt(prober, prober.turn(nowMs));
    });
  }
}

/**
 * What to probe of a peer, in each family that packets are sent to it. Its end of the overlay has the first address of its
 * subnet where this host's has; else it is behind its bridge, which has the second.
 */
export function probeTargets(
  backend: Backend,
  own: Lease,
  external: ExternalInterface,
  peer: Lease,
  part: Pick<PeerPart, 'kernel' | 'forward'>,
): readonly ProbeTarget[] {
  const { addresses } = backend.host(own).kernel;
  return FAMILIES.flatMap(({ key }) => {
    const [ownSubnet, subnet] = [own.subnets[key], peer.subnets[key]];
    if (ownSubnet === undefined || subnet === undefined) return [];
    const isSent =
      part.forward?.subnets[key] !== undefined ||
      part.kernel.routes.some(({ type, dst }) => type === 'unicast' && dst.addr === subnet.addr);
    if (!isSent) return [];
    const hasDevice = addresses.some(({ addr }) => addr === ownSubnet.addr);
    return {
      id: formatPrefix(subnet),
      overlay: hasDevice ? subnet.addr : nextAddr(subnet.addr),
      underlay: peer.attrs.publicAddresses[key],
      mtuBytes: backend.mtuBytes,
      underlayMtuBytes: external.mtuBytes,
    };
  });
}
