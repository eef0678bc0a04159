import { describeError, WeftError } from '../errors.ts';
import { isAlive } from './process-identity.ts';
import { listLabIds, REGISTRY_DIRECTORY, readRecord } from './registry.ts';
import { removeLab, requireRoot } from './removal.ts';

export type DownOutcome =
  | { readonly kind: 'removed'; readonly id: string; readonly purpose: string; readonly namespaces: number }
  /** The command that made it still runs, and nobody asked for this lab by its name. */
  | { readonly kind: 'in-use'; readonly id: string; readonly purpose: string; readonly pid: number }
  | { readonly kind: 'failed'; readonly id: string; readonly error: unknown };

/**
 * Removes one lab, also under a command that still uses it; or, without an id, all labs whose maker is gone: those that
 * were kept, and what crashes left behind.
 *
 * @throws WeftError WEFT_NOT_ROOT; WEFT_USAGE when there is no lab of that id.
 */
export async function removeLabs(
  id: string | undefined,
  registry: string = REGISTRY_DIRECTORY,
): Promise<DownOutcome[]> {
  requireRoot();
  const known = listLabIds(registry);
  if (id !== undefined && !known.includes(id)) {
    throw new WeftError('WEFT_USAGE', `there is no lab ${JSON.stringify(id)} on this machine`, {
      hint: known.length === 0 ? 'There is none at all.' : `There are: ${known.join(', ')}`,
    });
  }
  const outcomes: DownOutcome[] = [];
  for (const one of id === undefined ? known : [id]) outcomes.push(await removeOne(one, id !== undefined, registry));
  return outcomes;
}

async function removeOne(id: string, byName: boolean, registry: string): Promise<DownOutcome> {
  try {
    const record = readRecord(id, registry);
    if (record === undefined) return { kind: 'removed', id, purpose: 'removed meanwhile', namespaces: 0 };
    const { owner, purpose, namespaces } = record;
    if (!byName && isAlive(owner)) {
      return { kind: 'in-use', id, purpose, pid: owner.pid };
    }
    await removeLab(record, registry);
    return { kind: 'removed', id, purpose, namespaces: namespaces.length };
  } catch (error) {
    return { kind: 'failed', id, error };
  }
}

export function describeOutcome(outcome: DownOutcome): string {
  switch (outcome.kind) {
    case 'removed':
      return `removed lab ${outcome.id}: ${outcome.namespaces} namespaces (${outcome.purpose})`;
    case 'in-use':
      return `left lab ${outcome.id} alone: process ${outcome.pid} uses it (${outcome.purpose}); to remove it all the same: weft lab down ${outcome.id}`;
    case 'failed':
      return `could not remove lab ${outcome.id}: ${describeError(outcome.error)}`;
  }
}
