/** What the kernel shows of a process, as benchmarks take it. */
import { readdirSync, readFileSync } from 'node:fs';

export interface Memory {
  readonly rssMiB: number;
  /** Private to the process; the rest is the files it maps, which all agents of a machine share. */
  readonly anonymousMiB: number;
}

/** To a tenth of a MiB; `peakMiB` is the most that was resident so far. @throws Error when the process is gone. */
export function memoryOf(pid: number): Memory & { readonly peakMiB: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mib = (field: string): number => {
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
    return Math.round(Number(kib) / 102.4) / 10;
  };
  return { rssMiB: mib('VmRSS'), anonymousMiB: mib('RssAnon'), peakMiB: mib('VmHWM') };
}

/** Nanoseconds on a processor, of all threads of a process; 0 of one that is gone. */
export function cpuNsOf(pid: number): number {
  const tasks = `/proc/${pid}/task`;
  try {
    return readdirSync(tasks).reduce(
      (sum, task) => sum + Number(readFileSync(`${tasks}/${task}/schedstat`, 'utf8').split(' ')[0]),
      0,
    );
  } catch {
    return 0;
  }
}
