import { WeftError } from '../src/errors.ts';
import { type Child, lines } from '../src/linux/run.ts';

/** Waits for a line and goes on reading, so that the pipe never fills. @throws WeftError WEFT_LAB_FAILED when it ends before. */
export async function saysReady(child: Child, pattern: RegExp): Promise<void> {
  const iterator = lines(child.stdout!)[Symbol.asyncIterator]();
  for (;;) {
    const { done, value } = await iterator.next();
    if (done)
      throw new WeftError('WEFT_LAB_FAILED', `${child.argv.join(' ')} ended before it was ready: ${child.tail()}`);
    if (pattern.test(value)) break;
  }
  void (async () => {
    while (!(await iterator.next()).done);
  })();
}
