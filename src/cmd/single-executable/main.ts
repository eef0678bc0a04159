/**
 * All programs in one executable (scripts/build-dist.ts), so that a host needs no Node.js. Which one it is, is said by the first
 * argument when that is a name of one, or else by the name it is started under; `weft` when neither is.
 *
 * The others are not even evaluated: the CNI plugin starts for every pod.
 */
import { basename } from 'node:path';
import { describeError } from '../../errors.ts';
import { useSourcePositions } from './source-positions.ts';

const PROGRAMS: Readonly<Record<string, () => Promise<unknown>>> = {
  flannel: () => import('../cni/main.ts'),
  flanneld: () => import('../flanneld/main.ts'),
  weft: () => import('../weft/main.ts'),
};

function chosen(): string {
  const name = basename(process.argv0);
  const started = Object.hasOwn(PROGRAMS, name) ? name : 'weft';
  // Also of flanneld, which takes no words of its own: it is the entry point of the image (docker run IMAGE weft doctor). Not
  // of the CNI plugin, whose arguments are the container runtime's.
  const [, , first] = process.argv;
  if (started === 'flannel' || first === undefined || !Object.hasOwn(PROGRAMS, first)) return started;
  process.argv.splice(2, 1);
  return first;
}

useSourcePositions();
const program = chosen();
PROGRAMS[program]!().catch((error: unknown) => {
  process.stderr.write(`${program}: ${describeError(error)}\n`);
  process.exitCode = 1;
});
