/**
 * With what Node.js is started for the agent, also in the single executable; bin/flanneld says the same (a test compares the
 * two). Measured in docs/adr/0011-memory-of-the-agent.md: a young generation that stays small, a heap that grows in small
 * steps, one helper thread instead of four, and a way to collect garbage once start-up is over.
 */
export const RUNTIME_FLAGS: readonly string[] = [
  '--disable-warning=ExperimentalWarning',
  '--max-semi-space-size=1',
  '--heap-growing-percent=20',
  '--v8-pool-size=1',
  '--expose-gc',
];
