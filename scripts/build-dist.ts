/**
 * `make dist`: all programs as one executable that needs no Node.js on the host, dist/linux-ARCH/weft, with the names flanneld and
 * flannel beside it. Arguments: the architectures, amd64 and arm64; without any, this machine's.
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describeError } from '../src/errors.ts';
import { architecturesOf } from './packaging/architecture.ts';
import { bundle } from './packaging/bundle.ts';
import { makeExecutable } from './packaging/executable.ts';

const signal = AbortSignal.timeout(600_000);
// What is made must not depend on who makes it.
process.umask(0o022);
try {
  const architectures = architecturesOf(process.argv.slice(2));
  const programs = await bundle(signal);
  for (const architecture of architectures) {
    const folder = await makeExecutable(programs, architecture, signal);
    const size = statSync(join(folder, 'weft')).size;
    process.stdout.write(`${folder}/weft  ${(size / 1e6).toFixed(1)} MB\n`);
  }
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
