/** Worker thread of peer-table.test.ts: looks addresses up for as long as it is let, and says what did not fit together. */
import { parentPort, workerData } from 'node:worker_threads';
import { PeerTable } from '../../src/dataplane/peer-table.ts';

const { buffer, capacity, stop, peers } = workerData as {
  buffer: SharedArrayBuffer;
  capacity: number;
  stop: SharedArrayBuffer;
  peers: number;
};
const reader = new PeerTable(buffer, capacity).reader(0);
const stopped = new Int32Array(stop);
const faults: string[] = [];
const versions = new Set<number>();
let batches = 0;

/**
 * Version v maps 10.p.0.0/16 to the endpoint 0x0b000000 + v at port p and has v modulo 7 peers fewer than there could be:
 * whatever a batch finds must be of one v.
 */
function batch(): void {
  let version = -1;
  let found = 0;
  for (let number = 0; number < peers; number++) {
    const slot = reader.lookup((10 << 24) | (number << 16) | 77);
    if (slot === 0) continue;
    found++;
    const seen = reader.endpoint(slot) - 0x0b000000;
    if (version === -1) version = seen;
    if (seen !== version) faults.push(`versions ${version} and ${seen} in one batch`);
    if (reader.endpointPort(slot) !== number + 1) faults.push(`peer ${number} has port ${reader.endpointPort(slot)}`);
  }
  if (version === -1) return;
  versions.add(version);
  Atomics.store(stopped, 1, versions.size);
  if (found !== peers - (version % 7)) faults.push(`version ${version}: ${found} peers`);
  if (reader.lookupEndpoint(0x0b000000 + version) === 0) faults.push(`version ${version}: its endpoint is unknown`);
  if (reader.lookupEndpoint(0x0b000000 + version + 1) !== 0) faults.push(`version ${version}: knows the next endpoint`);
}

parentPort?.postMessage('reading');
while (Atomics.load(stopped, 0) === 0 && faults.length === 0) {
  reader.enter();
  batch();
  reader.leave();
  batches++;
}
parentPort?.postMessage({ faults: faults.slice(0, 5), batches, versions: versions.size });
