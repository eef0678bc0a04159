import { assertNever } from '../../assert-never.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import type { NodeAddresses } from '../../config/node-addresses.ts';
import { readSubnetFile } from '../../config/subnet-file.ts';
import { describeError, type WeftError } from '../../errors.ts';
import type { ReportSink } from '../../subnet/report.ts';
import type { SubnetManager } from '../../subnet/subnet-manager.ts';
import { VERSION } from '../version.ts';

const MINUTE_MS = 60_000;

export interface OpenSubnetManager {
  readonly manager: SubnetManager;
  /** What is known of this node beside its lease; undefined when the manager knows no nodes. */
  readonly nodeAddresses: ((signal: AbortSignal) => Promise<NodeAddresses>) | undefined;
  /** Where others look for the state of this node, told why it has no network; undefined when there is no such place. */
  readonly reportFailure: ((error: WeftError, signal: AbortSignal) => Promise<void>) | undefined;
}

/** `WEFT_TUN_MISSING` → `FlannelTunMissing`: the reason of a node's condition is one word in CamelCase. */
function reasonOf({ code }: WeftError): string {
  const words = code.replace('WEFT_', '').toLowerCase().split('_');
  return `Flannel${words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('')}`;
}

/** Names the store that the options mean: what one store has said is of no use to an agent of another. */
export function describeStore(options: FlanneldOptions): string {
  switch (options.subnetManager) {
    case 'local':
      return `local ${options.localStore}`;
    case 'etcd':
      return `etcd ${options.etcdPrefix}`;
    case 'kube':
      return `kube ${options.kubeAnnotationPrefix}`;
    default:
      return assertNever(options.subnetManager, 'subnet manager');
  }
}

/**
 * The subnet manager that the options name. Only that one's code is loaded: each brings libraries whose memory the others
 * need not pay. kube waits here until all nodes were read once; etcd and local open nothing yet.
 */
export async function createSubnetManager(
  options: FlanneldOptions,
  report: ReportSink,
  signal: AbortSignal,
): Promise<OpenSubnetManager> {
  signal.throwIfAborted();
  const renewMarginMs = options.subnetLeaseRenewMarginMinutes * MINUTE_MS;
  switch (options.subnetManager) {
    case 'local': {
      const { LocalSubnetManager } = await import('../../subnet/local/local-subnet-manager.ts');
      const { localStore: storePath, netConfigPath: netConfPath } = options;
      const manager = new LocalSubnetManager({ storePath, netConfPath, renewMarginMs, report });
      return { manager, nodeAddresses: undefined, reportFailure: undefined };
    }
    case 'etcd': {
      const { EtcdSubnetManager } = await import('../../subnet/etcd/etcd-subnet-manager.ts');
      const previous = await readSubnetFile(options.subnetFile, signal);
      const manager = new EtcdSubnetManager({
        endpoints: options.etcdEndpoints,
        prefix: options.etcdPrefix,
        keyFile: options.etcdKeyFile,
        certFile: options.etcdCertFile,
        caFile: options.etcdCaFile,
        username: options.etcdUsername,
        password: options.etcdPassword,
        renewMarginMs,
        report,
        ...(previous.kind === 'read' ? { previous: previous.reading } : {}),
      });
      return { manager, nodeAddresses: undefined, reportFailure: undefined };
    }
    case 'kube': {
      const { openKubeSubnetManager } = await import('../../subnet/kube/open-kube-subnet-manager.ts');
      const manager = await openKubeSubnetManager(
        {
          kubeconfigFile: options.kubeconfigFile,
          apiUrl: options.kubeApiUrl,
          annotationPrefix: options.kubeAnnotationPrefix,
          netConfPath: options.netConfigPath,
          setNodeNetworkUnavailable: options.setNodeNetworkUnavailable,
          nodeName: options.nodeName,
          podName: options.podName,
          podNamespace: options.podNamespace,
          eventQueueDepth: options.eventQueueDepth,
          contWhenCacheNotReady: options.contWhenCacheNotReady,
          version: VERSION,
          report,
        },
        signal,
      );
      return {
        manager,
        nodeAddresses: (abort) => manager.nodeAddresses(abort),
        reportFailure: (error, abort) => manager.reportUnavailable(reasonOf(error), describeError(error), abort),
      };
    }
    default:
      return assertNever(options.subnetManager, 'subnet manager');
  }
}
