import assert from 'node:assert/strict';
import { sendFile } from '../../src/lab/checks.ts';
import type { LabContainer, Topology } from '../../src/lab/topology.ts';
import type { Tunnel, TunnelCounters } from './tunnel.ts';
import { eventuallyHolds } from './waiting.ts';

/** Figures of both hosts, before and after something was carried. */
export interface Carried<T> {
  readonly before: readonly T[];
  readonly after: readonly T[];
}

/**
 * Carries it again until the fast path has. Two hosts agree on it by what their sockets receive, after the first packets; and
 * where other programs keep both cores busy, an answer may be late enough for a host to go back to its forwarder for a moment.
 * A fast path that does not open, or that lasts shorter than one `carry`, never gets there.
 *
 * @param look figures of both hosts.
 * @param carry what fails in it is a failure for good.
 * @param assertTaken throws an AssertionError when the forwarders have seen it.
 */
export async function untilFastPathCarries<T>(
  look: () => Promise<readonly T[]>,
  carry: () => Promise<void>,
  assertTaken: (carried: Carried<T>) => void,
): Promise<Carried<T>> {
  return eventuallyHolds(async () => {
    const before = await look();
    await carry().catch((error: unknown) => {
      throw new Error('not carried as it was sent', { cause: error });
    });
    const carried = { before, after: await look() };
    assertTaken(carried);
    return carried;
  });
}

/** A whole file, whichever way it takes. */
export async function transfer(topology: Topology, from: LabContainer, to: LabContainer, bytes: number): Promise<void> {
  const sent = await sendFile(topology, from, to, bytes);
  assert.deepEqual([sent.receivedBytes, sent.receivedSha256], [sent.bytes, sent.sha256]);
}

export const countersOf = (tunnels: readonly Tunnel[]) => (): Promise<readonly TunnelCounters[]> =>
  Promise.all(tunnels.map((tunnel) => tunnel.counters()));

/** How much more of that total there is at each host. */
export const increases = ({ before, after }: Carried<TunnelCounters>, name: string): number[] =>
  after.map(({ totals }, index) => totals[name]! - before[index]!.totals[name]!);

/** None of the hosts' figures has grown by `limit` or more. */
export function assertFewer(carried: Carried<TunnelCounters>, name: string, limit: number): void {
  const more = increases(carried, name);
  assert.ok(
    more.every((count) => count < limit),
    `${name} by ${more.join(' and ')}, not less than ${limit}`,
  );
}
