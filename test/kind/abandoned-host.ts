/** A Docker host that nobody takes down: a test kills this program. Prints the id of its lab once a container runs. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { Topology } from '../../src/lab/topology.ts';
import { DockerHost } from '../e2e/docker/docker-host.ts';
import { nodesDir } from '../e2e/nodes/leftovers.ts';
import { TOOLS_IMAGE } from '../e2e/nodes/node-config.ts';
import { startReaper } from '../e2e/nodes/reaper.ts';
import { buildToolsImage } from '../e2e/nodes/test-images.ts';

await startReaper();
const topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'abandoned Docker host' });
const dir = nodesDir(topology.id);
await mkdir(dir);
const docker = await DockerHost.start({ host: topology.hosts[0]!, dir: join(dir, 'docker') });
const image = await buildToolsImage(dir, AbortSignal.timeout(300_000));
await docker.exec(['docker', 'load', '--input', image]);
await docker.exec(['docker', 'run', '--detach', TOOLS_IMAGE]);
process.stdout.write(`${topology.id}\n`);
