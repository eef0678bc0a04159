/**
 * All programs in one executable (scripts/build-dist.ts), so that a host needs no Node.js. Which one it is, is said by the name it
 * is started under, or else by the first argument; `weft` when neither is one of the names.
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
  if (name !== 'weft' && name in PROGRAMS) return name;
  const [, , first] = process.argv;
  if (first === undefined || !(first in PROGRAMS)) return 'weft';
  process.argv.splice(2, 1);
  return first;
}

useSourcePositions();
const program = chosen();
PROGRAMS[program]!().catch((error: unknown) => {
  process.stderr.write(`${program}: ${describeError(error)}\n`);
  process.exitCode = 1;
});
