/** What `make bench-scale` measures, of what it was asked for. */

type Store = 'etcd' | 'kube';

export interface ScaleChoice {
  /** Stores of the clusters with udp. */
  readonly udp: readonly Store[];
  /** Those with vxlan. */
  readonly vxlan: readonly Store[];
}

/** vxlan is measured with etcd alone: what differs from udp is behind the store. */
const MEASURED: ScaleChoice = { udp: ['etcd', 'kube'], vxlan: ['etcd'] };

/** Each option leaves out what it does not name. @throws RangeError for other words, and when nothing is left. */
export function chooseScale(store: string | undefined, backend: string | undefined): ScaleChoice {
  if (store !== undefined && store !== 'etcd' && store !== 'kube') throw new RangeError('--store: want etcd or kube');
  if (backend !== undefined && backend !== 'udp' && backend !== 'vxlan') {
    throw new RangeError('--backend: want udp or vxlan');
  }
  const of = (type: keyof ScaleChoice): readonly Store[] =>
    MEASURED[type].filter((one) => (store ?? one) === one && (backend ?? type) === type);
  const choice = { udp: of('udp'), vxlan: of('vxlan') };
  if (choice.udp.length + choice.vxlan.length === 0) {
    throw new RangeError(`--backend ${backend} is not measured with --store ${store}, only with etcd`);
  }
  return choice;
}
