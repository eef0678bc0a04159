/** Docker hosts that nobody takes down: a test kills this program. Prints the id of their lab once their containers run. */
import { DockerNetwork } from './docker-network.ts';

const { topology } = await DockerNetwork.start('abandoned Docker hosts', AbortSignal.timeout(300_000));
process.stdout.write(`${topology.id}\n`);
