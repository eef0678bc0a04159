import { readFileSync, statSync } from 'node:fs';

/** A process as /proc shows it; the pid alone may belong to somebody else by the time it is used. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks since boot at which it started (proc(5), stat field 22): with the pid, unique until the next boot. */
  readonly startTicks: number;
  readonly argv: readonly string[];
}

/** `undefined` when there is no such process, or it is a zombie that waits for its parent. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command name is in parentheses and may contain both blanks and parentheses.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
    const startTicks = Number(fields[19]);
    return fields[0] === 'Z' || !Number.isInteger(startTicks) ? undefined : { pid, startTicks, argv };
  } catch {
    return undefined;
  }
}

/** Whether it is there, and not another one with its pid. */
export function isAlive({ pid, startTicks }: Pick<ProcessIdentity, 'pid' | 'startTicks'>): boolean {
  return identifyProcess(pid)?.startTicks === startTicks;
}

/** Inode of the PID namespace in which this process's pids are valid; `undefined` without /proc. */
export function ownPidNamespace(): number | undefined {
  return statSync('/proc/self/ns/pid', { throwIfNoEntry: false })?.ino;
}

export function sameArgv(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((word, i) => word === b[i]);
}
