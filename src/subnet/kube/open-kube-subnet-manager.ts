import type { BackendLookup } from '../../config/backend-config.ts';
import { describeError, WeftError } from '../../errors.ts';
import type { ReportSink } from '../report.ts';
import { annotationKeys } from './annotations.ts';
import { type KubeAccessOptions, loadKubeAccess } from './kube-access.ts';
import { KubeApi } from './kube-api.ts';
import { KubeSubnetManager, type KubeTiming } from './kube-subnet-manager.ts';
import { readNetConf } from './net-conf-file.ts';
import { findNodeName, type NodeIdentity } from './node-name.ts';

export interface OpenKubeSubnetManagerOptions extends KubeAccessOptions, NodeIdentity {
  /** `--kube-annotation-prefix`. */
  readonly annotationPrefix: string;
  /** `--net-config-path`. */
  readonly netConfPath: string;
  readonly backends: BackendLookup;
  /** `--set-node-network-unavailable`. */
  readonly setNodeNetworkUnavailable: boolean;
  /** `--require-node-address` */
  readonly requireNodeAddress?: boolean;
  /** EVENT_QUEUE_DEPTH, 1 or more. */
  readonly eventQueueDepth?: number;
  /** CONT_WHEN_CACHE_NOT_READY: an agent that cannot list the nodes in time goes on without. */
  readonly contWhenCacheNotReady?: boolean;
  /** For the User-Agent, which also names the owner of the fields that we write: `flanneld/<version>`. */
  readonly version: string;
  readonly report?: ReportSink;
  readonly timing?: Partial<KubeTiming>;
  /** How long to wait for the first list of all nodes; 10 minutes unless given. */
  readonly syncTimeoutMs?: number;
}

/**
 * The subnet manager of `--kube-subnet-mgr`, ready for use: finds the API server and the own node's name, then waits until
 * all nodes were read. A backend that has no use for other nodes waits for nothing.
 *
 * @throws WeftError WEFT_USAGE for the annotation prefix, WEFT_KUBE_CONFIG, WEFT_KUBE_REFUSED, WEFT_STORE_UNAVAILABLE.
 */
export async function openKubeSubnetManager(
  options: OpenKubeSubnetManagerOptions,
  signal: AbortSignal,
): Promise<KubeSubnetManager> {
  const { annotationPrefix, netConfPath, backends, setNodeNetworkUnavailable, eventQueueDepth, version, timing } =
    options;
  const report = options.report ?? (() => {});
  const info = (text: string) => report({ type: 'note', severity: 'info', text });
  const annotations = annotationKeys(annotationPrefix);
  await reportUnusableNetConf(netConfPath, backends, report, signal);
  const access = await loadKubeAccess(options, report);
  const api = new KubeApi(access, `flanneld/${version} (${process.platform}/${process.arch})`);
  let manager: KubeSubnetManager | undefined;
  try {
    const nodeName = await findNodeName(api, options, report, signal);
    manager = new KubeSubnetManager({
      api,
      nodeName,
      annotations,
      netConfPath,
      backends,
      setNodeNetworkUnavailable,
      requireNodeAddress: options.requireNodeAddress ?? false,
      report,
      ...(eventQueueDepth === undefined ? {} : { eventQueueDepth }),
      ...(timing === undefined ? {} : { timing }),
    });
    if (await ignoresPeers(manager, signal)) {
      info('Node controller skips sync');
      return manager;
    }
    const timeoutMs = options.syncTimeoutMs ?? 600_000;
    info(`Waiting ${Math.floor(timeoutMs / 60_000)}m${(timeoutMs % 60_000) / 1_000}s for node controller to sync`);
    try {
      await manager.waitForSync(timeoutMs, signal);
      info('Node controller sync successful');
    } catch (error) {
      const timedOut = error instanceof WeftError && error.code === 'WEFT_STORE_UNAVAILABLE';
      if (!timedOut || options.contWhenCacheNotReady !== true) throw error;
      report({
        type: 'note',
        severity: 'warning',
        text: `Timed out waiting for node controller sync. Continuing anyway. (${error.message})`,
      });
    }
    return manager;
  } catch (error) {
    await manager?.[Symbol.asyncDispose]();
    api[Symbol.dispose]();
    throw error;
  }
}

/** The API server may be away for long: what is wrong on this host is said before it is asked. */
async function reportUnusableNetConf(
  path: string,
  backends: BackendLookup,
  report: ReportSink,
  signal: AbortSignal,
): Promise<void> {
  try {
    await readNetConf(path, backends, signal);
  } catch (error) {
    signal.throwIfAborted();
    report({ type: 'note', severity: 'error', text: `Couldn't fetch network config: ${describeError(error)}` });
  }
}

/** A configuration that cannot be read is told of later, where it is asked for. */
async function ignoresPeers(manager: KubeSubnetManager, signal: AbortSignal): Promise<boolean> {
  try {
    return (await manager.networkConfig(signal)).backend.ignoresPeers;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}
