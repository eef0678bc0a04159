/** Builds what the tests on kind need, when it is not in the cache, and prints the path of the image of kind's nodes. */
import { describeError } from '../src/errors.ts';
import { nodeImage } from '../test/kind/node-image.ts';

try {
  const { archive } = await nodeImage((line) => process.stderr.write(`${line}\n`), AbortSignal.timeout(3_600_000));
  process.stdout.write(`${archive}\n`);
} catch (error) {
  process.stderr.write(`weft: ${describeError(error)}\n`);
  process.exitCode = 1;
}
