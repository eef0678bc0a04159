import { setTimeout as delay } from 'node:timers/promises';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { describeError, WeftError } from '../errors.ts';
import type { RecordEvent } from '../events/event.ts';
import type { IpAddr } from '../ip/address.ts';
import { type Lease, leaseKey } from '../lease/lease.ts';
import type { LeaseTable } from '../lease/lease-table.ts';
import type { Log } from '../log/log.ts';
import { previousSubnets, readSubnetFile } from '../node-files/subnet-file.ts';
import { addressesOfHost } from '../underlay/keep-interface.ts';
import type { AgentFigures } from './agent-figures.ts';
import { aborted } from './carry-on.ts';
import type { NodeCniConf } from './cni-conf.ts';
import type { CurrentLeases } from './current-leases.ts';
import { failingAs } from './failing-as.ts';
import { gateRules } from './gate-rules.ts';
import type { HandOver } from './hand-over.ts';
import type { LastKnownKeeper } from './last-known-keeper.ts';
import { LeaseSession } from './lease-session.ts';
import type { MemoryRelease } from './memory-release.ts';
import { NodeCondition } from './node-condition.ts';
import type { NodePlane } from './node-plane.ts';
import type { OwnNode } from './own-node.ts';
import type { AgentHost, ServiceManager } from './ports.ts';
import type { NodeReadiness, Part } from './readiness.ts';
import type { StartupFailures } from './startup-failures.ts';
import type { StoreAnswer } from './store-connection.ts';
import { describeStore } from './store-name.ts';
import type { SubnetEnvKeeper } from './subnet-env-keeper.ts';

/** subnet.env waits this long for the first list of peers; a store that is that slow must not keep pods from starting. */
const FIRST_PEERS_MS = 10_000;
/** How often a start that waits for its keepers looks at them. */
const LOOK_MS = 200;

export interface LeaseHolderParts {
  readonly host: Pick<AgentHost, 'readNetwork'>;
  readonly options: FlanneldOptions;
  readonly leases: CurrentLeases;
  readonly node: OwnNode;
  readonly handOver: HandOver;
  readonly readiness: NodeReadiness;
  readonly failures: StartupFailures;
  readonly figures: AgentFigures;
  readonly memory: MemoryRelease;
  readonly lastKnown: LastKnownKeeper;
  readonly subnetEnv: SubnetEnvKeeper;
  readonly cniConf: NodeCniConf;
  readonly record: RecordEvent;
  readonly log: Log;
}

/** Acquires a lease, has packets carried for it, says that the node is ready, and holds it: again each time it is called. */
export class LeaseHolder {
  readonly #parts: LeaseHolderParts;
  #hasBeenReady = false;
  #isBetweenSessions = false;

  constructor(parts: LeaseHolderParts) {
    this.#parts = parts;
  }

  /** Whether the node has been ready once. */
  get hasBeenReady(): boolean {
    return this.#hasBeenReady;
  }

  /** A session has failed, and the next one is still to come: the lease is held and packets flow, so the node stays ready. */
  get isBetweenSessions(): boolean {
    return this.#isBetweenSessions;
  }

  /** The next session publishes something else for the same lease. */
  publishAnew(): void {
    this.#isBetweenSessions = this.#hasBeenReady && this.#parts.leases.held !== undefined;
  }

