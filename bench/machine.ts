import { cpus, release } from 'node:os';

/** Where and when figures were measured, as documents say it. */
export function describeMachine(): string {
  return `${cpus().length} cores, Linux ${release()}, Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`;
}
