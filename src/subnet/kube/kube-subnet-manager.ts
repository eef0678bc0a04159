import { assertNever } from '../../assert-never.ts';
import type { BackendLookup } from '../../config/backend-config.ts';
import type { NetworkConfig } from '../../config/network-config.ts';
import type { NodeAddresses } from '../../config/node-addresses.ts';
import { WeftError } from '../../errors.ts';
import type { NodeEvent } from '../../events/node-event.ts';
import { FAMILIES, type PerFamily, perFamily } from '../../ip/family.ts';
import type { Lease, LeaseAttrs } from '../../lease/lease.ts';
import { Backoff, sleep } from '../backoff.ts';
import { asError } from '../outage.ts';
import { type ReportSeverity, type ReportSink, shown } from '../report.ts';
import type { LeaseUpdate, OwnLeaseEvent, SubnetManager, WatchOptions } from '../subnet-manager.ts';
import type { AnnotationKeys } from './annotations.ts';
import { ApiStatusError, type KubeApi } from './kube-api.ts';
import { LeaseFeed } from './lease-feed.ts';
import { readNetConf } from './net-conf-file.ts';
import { EVENTS_PATH, nodeEventName, nodeEventObject, nodeEventPatch } from './node-event-object.ts';
import { hasSubnets, nodeOrigin, ownSubnets, subnetsLike } from './node-lease.ts';
import {
  annotationChanges,
  annotationPatch,
  networkAvailablePatch,
  networkUnavailablePatch,
  type Overwrites,
  readOverwrites,
  STRATEGIC_MERGE_PATCH,
} from './node-patch.ts';
import { type NodeRecord, nodeRecord } from './node-record.ts';
import { NodeStore } from './node-store.ts';
import type { ReflectorTiming } from './reflector.ts';
import { REFUSAL_RETRY, type RefusalRetry, refused, retryRefused } from './retry.ts';

export interface KubeSubnetManagerOptions {
  /** Disposed of together with the manager. */
  readonly api: KubeApi;
  readonly nodeName: string;
  readonly annotations: AnnotationKeys;
  /** net-conf.json. */
  readonly netConfPath: string;
  readonly backends: BackendLookup;
  /** `--set-node-network-unavailable`. */
  readonly setNodeNetworkUnavailable: boolean;
  /** `--require-node-address`: the addresses of all nodes are kept, for the gate to compare. */
  readonly requireNodeAddress?: boolean;
  /** EVENT_QUEUE_DEPTH: so many changes may wait for a consumer of `watchLeases` before it gets a snapshot instead. */
  readonly eventQueueDepth?: number;
  readonly report?: ReportSink;
  readonly timing?: Partial<KubeTiming>;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export interface KubeTiming {
  readonly reflector: Partial<ReflectorTiming>;
  readonly refusal: RefusalRetry;
  /** How often a node that is not ready to have a lease is read again, and how often that is logged. */
  readonly nodePollMs: number;
  readonly nodeLogMs: number;
}

export const DEFAULT_EVENT_QUEUE_DEPTH = 5_000;
const TIMING: KubeTiming = { reflector: {}, refusal: REFUSAL_RETRY, nodePollMs: 3_000, nodeLogMs: 60_000 };
/** Between repairs of the own annotations, so that two agents that claim one node do not fight at full speed. */
const REPAIR = { firstMs: 100, maxMs: 60_000 };
const REPAIR_CALM_MS = 300_000;
/** A new node gets its pod CIDR within seconds; one that waits longer says so in its condition as well. */
const LOOKS_BEFORE_CONDITION = 4;
/** What is attempted, for the log. */
const SETTING_CONDITION = 'Error setting the node condition NetworkUnavailable';

/**
 * Leases as annotations of Node objects; the subnets themselves are given out by Kubernetes (spec.podCIDRs). Needs `get`,
 * `list` and `watch` on nodes and `patch` on nodes/status.
 *
 * Against flannel's, which peers cannot tell from it: a change of either family or of a pod CIDR is seen; a node without
 * pod CIDR, or not registered yet, is waited for; the own annotations and condition are put back when the Node object was
 * deleted and made again; a watch never ends for good; a peer that cannot be read keeps the lease it had.
 */
export class KubeSubnetManager implements SubnetManager {
  readonly name: string;
  readonly nodeName: string;
  readonly #options: KubeSubnetManagerOptions;
  readonly #api: KubeApi;
  readonly #keys: AnnotationKeys;
  readonly #report: ReportSink;
  readonly #timing: KubeTiming;
  readonly #closing = new AbortController();
  readonly #nodes: NodeStore;
  /** The uid of the Node object on which `completeLease` has set the condition. */
  #completedUid: string | undefined;
  #lastOverwrites: Overwrites | undefined;
  /** What was said of them last. */
  #overwriteProblem = '';
  /** Whether the backend looks at no other node, so that a watch is not needed. */
  #ignoresPeers = false;

