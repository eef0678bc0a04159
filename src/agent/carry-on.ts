import { setTimeout as delay } from 'node:timers/promises';
import { describeError } from '../errors.ts';
import { leaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import type { LastKnown } from '../node-files/last-known.ts';
import type { SubnetEnvNetworks } from '../node-files/subnet-env.ts';
import type { InterfaceWatch } from './interface-watch.ts';
import type { NodePlane } from './node-plane.ts';

/** After a failure: the process before this one may still hold the TUN device. */
const RETRY_MS = 2_000;

export interface CarryOnParts {
  readonly plane: NodePlane;
  readonly watch: InterfaceWatch;
  /** What subnet.env says. */
  readonly earlier: SubnetEnvNetworks | undefined;
  readonly log: Log;
  /** Packets flow; also when they do again. */
  readonly onCarrying: () => void;
}

/**
 * Carries packets with what an earlier run knew, until `answered` settles: the store is away, and containers of this host
 * go on talking to those of the others. An interface that changes meanwhile is followed. At worst no packets flow, as they
 * would without it: rejects only with the reason of `signal`.
 */
export async function carryOn(
  { own, peers }: LastKnown,
  { plane, watch, earlier, log, onCarrying }: CarryOnParts,
  answered: Promise<unknown>,
  signal: AbortSignal,
): Promise<void> {
  const settled = answered.then(
    () => 'answered' as const,
    () => 'answered' as const,
  );
  for (;;) {
    const { changed } = watch;
    const turn = AbortSignal.any([signal, changed]);
    const waits: Promise<'answered' | undefined>[] = [settled, aborted(turn)];
    try {
      plane.move(watch.current);
      await plane.start(own, peers, turn);
      plane.program(own, peers);
      onCarrying();
      await plane.settle(own, earlier, turn);
    } catch (error) {
      signal.throwIfAborted();
      if (!changed.aborted)
        log.error(`Could not continue with the last known state of ${leaseKey(own)}: ${describeError(error)}`);
      waits.push(delay(RETRY_MS, undefined, { ref: false }));
    }
    if ((await Promise.race(waits)) === 'answered' || signal.aborted) return;
  }
}

/** Resolves when the signal fires. */
export function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    signal.addEventListener('abort', () => resolve(undefined), { once: true });
  });
}
