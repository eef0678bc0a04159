import type { LabHost, Topology } from '../../src/lab/topology.ts';

/** What these programs say of a host, one after the other, without what changes by itself: comments, counters, the state of links. */
export async function hostText(topology: Topology, host: LabHost, programs: readonly string[][]): Promise<string> {
  const shown = await Promise.all(programs.map((argv) => topology.exec(host, argv)));
  return shown
    .map(({ stdout }) => stdout)
    .join('')
    .replaceAll(/^#.*\n|\[\d+:\d+\]|counter packets \d+ bytes \d+| linkdown/gm, '')
    .replaceAll(/ +$/gm, '');
}
