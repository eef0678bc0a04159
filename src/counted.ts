/** `1 node`, `2 nodes`: a count of what has a regular plural, for people. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}
