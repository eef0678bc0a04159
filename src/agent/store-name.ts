import { assertNever } from '../assert-never.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';

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