  /** Sends nothing yet. */
  constructor(options: KubeSubnetManagerOptions) {
    this.name = `Kubernetes Subnet Manager - ${options.nodeName}`;
    this.nodeName = options.nodeName;
    this.#options = options;
    this.#api = options.api;
    this.#keys = options.annotations;
    this.#report = options.report ?? (() => {});
    this.#timing = { ...TIMING, ...options.timing };
    this.#nodes = new NodeStore({
      api: options.api,
      annotations: options.annotations,
      ownName: options.nodeName,
      addresses: options.requireNodeAddress ?? false,
      report: this.#report,
      timing: this.#timing.reflector,
      signal: this.#closing.signal,
    });
  }

  async networkConfig(signal: AbortSignal): Promise<NetworkConfig> {
    return readNetConf(this.#options.netConfPath, this.#options.backends, signal);
  }

  /**
   * Resolves once all nodes were read. @throws WeftError WEFT_STORE_UNAVAILABLE after `timeoutMs`; the manager goes on
   * trying, so that one may also go on without.
   */
  async waitForSync(timeoutMs: number, signal: AbortSignal): Promise<void> {
    const scope = this.#scope(signal);
    const deadline = AbortSignal.timeout(timeoutMs);
    try {
      await this.#nodes.synced(AbortSignal.any([scope, deadline]));
    } catch (error) {
      scope.throwIfAborted();
      if (!deadline.aborted) throw error;
      const last = this.#nodes.lastError;
      throw new WeftError(
        'WEFT_STORE_UNAVAILABLE',
        `error waiting for nodeController to sync state: ${last?.message ?? 'timed out waiting for the condition'}`,
        {
          hint: `Check that ${this.#api.server} is the API server, that this host reaches it, and that the account may list nodes. With CONT_WHEN_CACHE_NOT_READY=true the agent continues without it.`,
          cause: last,
        },
      );
    }
  }

  /** The annotations and addresses of the own Node that bear on the choice of the interface. Waits for the Node. */
  async nodeAddresses(signal: AbortSignal): Promise<NodeAddresses> {
    const node = await this.#existingOwnNode(this.#scope(signal), {});
    return {
      publicAddresses: perFamily((family) => node.own?.nodePublicAddresses[family] || undefined),
      internalIps: node.own?.internalIps ?? [],
    };
  }

  /**
   * The backend data that this node published in an earlier run, so that a device that is made again keeps its MAC
   * address. @returns the JSON texts of the annotations, as they are.
   */
  async storedBackendData(signal: AbortSignal): Promise<PerFamily<string | undefined>> {
    const node = await this.#existingOwnNode(this.#scope(signal), {});
    return node.backendData;
  }

  /**
   * Publishes `attrs` as annotations of the own Node. Waits, with a log line a minute, for a Node object and for a pod
   * CIDR. The lease keeps `attrs` as given: an address that a `public-ip-overwrite` annotation replaces is replaced for
   * the peers alone.
   *
   * @throws WeftError WEFT_KUBE_NODE when the pod CIDR does not fit `config`, WEFT_KUBE_REFUSED when the API server
   * refuses for 30 s.
   */
  async acquireLease(config: NetworkConfig, attrs: LeaseAttrs, signal: AbortSignal): Promise<Lease> {
    const scope = this.#scope(signal);
    this.#ignoresPeers = config.backend.ignoresPeers;
    const query: Record<string, string> = this.#ignoresPeers ? { resourceVersion: '0' } : {};
    let loggedAt = Number.NEGATIVE_INFINITY;
    for (let looks = 1; ; looks++) {
      const node = await this.#existingOwnNode(scope, query);
      const subnets = ownSubnets(node, config);
      if (subnets === undefined) {
        const why = `node "${node.name}" pod cidr not assigned; waiting for it. kube-controller-manager assigns it when it runs with --allocate-node-cidrs=true and a --cluster-cidr that has room (kubeadm: networking.podSubnet)`;
        if (performance.now() - loggedAt >= this.#timing.nodeLogMs) {
          loggedAt = performance.now();
          this.#note('warning', why);
        }
        if (looks === LOOKS_BEFORE_CONDITION) await this.#tryReportUnavailable('FlannelNoPodCidr', why, scope);
        await this.#pause(scope);
        continue;
      }
      if (await this.#publish(node, attrs, scope)) {
        return { subnets, attrs, expiresAtMs: undefined, origin: nodeOrigin(node) };
      }
    }
  }

  /**
   * A lease lasts as long as its Node. Told are outages of the API server and their end, and `lost` when the Node was
   * made again with another pod CIDR. Annotations that somebody changed or removed are written again.
   */
  async *holdLease(lease: Lease, signal: AbortSignal): AsyncGenerator<OwnLeaseEvent, void, void> {
    const scope = this.#scope(signal);
    const repairs = new Backoff(REPAIR);
    let repairedAt = Number.NEGATIVE_INFINITY;
    try {
      if (this.#ignoresPeers) await aborted(scope);
      for await (const news of this.#nodes.ownNews(scope)) {
        switch (news.type) {
          case 'unavailable':
            yield { type: 'store-unavailable', error: news.error };
            continue;
          case 'available':
            yield { type: 'renewed', lease };
            continue;
          case 'node':
            break;
          default:
            assertNever(news, 'news of the own node');
        }
        while (!this.#isRight(lease, this.#nodes.own)) {
          // What was watched may be older than what we wrote a moment ago: let the watch catch up, then ask.
          if (performance.now() - repairedAt > REPAIR_CALM_MS) repairs.reset();
          const waitMs = repairs.nextMs();
          await sleep(waitMs, scope);
          repairedAt = performance.now();
          if (this.#isRight(lease, this.#nodes.own)) break;
          try {
            const outcome = await this.#repair(lease, scope);
            if (outcome === 'written') yield { type: 'renewed', lease };
            if (outcome === 'right' || outcome === 'written') break;
            yield { type: 'lost', reason: outcome.lost };
            return;
          } catch (error) {
            if (scope.aborted) throw error;
            // Rights are taken away and given back while we run, a plugin for credentials fails: packets go on meanwhile.
            this.#report({
              type: 'store-failed',
              failure: 'Error keeping the annotations',
              error: asError(error),
              retryInMs: waitMs * 2,
            });
          }
        }
      }
    } catch (error) {
      if (!scope.aborted) throw error;
    }
  }

  /** Asks for the own Node as it is now, waiting until there is one, and puts right what is not as `lease` wants it. */
  async #repair(lease: Lease, signal: AbortSignal): Promise<'right' | 'written' | { readonly lost: string }> {
    if (this.#nodes.own === undefined) {
      this.#note('warning', `node "${this.nodeName}" is gone from the API; keeping its subnet meanwhile`);
    }
    for (;;) {
      const node = await this.#existingOwnNode(signal, {});
      const subnets = subnetsLike(lease, node);
      if (subnets === undefined) {
        // Made again a moment ago, and still without a pod CIDR.
        await this.#pause(signal);
        continue;
      }
      if (!hasSubnets(lease, subnets)) {
        return { lost: `the pod CIDR of node "${node.name}" is ${node.podCidrs.join(', ')} now` };
      }
      const fits = this.#fits(lease, node);
      if (!fits && !(await this.#publish(node, lease.attrs, signal))) continue;
      if (!fits) this.#report({ type: 'lease-retaken', lease });
      if (!this.#isCompleted(node)) await this.completeLease(lease, signal);
      return fits ? 'right' : 'written';
    }
  }

  async *watchLeases(
    config: NetworkConfig,
    signal: AbortSignal,
    { backendData = true }: WatchOptions = {},
  ): AsyncGenerator<LeaseUpdate, void, void> {
    const scope = this.#scope(signal);
    if (scope.aborted) return;
    const feed = new LeaseFeed({
      config,
      annotations: this.#keys,
      depth: this.#options.eventQueueDepth ?? DEFAULT_EVENT_QUEUE_DEPTH,
      backendData,
      report: this.#report,
    });
    const end = () => feed.end();
    scope.addEventListener('abort', end, { once: true });
    // alloc carries no packets: flannel does not look at other nodes then, and neither need we.
    const detach = config.backend.ignoresPeers ? undefined : this.#nodes.attach(feed);
    if (detach === undefined) feed.replaced([], new Set());
    try {
      yield* feed.updates();
    } finally {
      detach?.();
      scope.removeEventListener('abort', end);
    }
  }

  /** Sets the condition NetworkUnavailable=False, unless told not to. @throws WeftError WEFT_KUBE_REFUSED. */
  async completeLease(_lease: Lease, signal: AbortSignal): Promise<void> {
    const scope = this.#scope(signal);
    scope.throwIfAborted();
    if (!this.#options.setNodeNetworkUnavailable) return;
    const node = await this.#patchStatus(SETTING_CONDITION, networkAvailablePatch(this.#now()), scope);
    this.#completedUid = node?.uid;
  }

  /**
   * Sets the condition NetworkUnavailable=True with `reason` (one CamelCase word) and `message`, unless told not to touch
   * it; the next `completeLease` takes it back. @throws WeftError WEFT_KUBE_REFUSED.
   */
  async reportUnavailable(reason: string, message: string, signal: AbortSignal): Promise<void> {
    const scope = this.#scope(signal);
    scope.throwIfAborted();
    if (!this.#options.setNodeNetworkUnavailable) return;
    await this.#patchStatus(SETTING_CONDITION, networkUnavailablePatch(this.#now(), reason, message), scope);
  }

  /**
   * Writes an event of the own Node, or its new count. Once: whoever tells events tries again. @returns `refused` for a 403.
   * @throws ApiStatusError, ApiConnectionError.
   */
  async tellEvent(event: NodeEvent, signal: AbortSignal): Promise<'told' | 'refused'> {
    const scope = this.#scope(signal);
    scope.throwIfAborted();
    const name = nodeEventName(this.nodeName, event);
    const create = (): Promise<unknown> =>
      this.#sendEvent('POST', EVENTS_PATH, nodeEventObject(this.nodeName, event), scope);
    try {
      if (event.count === 1) await create();
      // The API server forgets events after an hour.
      else
        await this.#sendEvent('PATCH', `${EVENTS_PATH}/${name}`, nodeEventPatch(event), scope).catch(
          (error: unknown) => {
            if (hasStatus(error, 404)) return create();
            throw error;
          },
        );
    } catch (error) {
      if (hasStatus(error, 403)) return 'refused';
      // The answer to an earlier try was lost.
      if (!hasStatus(error, 409)) throw error;
    }
    return 'told';
  }

  #sendEvent(method: 'POST' | 'PATCH', path: string, value: object, signal: AbortSignal): Promise<unknown> {
    const contentType = method === 'POST' ? 'application/json' : STRATEGIC_MERGE_PATCH;
    return this.#api.json({ method, path, body: { contentType, text: JSON.stringify(value) } }, signal);
  }

  /** Once, and in vain perhaps: the log has it too. */
  async #tryReportUnavailable(reason: string, message: string, signal: AbortSignal): Promise<void> {
    if (!this.#options.setNodeNetworkUnavailable) return;
    const text = networkUnavailablePatch(this.#now(), reason, message);
    await this.#patchStatusOnce(text, signal).catch(() => signal.throwIfAborted());
  }

  #now(): Date {
    return new Date((this.#options.now ?? Date.now)());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error('the subnet manager was disposed of'));
    await this.#nodes.ended();
    this.#api[Symbol.dispose]();
  }

  #scope(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, this.#closing.signal]);
  }

  #note(severity: ReportSeverity, text: string): void {
    this.#report({ type: 'note', severity, text });
  }

  /** Reads the own Node, waiting until there is one. */
  async #existingOwnNode(signal: AbortSignal, query: Record<string, string>): Promise<NodeRecord> {
    const get = () => this.#api.json({ method: 'GET', path: this.#nodePath, query }, signal);
    let loggedAt = Number.NEGATIVE_INFINITY;
    for (;;) {
      try {
        const failure = `Error reading node "${this.nodeName}"`;
        return this.#record(await retryRefused(failure, get, this.#report, signal, this.#timing.refusal));
      } catch (error) {
        if (!(error instanceof ApiStatusError)) throw error;
        if (error.status !== 404) throw this.#giveUp(error);
        if (performance.now() - loggedAt >= this.#timing.nodeLogMs) {
          loggedAt = performance.now();
          this.#note(
            'warning',
            `node "${this.nodeName}" does not exist; waiting for it. Its kubelet has not registered it yet, or NODE_NAME is not the name under which it does`,
          );
        }
        await this.#pause(signal);
      }
    }
  }

  #giveUp(error: ApiStatusError): WeftError {
    return refused(
      `timeout contacting kube-api, failed to patch node "${this.nodeName}". Error: ${error.message}`,
      error,
    );
  }

  async #pause(signal: AbortSignal): Promise<void> {
    await sleep(this.#timing.nodePollMs, signal);
  }

  /** False when the Node object has gone meanwhile. */
  async #publish(node: NodeRecord, attrs: LeaseAttrs, signal: AbortSignal): Promise<boolean> {
    const overwrites = this.#overwrites(node);
    const changes = annotationChanges(node, attrs, this.#keys, overwrites);
    if (Object.keys(changes).length === 0) return true;
    const { publicAddresses, publicOverwrites } = this.#keys;
    for (const { key: family } of FAMILIES) {
      const value = overwrites[family];
      if (value !== undefined && changes[publicAddresses[family]] === value) {
        this.#note('info', `Overriding public ip with '${value}' from node annotation '${publicOverwrites[family]}'`);
      }
    }
    return (
      (await this.#patchStatus(`Error annotating node "${node.name}"`, annotationPatch(changes), signal)) !== undefined
    );
  }

  /** `undefined` when there is no such Node. */
  async #patchStatus(failure: string, text: string, signal: AbortSignal): Promise<NodeRecord | undefined> {
    const patch = () => this.#patchStatusOnce(text, signal);
    try {
      return this.#record(await retryRefused(failure, patch, this.#report, signal, this.#timing.refusal));
    } catch (error) {
      if (!(error instanceof ApiStatusError)) throw error;
      if (error.status === 404) return undefined;
      throw this.#giveUp(error);
    }
  }

  /** @throws ApiStatusError, ApiConnectionError. */
  #patchStatusOnce(text: string, signal: AbortSignal): Promise<unknown> {
    const body = { contentType: STRATEGIC_MERGE_PATCH, text };
    return this.#api.json({ method: 'PATCH', path: `${this.#nodePath}/status`, body }, signal);
  }

  get #nodePath(): string {
    return `/api/v1/nodes/${encodeURIComponent(this.nodeName)}`;
  }

  /** What the user asks for on the own Node; one that cannot be used is refused, with its name and value, once. */
  #overwrites(node: NodeRecord): Overwrites {
    const { overwrites, problems } = readOverwrites(node, this.#lastOverwrites, this.#keys);
    this.#lastOverwrites = overwrites;
    const text = problems
      .map(({ key, value, kept }) => {
        const instead = kept === undefined ? 'the address of the interface is published' : `${kept} stays published`;
        return `the node annotation ${key}=${shown(value)} is refused: it is no unicast address, so no peer could reach this node; ${instead}. Correct it, or remove it`;
      })
      .join('; ');
    if (text !== '' && text !== this.#overwriteProblem) this.#note('error', text);
    this.#overwriteProblem = text;
    return overwrites;
  }

  #record(object: unknown): NodeRecord {
    return nodeRecord(object, this.#keys, this.nodeName);
  }

  #isRight(lease: Lease, node: NodeRecord | undefined): boolean {
    return this.#fits(lease, node) && this.#isCompleted(node);
  }

  /** Whether the Node says of itself what the lease wants said. A Node that is still without a pod CIDR does not. */
  #fits(lease: Lease, node: NodeRecord | undefined): boolean {
    const subnets = node && subnetsLike(lease, node);
    return (
      node !== undefined &&
      subnets !== undefined &&
      hasSubnets(lease, subnets) &&
      Object.keys(annotationChanges(node, lease.attrs, this.#keys, this.#overwrites(node))).length === 0
    );
  }

  /** False when the Node was made again after `completeLease`, and so has lost its condition. */
  #isCompleted(node: NodeRecord | undefined): boolean {
    return node === undefined || this.#completedUid === undefined || this.#completedUid === node.uid;
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

function hasStatus(error: unknown, status: number): boolean {
  return error instanceof ApiStatusError && error.status === status;
}
