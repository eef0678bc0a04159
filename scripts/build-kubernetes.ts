/** Builds the Kubernetes servers of labs and end-to-end tests when they are not in the cache, and prints their path. */
import { describeError } from '../src/errors.ts';
import { kubernetesBinaries } from '../src/lab/servers/kube-build.ts';

try {
  const { binary } = await kubernetesBinaries((line) => process.stderr.write(`${line}\n`));
  process.stdout.write(`${binary}\n`);
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
