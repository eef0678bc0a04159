import type { EventRing } from '../events/event-ring.ts';
import type { Config, Doctor, Leases, Peers, ReadinessAnswer, Rules, Self, State } from './schema.ts';

/**
 * What the API needs of the agent: reading, and nothing else. Answers are of the moment; asking may look at the kernel, and
 * never changes it.
 */
export interface Inspection {
  readonly startedAtMs: number;
  readonly events: Pick<EventRing, 'after' | 'listen' | 'hints'>;
  self(): Self;
  peers(): Peers;
  leases(): Leases;
  readiness(): ReadinessAnswer;
  config(): Config;
  /** Reads the kernel. @param limit entries at most. */
  state(limit: number, signal: AbortSignal): Promise<State>;
  /** Reads the kernel. */
  rules(signal: AbortSignal): Promise<Rules>;
  /** Looks at the host, unless it has done so within the last seconds. */
  doctor(): Promise<Doctor>;
}
