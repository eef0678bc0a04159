import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { MAX_PEERS } from '../dataplane/supervisor.ts';
import type { IpAddr } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { GateRules } from '../lease/gate-rules.ts';
import type { NodePlane } from './node-plane.ts';

/** What a lease of another host must be like to be believed here. `hostAddresses` are all that this host has. */
export function gateRules(
  options: Pick<FlanneldOptions, 'subnetManager' | 'requireNodeAddress'>,
  { config, external, backend, networksBeside }: Pick<NodePlane, 'config' | 'external' | 'backend' | 'networksBeside'>,
  hostAddresses: readonly IpAddr[],
): GateRules {
  const published = [...present(external.addresses), ...present(external.publicAddresses)];
  return {
    ipv4: config.ipv4,
    ipv6: config.ipv6,
    planned: options.subnetManager !== 'kube',
    routesWholeNetwork: config.backend.routesWholeNetwork,
    networksBeside,
    ownAddresses: [...hostAddresses, ...published],
    onLink: external.onLink,
    requireNodeAddress: options.requireNodeAddress,
    capacity: backend.underlay === undefined ? Number.POSITIVE_INFINITY : MAX_PEERS,
  };
}
