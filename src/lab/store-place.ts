import { formatIpv4 } from '../ip/ipv4.ts';
import type { ServerPlace } from './servers/server-place.ts';
import type { LabStore, Topology } from './topology.ts';

/** Where a lab's servers run: in a namespace on its underlay, their processes on the lab's record. */
export function storePlace(topology: Topology): { readonly place: ServerPlace; readonly station: LabStore } {
  const { store: station } = topology;
  if (station === undefined) throw new TypeError(`lab ${topology.id} was made without a namespace for a store`);
  const place: ServerPlace = {
    netns: station.namespace,
    address: formatIpv4(station.address),
    launch: (argv, logFile, env) => topology.startLogged(station, argv, logFile, { env }),
  };
  return { place, station };
}
