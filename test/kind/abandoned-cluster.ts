/** A kind cluster that nobody takes down: a test kills this program. Prints the id of its lab once a node runs, as kind still works. */
import { eventually } from '../netns/waiting.ts';
import { KindHost } from './kind-host.ts';

const say = (line: string) => process.stderr.write(`${line}\n`);
const host = await KindHost.start('abandoned kind cluster', say, AbortSignal.timeout(1_400_000));
const creation = host.shell(`kind create cluster --image ${host.nodeImage.name}`);
await Promise.race([
  creation,
  eventually(
    'containerd of the node runs',
    async () => {
      const inNode = ['docker', 'exec', 'kind-control-plane', 'crictl', 'version'];
      return (await host.docker.exec(inNode, { okExitCodes: 'any' })).exitCode === 0 || undefined;
    },
    300_000,
  ),
]);
process.stdout.write(`${host.id}\n`);
