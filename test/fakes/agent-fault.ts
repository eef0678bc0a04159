/**
 * Loaded into an agent, its packet workers included, by `NODE_OPTIONS=--import=…`: breaks it in a way that its own code
 * would not, once a file says so. `WEFT_TEST_FAULT` is the path; what the file says is the fault. A worker that hangs makes the file
 * `….obeyed` first.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { isMainThread, threadName } from 'node:worker_threads';

const path = process.env.WEFT_TEST_FAULT;
if (path === undefined) throw new Error('WEFT_TEST_FAULT is not set');
const ordered = (): string => (existsSync(path) ? readFileSync(path, 'utf8') : '');

if (isMainThread) {
  // A timer that was there before everything else, as any code of the agent could have one.
  setInterval(() => {
    const fault = ordered();
    if (fault === 'throw') throw new Error('thrown as ordered');
    if (fault === 'reject') void Promise.reject(new Error('rejected as ordered'));
  }, 20).unref();
  const dispose = AsyncDisposableStack.prototype[Symbol.asyncDispose];
  AsyncDisposableStack.prototype[Symbol.asyncDispose] = async function (this: AsyncDisposableStack): Promise<void> {
    // One whose resources were moved elsewhere has nothing left to do.
    const fault = this.disposed ? '' : ordered();
    if (fault === 'throw at the end') this.defer(() => Promise.reject(new Error('thrown at the end as ordered')));
    if (fault === 'hang at the end') this.defer(() => new Promise(() => {}));
    await dispose.call(this);
  };
} else {
  // The packet workers look at their stop word before every step.
  const load = Atomics.load;
  const { poll } = await import('../../src/linux/ffi.ts');
  const look = (): void => {
    const fault = ordered();
    if (fault === `${threadName} throws`) throw new Error('thrown in a worker as ordered');
    // No descriptor and no end: a foreign call that nothing brings back.
    if (fault === `${threadName} hangs`) {
      writeFileSync(`${path}.obeyed`, '');
      poll(0, 0, -1);
    }
  };
  Object.assign(Atomics, {
    load: (...args: Parameters<typeof load>) => {
      look();
      return load(...args);
    },
  });
}
