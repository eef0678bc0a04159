/** Whether tunnels take the fast path, by what they say and count: a bench that falls back must not measure the forwarder under its name. */
import { AssertionError } from 'node:assert/strict';
import { WeftError } from '../src/errors.ts';
import type { Topology } from '../src/lab/topology.ts';
import { type Carried, countersOf, untilFastPathCarries } from '../test/netns/fast-path-use.ts';
import { addressOf, ping } from '../test/netns/overlay.ts';
import type { Tunnel, TunnelCounters } from '../test/netns/tunnel.ts';
import { eventually } from '../test/netns/waiting.ts';

/** `xdp`: XDP takes what comes from peers, too. */
export type Way = 'fast path' | 'xdp';

const OPEN = 'Packets take the fast path in the kernel';
const CLOSED = 'All packets pass through the forwarder';
const BY_XDP = /, and XDP takes what \S+ receives from peers/;
const SAYS_WITHIN_MS = 10_000;
const PINGS = 20;
/** Of those, what the forwarders may see: packets from before both ends had agreed are still under way, and hosts exchange signs. */
const FEW = 8;

/** Why packets do not take that way, by what a tunnel has said so far; `undefined` when they do. */
export function obstacleTo(way: Way, said: readonly string[]): string | undefined {
  const last = said.findLast((line) => line.includes(OPEN) || line.includes(CLOSED));
  if (last === undefined) return 'it has said nothing of a fast path';
  if (last.includes(CLOSED) || (way === 'xdp' && !BY_XDP.test(last))) return `it says: ${last}`;
  return undefined;
}

/** @throws AssertionError when the forwarders have seen more than a few of those pings. */
export function assertPassedForwarders({ before, after }: Carried<TunnelCounters>): void {
  for (const [index, now] of after.entries()) {
    const then = before[index]!;
    const more = (name: string): number => now.totals[name]! - then.totals[name]!;
    const sent = now.peers[0]!.sent.packets - then.peers[0]!.sent.packets;
    if (sent >= PINGS && more('txReads') < FEW && more('rxDatagrams') < FEW) continue;
    const seen = `its forwarder has read ${more('txReads')} packets and ${more('rxDatagrams')} datagrams`;
    throw new AssertionError({ message: `of ${PINGS} pings host ${index + 1} has sent ${sent}, and ${seen}` });
  }
}

function failure(way: Way, why: string): WeftError {
  return new WeftError(
    'WEFT_LAB_FAILED',
    `weft (udp mode) does not take ${nameOf(way)}, and its figures would be others: ${why}`,
    {
      hint: 'docs/INSTALL.md says what the fast path needs.',
    },
  );
}

const nameOf = (way: Way): string => (way === 'xdp' ? 'the fast path with XDP on the way in' : 'the fast path');

const obstacleOf = (way: Way, { stderr }: Tunnel): string | undefined =>
  obstacleTo(
    way,
    stderr.seen.map(({ text }) => text),
  );

/** @throws WeftError WEFT_LAB_FAILED when one of them says that it does not take that way, or no longer. */
export function assertFastPath(tunnels: readonly Tunnel[], way: Way): void {
  for (const [index, tunnel] of tunnels.entries()) {
    const obstacle = obstacleOf(way, tunnel);
    if (obstacle !== undefined) throw failure(way, `host ${index + 1}: ${obstacle}`);
  }
}

/** Waits until all of them say so, and have carried pings past their forwarders. @throws WeftError WEFT_LAB_FAILED otherwise. */
export async function untilFastPath(topology: Topology, tunnels: readonly Tunnel[], way: Way): Promise<void> {
  const isThere = (): boolean => tunnels.every((tunnel) => obstacleOf(way, tunnel) === undefined);
  // What it waits for is said better below.
  await eventually('every host says so', isThere, SAYS_WITHIN_MS).catch(() => {});
  assertFastPath(tunnels, way);
  const [from, to] = topology.containers;
  try {
    await untilFastPathCarries(
      countersOf(tunnels),
      async () => void (await ping(topology, from!, addressOf(to!), '-c', `${PINGS}`, '-i', '0.01')),
      assertPassedForwarders,
    );
  } catch (error) {
    if (error instanceof AssertionError) throw failure(way, error.message);
    throw error;
  }
}
