/**
 * Keeps one thing of this host as it is wanted, for as long as the agent runs: the kernel's state, the forwarder, the traffic
 * rules, subnet.env, the CNI configuration. What cannot be had is tried again by the keeper itself.
 */
export interface Keeper<W> {
  /** Takes effect soon; idempotent. */
  set(wanted: W): void;
  /** Resolves when what is wanted is there. @throws WeftError with the {@link failure} when it cannot be had now. */
  settled(signal: AbortSignal): Promise<void>;
  /** Why what is wanted is not there; `undefined` when it is. Readiness, metrics, the node's condition and doctor read this. */
  readonly failure: string | undefined;
}

/** What readiness needs of a keeper. */
export type Failing = Pick<Keeper<unknown>, 'failure'>;
