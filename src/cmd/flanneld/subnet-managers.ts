import type { OpenSubnetManager } from '../../agent/ports.ts';
import { assertNever } from '../../assert-never.ts';
import { backendKind } from '../../backend/registry.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { describeError, type WeftError } from '../../errors.ts';
import { readSubnetFile } from '../../node-files/subnet-file.ts';
import { limitHeapGrowth } from '../../runtime-flags.ts';
import type { ReportSink } from '../../subnet/report.ts';
import { VERSION } from '../version.ts';

const MINUTE_MS = 60_000;

/** `WEFT_TUN_MISSING` → `FlannelTunMissing`: the reason of a node's condition is one word in CamelCase. */
function reasonOf({ code }: WeftError): string {
  const words = code.replace('WEFT_', '').toLowerCase().split('_');
  return `Flannel${words.map((word) => word.charAt(0).toUpperCase() + word.slice(1)).join('')}`;
}

/** The lists of a store are what the heap grows by; its modules are the last that are loaded. */
async function loaded<T>(module: Promise<T>): Promise<T> {
  const exports = await module;
  limitHeapGrowth();
  return exports;
}

/** What only a store has that knows the nodes of a cluster. */
const WITHOUT_NODE = {
  nodeAddresses: undefined,
  published: undefined,
  reportFailure: undefined,
  tellEvent: undefined,
} as const satisfies Omit<OpenSubnetManager, 'manager'>;

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
  const backends = backendKind;
  const renewMarginMs = options.subnetLeaseRenewMarginMinutes * MINUTE_MS;
  switch (options.subnetManager) {
    case 'local': {
      const { LocalSubnetManager } = await loaded(import('../../subnet/local/local-subnet-manager.ts'));
      const { localStore: storePath, netConfigPath: netConfPath } = options;
      const manager = new LocalSubnetManager({ storePath, netConfPath, backends, renewMarginMs, report });
      return { manager, ...WITHOUT_NODE };
    }
    case 'etcd': {
      const { EtcdSubnetManager } = await loaded(import('../../subnet/etcd/etcd-subnet-manager.ts'));
      const previous = await readSubnetFile(options.subnetFile, signal);
      const manager = new EtcdSubnetManager({
        endpoints: options.etcdEndpoints,
        prefix: options.etcdPrefix,
        keyFile: options.etcdKeyFile,
        certFile: options.etcdCertFile,
        caFile: options.etcdCaFile,
        username: options.etcdUsername,
        password: options.etcdPassword,
        backends,
        renewMarginMs,
        report,
        ...(previous.kind === 'read' ? { previous: previous.reading.subnets } : {}),
      });
      return { manager, ...WITHOUT_NODE };
    }
    case 'kube': {
      const { openKubeSubnetManager } = await loaded(import('../../subnet/kube/open-kube-subnet-manager.ts'));
      const manager = await openKubeSubnetManager(
        {
          kubeconfigFile: options.kubeconfigFile,
          apiUrl: options.kubeApiUrl,
          annotationPrefix: options.kubeAnnotationPrefix,
          netConfPath: options.netConfigPath,
          backends,
          setNodeNetworkUnavailable: options.setNodeNetworkUnavailable,
          requireNodeAddress: options.requireNodeAddress,
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
        published: (abort) => manager.storedBackendData(abort),
        reportFailure: (error, abort) => manager.reportUnavailable(reasonOf(error), describeError(error), abort),
        tellEvent: (event, abort) => manager.tellEvent(event, abort),
      };
    }
    default:
      return assertNever(options.subnetManager, 'subnet manager');
  }
}