  /**
   * Returns when the lease is lost or `turn` fires.
   * @throws WeftError of the subnet manager, the forwarder, the kernel or the rules.
   */
  async hold(answer: StoreAnswer, plane: NodePlane, notifier: ServiceManager, turn: AbortSignal): Promise<void> {
    const { host, options, leases, handOver, readiness, failures, figures, memory, log } = this.#parts;
    const { manager, config } = answer;
    const carrying = new AbortController();
    // Packets do not wait for the store, which may be away while the interface changes, nor the store for them: the peers
    // need to learn the new address.
    const carried = this.#carryOwn(plane, turn).catch((error: unknown) => {
      carrying.abort(error);
      throw error;
    });
    carried.catch(() => {}); // told by the signal
    if (!this.#isBetweenSessions) readiness.waiting('waiting for a subnet lease');
    this.#isBetweenSessions = false;
    const subnetFile = await readSubnetFile(options.subnetFile, turn);
    const previous = previousSubnets(subnetFile, options.subnetFile, config, log);
    const hostAddresses = addressesOfHost(await host.readNetwork(turn));
    const own = await failingAs('Error registering network: failed to acquire lease: ', () =>
      manager.acquireLease(config, plane.backend.attrs, AbortSignal.any([turn, carrying.signal]), {
        ...(previous === undefined ? {} : { previous }),
        held: leases.held,
        hostAddresses,
      }),
    ).catch(async (error: unknown) => {
      await carried;
      throw error;
    });
    await carried;
    if (leases.own !== undefined && leaseKey(own) !== leaseKey(leases.own)) {
      this.#noteLost(leases.own, `it was no longer available, and ${leaseKey(own)} was assigned instead`);
    }
    leases.acquired(own);
    const { peers } = leases;
    await plane.start(own, peers, turn);
    await using session = this.#session(answer, plane, own, peers, hostAddresses);
    if (peers.length > 0) void handOver.carries();
    figures.session = session;
    using _watched = readiness.watch('lease', session);
    const ended = aborted(turn);
    await plane.settle(own, subnetFile.kind === 'read' ? subnetFile.reading : undefined, turn);
    await using _condition = new NodeCondition({
      ...{ readiness, report: answer.reportFailure, log },
      clear: (signal) => manager.completeLease(own, signal),
    });
    // Whatever is in the way may go away by itself, or by somebody who reads what is in the way.
    await this.#untilInPlace(['forwarder', 'kernel', 'rules'], turn);
    await Promise.race([session.peersKnown, delay(FIRST_PEERS_MS, undefined, { ref: false }), ended]).catch(() => {});
    if (turn.aborted) return;
    await handOver.carries();
    handOver.settled();
    await this.#publish(plane, own, turn);
    readiness.started();
    failures.ready();
    log.info('flannel is ready');
    memory.afterBurst();
    if (!this.#hasBeenReady) log.info('Running backend.');
    this.#hasBeenReady = true;
    notifier.ready();
    manager.completeLease(own, turn).catch((error: unknown) => {
      if (!turn.aborted) log.error(`CompleteLease execute error err: ${describeError(error)}`);
    });
    const end = await Promise.race([session.ended, ended]);
    if (end === undefined) return;
    if (end.type === 'failed') {
      this.#isBetweenSessions = true;
      throw end.error;
    }
    this.#noteLost(own, end.reason);
    leases.lost();
  }

  async #carryOwn(plane: NodePlane, turn: AbortSignal): Promise<void> {
    const { own, peers } = this.#parts.leases;
    if (own === undefined) return;
    await plane.start(own, peers, turn);
    plane.program(own, this.#parts.leases.peers);
  }

  #session(
    { manager, config }: StoreAnswer,
    plane: NodePlane,
    own: Lease,
    peers: readonly Lease[],
    hostAddresses: readonly IpAddr[],
  ): LeaseSession {
    const { options, leases, node, figures, memory, lastKnown, record, log } = this.#parts;
    const parts = {
      ...{ log, record, rules: gateRules(options, plane, hostAddresses), plane, manager },
      onUpdate: (type: string) => {
        figures.countLeaseUpdate(type);
        if (type === 'snapshot') memory.afterBurst();
      },
      onKnown: (lease: Lease, table: LeaseTable) => {
        leases.knowPeers(() => table.peers);
        const [source, addresses] = [describeStore(options), node.addresses];
        lastKnown.keep(() => {
          return { source, config, node: addresses, external: plane.external, own: lease, peers: table.peers };
        });
      },
    };
    return new LeaseSession(parts, own, peers);
  }

  /** Waits until none of these parts fails; each keeper tries again by itself. Says what it waits for. */
  async #untilInPlace(parts: readonly Part[], signal: AbortSignal): Promise<void> {
    const { readiness, failures, log } = this.#parts;
    for (let last = ''; ; ) {
      const failing = readiness.failing().find(({ part }) => parts.includes(part));
      if (failing === undefined) return;
      const { reason } = failing;
      if (reason !== last) log.error(`Not ready yet: ${reason}`);
      last = reason;
      readiness.waiting(reason);
      failures.waiting(reason);
      await delay(LOOK_MS, undefined, { signal });
    }
  }

  /** Writes subnet.env and the CNI configuration; while the first cannot be written the node is not ready. */
  async #publish(plane: NodePlane, lease: Lease, signal: AbortSignal): Promise<void> {
    const { options, subnetEnv, cniConf } = this.#parts;
    subnetEnv.set({
      config: plane.config,
      subnets: lease.subnets,
      mtuBytes: plane.backend.mtuBytes,
      ipMasq: options.ipMasq,
    });
    await subnetEnv.settled(signal).catch(() => signal.throwIfAborted());
    await this.#untilInPlace(['subnet-env'], signal);
    await cniConf.publish();
  }

  #noteLost(own: Lease, reason: string): void {
    const { record, log } = this.#parts;
    const lost = new WeftError('WEFT_LEASE_LOST', `the lease of ${leaseKey(own)} has been lost: ${reason}`, {
      hint: 'Containers with addresses in that subnet are cut off and must be restarted. The agent now takes a new subnet.',
    });
    log.error(describeError(lost));
    const subject = leaseKey(own).replaceAll('-', '/');
    record({ kind: 'lease-lost', severity: 'error', subject, text: describeError(lost), cause: reason });
  }
}
