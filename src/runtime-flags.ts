import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/**
 * With what Node.js is started for the agent, also in the single executable; bin/flanneld says the same (a test compares the
 * two). Measured in docs/adr/0011-memory-of-the-agent.md: a young generation that stays small, and one helper thread instead
 * of four.
 *
 * None of them may be one that V8 counts among those that compiled code depends on: with such a flag it refuses the compiled
 * code of Node.js' own modules, and each of the three threads compiles them again (a test compares).
 */
export const RUNTIME_FLAGS: readonly string[] = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=1',
  '--v8-pool-size=1',
];

/** From now on the heap grows in small steps. One of those flags that cost compiled code, so once the modules are loaded. */
export function limitHeapGrowth(): void {
  setFlagsFromString('--heap-growing-percent=20');
}

/**
 * Collects this thread's garbage, and returns empty pages of the heap and code that has not run lately; nothing where another thread
 * does the same at that moment, because the flag is the process's.
 */
export function collectGarbage(): void {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('globalThis.gc') as typeof globalThis.gc;
  setFlagsFromString('--no-expose-gc');
  collect?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}
