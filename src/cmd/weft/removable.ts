import { readdir, readFile, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Kernel } from '../../desired/kernel.ts';
import { leftoverLinks, leftoverPolicies, leftoverRoutes, leftoverScope } from '../../desired/leftovers.ts';
import { describeOp, type Op } from '../../desired/op.ts';
import { type ActualState, describePolicy, describeRoute, type OwnLink } from '../../desired/state.ts';
import { hasErrno } from '../../errno.ts';
import { describeError, WeftError } from '../../errors.ts';
import { bpfDirectories, removeBpfDirectory } from '../../linux/bpf-directory.ts';
import type { OuterFilters } from '../../linux/outer-filters.ts';
import type { TrafficManager } from '../../trafficmngr/traffic-manager.ts';

/** One kind of thing that agents leave on a host, to be found by what it is and nothing else. */
export interface Removable {
  /** In headings and errors: `routes`, `iptables rules`. */
  readonly what: string;
  /** What there is of it, one line each, in words that a person knows it by. Changes nothing. */
  find(signal: AbortSignal): Promise<readonly string[]>;
  /** Called when something was found. Whether it succeeded is judged by what is found afterwards. */
  remove(signal: AbortSignal): Promise<unknown>;
}

export interface CleanupStep {
  readonly what: string;
  /** What was removed, or, in a dry run, what would be. */
  readonly lines: readonly string[];
  /** Why it could not be looked for, or why some of it is still there. */
  readonly failure: string | undefined;
}

/** Works through the list in its order, and goes on after a failure. @throws the reason of `signal` when that fired. */
export async function* cleanUp(
  removables: readonly Removable[],
  { dryRun }: { readonly dryRun: boolean },
  signal: AbortSignal,
): AsyncGenerator<CleanupStep, void, void> {
  for (const { what, find, remove } of removables) {
    const found = await attempt(() => find(signal), signal);
    if (!found.ok || found.value.length === 0 || dryRun) {
      yield { what, lines: found.ok ? found.value : [], failure: found.ok ? undefined : found.error };
      continue;
    }
    const removal = await attempt(() => remove(signal), signal);
    const after = await attempt(() => find(signal), signal);
    const left = after.ok ? after.value : found.value;
    const reason = removal.ok ? (after.ok ? `still there: ${left.join('; ')}` : after.error) : removal.error;
    yield {
      what,
      lines: found.value.filter((line) => !left.includes(line)),
      failure: left.length === 0 ? undefined : reason,
    };
  }
}

type Attempt<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: string };

async function attempt<T>(action: () => Promise<T>, signal: AbortSignal): Promise<Attempt<T>> {
  signal.throwIfAborted();
  try {
    return { ok: true, value: await action() };
  } catch (error) {
    signal.throwIfAborted();
    return { ok: false, error: describeError(error) };
  }
}

/**
 * Files by path, and what writers of them that were killed have left beside them (`.NAME.PID`). Where others may have a file
 * of the same name, `isOurs` tells by its content.
 */
export function removableFiles(
  what: string,
  paths: readonly string[],
  isOurs?: (content: string) => boolean,
): Removable {
  const find = async (): Promise<string[]> => (await Promise.all(paths.map((path) => filesAt(path, isOurs)))).flat();
  return { what, find, remove: async () => await Promise.all((await find()).map((path) => rm(path))) };
}

async function filesAt(path: string, isOurs: ((content: string) => boolean) | undefined): Promise<string[]> {
  const [directory, name] = [dirname(path), basename(path)];
  const isTemporary = (other: string): boolean =>
    other.startsWith(`.${name}.`) && /^\d+$/.test(other.slice(name.length + 2));
  const found: string[] = [];
  for (const other of await namesIn(directory)) {
    const full = join(directory, other);
    if (other === name ? (isOurs?.(await readFile(full, 'utf8')) ?? true) : isTemporary(other)) found.push(full);
  }
  return found;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/** Programs and maps that carry packets while no agent runs. */
export function removableFastPath(root: string): Removable {
  const find = async (): Promise<string[]> => bpfDirectories(root);
  return { what: 'fast path', find, remove: async () => (await find()).forEach(removeBpfDirectory) };
}

export function removableRules(what: string, manager: TrafficManager): Removable {
  return { what, find: (signal) => manager.read(signal), remove: (signal) => manager.remove(signal) };
}

export function removableOuterFilters(filters: OuterFilters): Removable {
  return {
    what: 'filters of tunnelled packets',
    find: async (signal) => (await filters.names(signal)).map((name) => `table inet ${name}`),
    remove: async (signal) => {
      for (const name of await filters.names(signal)) await filters.remove(name, signal);
    },
  };
}

export function removableRoutes(kernel: Kernel): Removable {
  return removableState(kernel, 'routes', [], leftoverRoutes, (op) =>
    op.type === 'route-delete' ? describeRoute(op.route) : describeOp(op),
  );
}

export function removablePolicies(kernel: Kernel): Removable {
  return removableState(kernel, 'IPsec policies', [], leftoverPolicies, (op) =>
    op.type === 'policy-delete' ? describePolicy(op.policy) : describeOp(op),
  );
}

export function removableLinks(kernel: Kernel, links: readonly OwnLink[]): Removable {
  const leftover = (actual: ActualState) => leftoverLinks(links, actual);
  return removableState(kernel, 'devices', links, leftover, (op) => op.name);
}

/** @param links that must be read of the kernel. @param leftover the operations that take it away. */
function removableState<O extends Op>(
  kernel: Kernel,
  what: string,
  links: readonly OwnLink[],
  leftover: (actual: ActualState) => readonly O[],
  describe: (op: O) => string,
): Removable {
  const find = async (signal: AbortSignal) => leftover(await kernel.read(leftoverScope(links), signal));
  return {
    what,
    find: async (signal) => (await find(signal)).map(describe),
    remove: async (signal) => await applyAll(kernel, await find(signal), signal),
  };
}

async function applyAll(kernel: Kernel, ops: readonly Op[], signal: AbortSignal): Promise<void> {
  const failed = (await kernel.apply(ops, signal)).filter((result) => !result.ok);
  if (failed.length === 0) return;
  const list = failed.map(({ op, error }) => `${describeOp(op)}: ${error}`).join('; ');
  throw new WeftError('WEFT_KERNEL_STATE', `the kernel refused: ${list}`);
}
