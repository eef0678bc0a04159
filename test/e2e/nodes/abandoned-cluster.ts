/** A cluster that nobody takes down: a test kills this program. Prints the id of its lab once the node has joined. */
import { RealCluster } from './real-cluster.ts';

const cluster = await RealCluster.start({ nodes: 1, images: [] }, AbortSignal.timeout(300_000));
process.stdout.write(`${cluster.topology.id}\n`);
