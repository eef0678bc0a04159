import { setTimeout as delay } from 'node:timers/promises';
import { ownTuns } from '../backend/tun-name.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { networksOf } from '../config/network-config.ts';
import { describeError, WeftError } from '../errors.ts';
import { leaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import type { LastKnown } from '../node-files/last-known.ts';
import { addressesOfHost } from '../underlay/keep-interface.ts';
import { carryOn } from './carry-on.ts';
import type { CurrentLeases } from './current-leases.ts';
import type { EarlierRun } from './earlier-run.ts';
import { gateRules } from './gate-rules.ts';
import type { HandOver } from './hand-over.ts';
import { endParts, type NodeParts, type NodePartsMaker } from './node-parts.ts';
import type { NodePlane } from './node-plane.ts';
import type { OwnNode } from './own-node.ts';
import type { AgentHost } from './ports.ts';
import type { NodeReadiness } from './readiness.ts';
import type { StoreAnswer, StoreConnection } from './store-connection.ts';
import type { StoreReports } from './store-reports.ts';
import { checkBridge } from './traffic.ts';

/**
 * A store that takes longer, or that could not be reached once, is away, and an agent that knows enough from an earlier run
 * carries packets without it.
 */
const STORE_PATIENCE_MS = 1_000;

export interface StartUpParts {
  readonly host: Pick<AgentHost, 'identity' | 'readText'>;
  readonly options: FlanneldOptions;
  readonly earlier: EarlierRun;
  readonly node: OwnNode;
  readonly leases: CurrentLeases;
  readonly maker: NodePartsMaker;
  readonly reports: StoreReports;
  readonly handOver: HandOver;
  readonly readiness: NodeReadiness;
  readonly log: Log;
}

/**
 * From the start of the process to parts that can carry packets for what the store says: first with what an earlier run knew, so
 * that packets do not wait for the store.
 */
export class StartUp {
  readonly #parts: StartUpParts;
  readonly #signal: AbortSignal;

  constructor(parts: StartUpParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  /**
   * Carries again what comes through the TUN device that an earlier run has left, for the peers that it knew, before the store is
   * even asked: kernel and rules are still as it made them. Resolves, without waiting for the packet workers, to what waits for
   * them; that resolves to `undefined` when nothing can be carried yet, which is tried again where it has to succeed.
   */
  async resume(): Promise<Promise<NodeParts | undefined>> {
    const { host, earlier, node, leases, maker, log } = this.#parts;
    const nothing = Promise.resolve(undefined);
    const known = await earlier.read();
    if (known === undefined) return nothing;
    const tuns = await host.identity.tunDevices(this.#signal);
    if (ownTuns(tuns, networksOf(known.config)).length === 0) return nothing;
    node.addresses = known.node;
    let parts: NodeParts | undefined;
    const failed = async (error: unknown): Promise<undefined> => {
      await endParts(parts);
      this.#signal.throwIfAborted();
      log.warn(
        `Could not carry packets for ${leaseKey(known.own)} before the lease is confirmed: ${describeError(error)}`,
      );
      leases.carry(undefined);
      return undefined;
    };
    try {
      parts = await maker.make(known.config, this.#signal);
      const believed = this.#believe(known, parts.plane);
      leases.carry(known.own);
      const started = parts.plane.start(known.own, believed.peers, this.#signal);
      const resumed = started.then(() => parts, failed);
      resumed.catch(() => {}); // told by the signal
      return resumed;
    } catch (error) {
      await failed(error);
      return nothing;
    }
  }

  /**
   * Carries packets with what an earlier run knew while the store does not answer; `undefined` when nothing is carried.
   * @param resumed what carries already.
   */
  async withoutStore(connection: StoreConnection, resumed: NodeParts | undefined): Promise<NodeParts | undefined> {
    const { earlier, node, leases, maker, reports, handOver, readiness, log } = this.#parts;
    const { known } = earlier;
    if (known === undefined) return undefined;
    if (await Promise.race([settlesWithin(connection.answered, STORE_PATIENCE_MS), reports.failed])) return resumed;
    const text = `the lease store has not answered yet; carrying packets of ${leaseKey(known.own)} to ${known.peers.length} peers, as known at ${earlier.writtenAt?.toISOString()}`;
    log.warn(text);
    leases.carry(known.own);
    readiness.waiting(text);
    connection.bePatient();
    node.addresses = known.node;
    let parts: NodeParts;
    try {
      parts = resumed ?? (await maker.make(known.config, this.#signal));
    } catch (error) {
      this.#signal.throwIfAborted();
      log.error(`Could not continue with the last known state of ${leaseKey(known.own)}: ${describeError(error)}`);
      leases.carry(undefined);
      return undefined;
    }
    const subnetEnv = await earlier.subnetEnv(this.#signal);
    const believed = this.#believe(known, parts.plane);
    const onCarrying = (): void => void handOver.carries();
    await carryOn(believed, { ...parts, earlier: subnetEnv, log, onCarrying }, connection.answered, this.#signal);
    return parts;
  }

  /**
   * All that can fail before a lease is taken.
   * @param carried what carries packets already.
   * @throws WeftError for what a person must mend.
   */
  async prepare(answer: StoreAnswer, carried: NodeParts | undefined): Promise<NodeParts> {
    const { host, options, earlier, node, leases, maker, log } = this.#parts;
    const { config } = answer;
    if (config.ipv4 === undefined && config.ipv6 === undefined) {
      throw new WeftError('WEFT_CONFIG_INVALID', 'none defined stack', {
        hint: 'Enable IPv4 or IPv6 in net-conf.json',
      });
    }
    await checkBridge(options, config, host.readText, log, this.#signal);
    const isSame = earlier.hadConfig(config);
    // Until the first list of leases comes, those of an earlier run are better than none.
    if (isSame) leases.knowPeers(() => earlier.known?.peers ?? []);
    if (isSame && carried !== undefined) {
      await node.refresh(this.#signal);
      await carried.watch.look();
      await carried.plane.prepare(this.#signal);
      return carried;
    }
    if (carried !== undefined) {
      log.warn('The network configuration differs from the one used until now');
      await endParts(carried);
      leases.carry(undefined);
    }
    await node.read(this.#signal);
    const parts = await maker.make(config, this.#signal);
    await parts.plane.prepare(this.#signal);
    return parts;
  }

  #believe(known: LastKnown, plane: NodePlane): LastKnown {
    const { options, earlier, maker } = this.#parts;
    return earlier.believe(known, gateRules(options, plane, addressesOfHost(maker.network)));
  }
}

async function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  const timer = new AbortController();
  try {
    const settled = promise.then(
      () => true,
      () => true,
    );
    return await Promise.race([settled, delay(ms, false, { signal: timer.signal })]);
  } finally {
    timer.abort();
  }
}
