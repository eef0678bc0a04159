/** Reads what `ping -n` of iputils prints, for one target or for several runs one after another. Pure. */

export interface PingRun {
  readonly target: string;
  readonly sent: number;
  readonly received: number;
  /** Round-trip times in the order of arrival, duplicates left out. */
  readonly rttMs: readonly number[];
  /** Lines that report an error, such as an ICMP error from a router. */
  readonly errors: readonly string[];
}

/** Runs without their closing statistics (ping was killed) are left out. */
export function parsePing(output: string): PingRun[] {
  const runs: PingRun[] = [];
  let target: string | undefined;
  let rttMs: number[] = [];
  let errors: string[] = [];
  for (const line of output.split('\n')) {
    const reply = /^\d+ bytes from .*\btime=([\d.]+) ms( \(DUP!\))?/.exec(line);
    if (reply !== null) {
      if (reply[2] === undefined) rttMs.push(Number(reply[1]));
      continue;
    }
    const closing = /^--- (\S+) ping statistics ---$/.exec(line);
    if (closing !== null) {
      target = closing[1];
      continue;
    }
    const statistics = /^(\d+) packets transmitted, (\d+) received/.exec(line);
    if (statistics !== null && target !== undefined) {
      runs.push({ target, sent: Number(statistics[1]), received: Number(statistics[2]), rttMs, errors });
      [target, rttMs, errors] = [undefined, [], []];
      continue;
    }
    if (/^(From |ping: )/.test(line)) errors.push(line);
  }
  return runs;
}

/** The value at a share (0 … 1) of sorted numbers, nearest rank; NaN when there are none. */
export function percentile(sorted: readonly number[], share: number): number {
  if (sorted.length === 0) return Number.NaN;
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))]!;
}
