import { assertNever } from '../../assert-never.ts';
import type { FlanneldOptions } from '../../config/flanneld-options.ts';
import { readSubnetFile } from '../../config/subnet-file.ts';
import type { ReportSink } from '../../subnet/report.ts';
import type { SubnetManager } from '../../subnet/subnet-manager.ts';
import { VERSION } from '../version.ts';

const MINUTE_MS = 60_000;

/**
 * The subnet manager that the options name. Only that one's code is loaded: each brings libraries whose memory the others
 * need not pay. kube waits here until all nodes were read once; etcd and local open nothing yet.
 */
export async function createSubnetManager(
  options: FlanneldOptions,
  report: ReportSink,
  signal: AbortSignal,
): Promise<SubnetManager> {
  signal.throwIfAborted();
  const renewMarginMs = options.subnetLeaseRenewMarginMinutes * MINUTE_MS;
  switch (options.subnetManager) {
    case 'local': {
      const { LocalSubnetManager } = await import('../../subnet/local/local-subnet-manager.ts');
      const { localStore: storePath, netConfigPath: netConfPath } = options;
      return new LocalSubnetManager({ storePath, netConfPath, renewMarginMs, report });
    }
    case 'etcd': {
      const { EtcdSubnetManager } = await import('../../subnet/etcd/etcd-subnet-manager.ts');
      const previous = await readSubnetFile(options.subnetFile, signal);
      return new EtcdSubnetManager({
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
    }
    case 'kube': {
      const { openKubeSubnetManager } = await import('../../subnet/kube/open-kube-subnet-manager.ts');
      return await openKubeSubnetManager(
        {
          kubeconfigFile: options.kubeconfigFile,
          apiUrl: options.kubeApiUrl,
          annotationPrefix: options.kubeAnnotationPrefix,
          netConfPath: options.netConfigPath,
          setNodeNetworkUnavailable: options.setNodeNetworkUnavailable,
          version: VERSION,
          report,
        },
        signal,
      );
    }
    default:
      return assertNever(options.subnetManager, 'subnet manager');
  }
}
