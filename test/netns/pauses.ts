/** Of a connection: from one line to the next, in milliseconds. */
export interface Pause {
  readonly ms: number;
  /** The longest of the connection beside it that began before this one was over, and ended after it had begun. */
  readonly besideMs: number;
}

const intervals = (times: readonly number[]): (readonly [number, number])[] =>
  times.slice(1).map((until, index) => [times[index]!, until]);

/**
 * The pause of a connection that was longest beyond what one beside it had in the same moment: what stops the machine stops both.
 * @param times when lines of the connection came, in order, and `beside` when those of the other.
 */
export function worstPause(times: readonly number[], beside: readonly number[]): Pause {
  const others = intervals(beside);
  let at = 0;
  let worst: Pause = { ms: 0, besideMs: 0 };
  for (const [from, until] of intervals(times)) {
    while (at < others.length && others[at]![1] <= from) at++;
    let besideMs = 0;
    for (let i = at; i < others.length && others[i]![0] < until; i++)
      besideMs = Math.max(besideMs, others[i]![1] - others[i]![0]);
    if (until - from - besideMs > worst.ms - worst.besideMs) worst = { ms: until - from, besideMs };
  }
  return worst;
}

const MAY_STALL_MS = 50;

/**
 * Whether something besides the machine has stopped it: it is longer than the other by more than {@link MAY_STALL_MS}, and by more than the
 * other's own length, for a machine that stops one for so long does not stop all for equally long.
 */
export function isStall({ ms, besideMs }: Pause): boolean {
  return ms - besideMs > Math.max(MAY_STALL_MS, besideMs);
}
