/**
 * How many echo requests before the last one that was answered got no answer, from the lines of ping(8); it prints numbers of 16 bits.
 * What is under way at the end counts neither as sent nor as lost.
 */
export function lostPings(lines: Iterable<string>): { readonly lost: number; readonly of: number } {
  const answered = new Set<number>();
  let [last, turns, of] = [0, 0, 0];
  for (const text of lines) {
    const number = Number(/icmp_seq=(\d+) .*time=/.exec(text)?.[1]);
    if (Number.isNaN(number)) continue;
    // A late answer from before the numbers began again must not count as another turn.
    if (number < last - 0x8000) turns++;
    const turn = number > last + 0x8000 ? turns - 1 : turns;
    if (turn === turns) last = number;
    answered.add(turn * 0x1_0000 + number);
    of = Math.max(of, turn * 0x1_0000 + number);
  }
  return { lost: of - answered.size, of };
}
