import type { Op } from './op.ts';
import type { ActualState, WantedState } from './state.ts';

export type OpResult =
  | { readonly op: Op; readonly ok: true }
  /** `error`: the kernel's words. */
  | { readonly op: Op; readonly ok: false; readonly error: string };

/**
 * The kernel's network state (one network namespace). Implementations: linux/iproute2.ts and the fake in
 * test/fakes/fake-kernel.ts; both pass test/contract/kernel.ts.
 */
export interface Kernel {
  /**
   * What there is: the links of the wanted state with their addresses, the neighbours and forwarding entries of its VXLAN
   * links, and all routes of table main. A link that does not exist is left out. One that was there at an earlier look, and has
   * another name now, says so.
   *
   * @throws WeftError WEFT_KERNEL_STATE, WEFT_COMMAND_…: it could not be read. Never an empty answer instead.
   */
  read(wanted: WantedState, signal: AbortSignal): Promise<ActualState>;

  /**
   * Applies the operations in order, going on after one that failed; one result for each, in the same order. Deleting
   * what is not there is a success.
   */
  apply(ops: readonly Op[], signal: AbortSignal): Promise<OpResult[]>;

  /**
   * Notices that something may have changed on what `wanted()` is about; coalesced, so one notice can stand for many
   * changes. The first one comes as soon as nothing can be missed any more. Goes on until aborted; when notices may
   * have been lost, there is one more. Implementations may also give notice of changes that do not matter, but give none of
   * routes, neighbours and forwarding entries that `apply` has set or deleted as it was told.
   */
  changes(wanted: () => WantedState, signal: AbortSignal): AsyncIterable<void>;
}
