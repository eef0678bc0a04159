import { isDeepStrictEqual } from 'node:util';
import { describeError, WeftError } from '../errors.ts';
import { Actual } from './actual.ts';
import type { Kernel, OpResult } from './kernel.ts';
import { describeOp, type Op } from './op.ts';
import { type Plan, planAll, planChanged } from './plan/plan.ts';
import { describeProblem, type Problem } from './problem.ts';
import { type ActualWireguard, type PeerState, policyKey, type Route, routeKey, type WantedState } from './state.ts';
import { Wanted } from './wanted.ts';

export interface ReconcilerOptions {
  readonly kernel: Kernel;
  /** Called after each run in which the kernel had lost what it already had, with what was put back. Must not throw. */
  readonly onRepair?: ((ops: readonly Op[]) => void) | undefined;
  /** Called after each run that changed the kernel because something else is wanted, with what was done. Must not throw. */
  readonly onChange?: ((ops: readonly Op[]) => void) | undefined;
  /** Called for every failed run, and once for each failed operation of a run. Must not throw. */
  readonly onFailure?: ((failure: ReconcileFailure) => void) | undefined;
  /** Called when the set of problems changes (see planAll()): the empty list means that all of it is resolved. */
  readonly onProblems?: ((problems: readonly Problem[]) => void) | undefined;
  /** How long a notice of the kernel waits for more of them. Default 20. */
  readonly debounceMs?: number | undefined;
  /**
   * How long after own changes a notice is taken for what follows from them, as links and addresses have it, and the look at the
   * kernel is put off: with thousands of routes it is the dear part. Default 200.
   */
  readonly echoMs?: number | undefined;
  /** The safety net: a run at least this often. Default 30,000. */
  readonly resyncMs?: number | undefined;
  /** The first wait after a failure; it doubles up to `maxBackoffMs`. Default 100. */
  readonly backoffMs?: number | undefined;
  /** Default 30,000. */
  readonly maxBackoffMs?: number | undefined;
}

export interface ReconcileFailure {
  /** `undefined` when the whole run failed (the kernel could not be read). */
  readonly op: Op | undefined;
  /** A sentence for the log. */
  readonly message: string;
}

export interface ReconcilerStats {
  /** Times that the kernel was compared with the wanted state (each may take several passes). */
  readonly runs: number;
  /** Operations that succeeded, by type. */
  readonly operations: Readonly<Partial<Record<Op['type'], number>>>;
  /** Those of them that put back what had been there before. */
  readonly repairs: Readonly<Partial<Record<Op['type'], number>>>;
  /** Failed operations and failed runs. */
  readonly failures: number;
  readonly lastError: { readonly message: string; readonly atMs: number } | undefined;
  /** What stands in the way, as of the last run. */
  readonly problems: readonly Problem[];
  /** Whether the kernel had all that is wanted when last looked at. */
  readonly converged: boolean;
  /** WireGuard devices, as of the last look at the kernel. */
  readonly wireguard: readonly ActualWireguard[];
}

/** What is wanted and what the kernel has, for who only looks. */
export interface ReconcilerView {
  readonly wanted: Wanted;
  readonly actual: Actual;
  /** What would turn one into the other. */
  readonly ops: readonly Op[];
}

/** What one run has done so far. */
interface Done {
  readonly changed: Op[];
  readonly repaired: Op[];
}

/** A pass can make another one necessary only where several routes share a key; more passes than this are a fight. */
const MAX_PASSES = 4;
/** How far failures, and somebody who undoes our work again and again, can slow down the answer to a notice. */
const MAX_DEBOUNCE_MS = 500;

/** How long changes of the wanted state that follow each other without a pause can put off a look at the kernel. */
const MAX_OVERDUE_MS = 500;

/**
 * Keeps the kernel in the wanted state: on every change of what is wanted, on every notice of the kernel, and every
 * `resyncMs`. Runs never overlap; what happens during one leads to one more. The wanted state that was given last
 * counts, however many were given meanwhile; one that equals its predecessor costs nothing.
 *
 * A change of what is wanted is compared with what the kernel had when last looked at, taken forward by what was done
 * since. So a peer that comes or goes costs its own entries and one `ip`, whatever the number of peers, and not a dump of
 * all routes: the kernel is looked at when it gives notice of what somebody else does, and every `resyncMs`.
 *
 * What failed is tried again with back-off, and soon when the kernel or the wanted state changes. When something fails
 * again and again, or somebody undoes each repair, the debounce time doubles each time, up to half a second.
 *
 * Stopping leaves the kernel as it is: packets go on while the agent restarts.
 */
export class Reconciler implements AsyncDisposable {
  readonly #kernel: Kernel;
  readonly #options: ReconcilerOptions;
  readonly #stop = new AbortController();
  readonly #debounceMs: number;
  readonly #echoMs: number;
  readonly #operations: Partial<Record<Op['type'], number>> = {};
  readonly #repairs: Partial<Record<Op['type'], number>> = {};

  readonly #wanted = new Wanted();
  /** Rises with every change of what is wanted. */
  #version = 0;
  /** Rises when other links or addresses are wanted: what was read of the kernel before does not answer for them. */
  #scope = 0;
  /** Nothing is done before there is a wanted state: an empty one would remove what an earlier run has left. */
  #known = false;
  /** Whether all that can be had of what is wanted now was tried once: what is missing later was taken away. */
  #tried = false;
  /** What failed in the last run, by description: when it succeeds later, that is no repair. */
  #failedOps: ReadonlySet<string> = new Set();
  #converged = false;
  #problems: readonly Problem[] = [];
  #problemsKey = '';
  readonly #routeProblems = new Map<string, Problem>();
  #failure: string | undefined;
  /** Why the run under way leaves the host without something of its own. */
  #runFailure: string | undefined;
  #wireguard: readonly ActualWireguard[] = [];
  #runs = 0;
  #failures = 0;
  #lastError: { message: string; atMs: number } | undefined;
  /** Failed runs in a row. */
  #failedRuns = 0;
  /** Runs with repairs in a row. */
  #repairRuns = 0;

  /** What the kernel has, as far as known; it answers for the links that were wanted when it was read. */
  #cache: Actual | undefined;
  #appliedAtMs = Number.NEGATIVE_INFINITY;

  #listening: Promise<void> | undefined;
  #running: Promise<void> | undefined;
  /** The wanted state has changed. */
  #toApply = false;
  /** When to look at the kernel. `counts`: whether idle() waits for it. */
  #toLook: { readonly dueMs: number; readonly counts: boolean } | undefined;
  #timer: NodeJS.Timeout | undefined;
  #idle: PromiseWithResolvers<void> | undefined;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#kernel = options.kernel;
    this.#debounceMs = options.debounceMs ?? 20;
    this.#echoMs = options.echoMs ?? 200;
  }

  /** What the host itself needs; takes effect soon, see {@link idle}. It must not be changed afterwards. */
  set(host: WantedState): void {
    if (this.#stop.signal.aborted) return;
    if (this.#known && isDeepStrictEqual(host, this.#wanted.host)) return;
    const isFirst = !this.#known;
    this.#known = true;
    if (this.#wanted.setHost(host)) {
      this.#cache = undefined;
      this.#scope++;
    } else if (!isFirst && !this.#wanted.hasChanges()) return;
    this.#listening ??= this.#listen();
    this.#wantMore();
  }

  /** What one peer needs; `undefined` takes it away. Nothing is done before the first `set`. */
  setPeer(key: string, part: PeerState | undefined): void {
    if (this.#stop.signal.aborted) return;
    this.#wanted.setPeer(key, part);
    if (this.#known && this.#wanted.hasChanges()) this.#wantMore();
  }

  /** The peers that something is wanted for. */
  get peers(): ReadonlySet<string> {
    return this.#wanted.peers;
  }

  #wantMore(): void {
    this.#version++;
    this.#tried = false;
    this.#toApply = true;
    this.#arm();
  }

  /**
   * Resolves when nothing is running or about to run. Waits neither for the next try of what has failed, nor for the
   * echo of what was done, nor for the safety net: look at `stats()` for whether all is well.
   */
  idle(): Promise<void> {
    if (!this.#busy()) return Promise.resolve();
    this.#idle ??= Promise.withResolvers();
    return this.#idle.promise;
  }

  /**
   * Why the kernel has not all that the host itself needs, as of the last run; `undefined` when it has. What only concerns
   * one peer is none: it stands in `stats()`, and this host serves all the others.
   */
  get failure(): string | undefined {
    return this.#failure;
  }

  /**
   * Resolves when the kernel has all that the host itself needs, as far as it can be had now.
   * @throws WeftError WEFT_KERNEL_STATE with the {@link failure}; what is missing is tried again all the same.
   */
  async settled(signal: AbortSignal): Promise<void> {
    await this.idle();
    signal.throwIfAborted();
    if (this.#failure !== undefined) throw new WeftError('WEFT_KERNEL_STATE', this.#failure);
  }

  /** Looks at the kernel without changing it; `undefined` before there is a wanted state. @throws WeftError of the kernel. */
  async inspect(signal: AbortSignal): Promise<ReconcilerView | undefined> {
    if (!this.#known) return undefined;
    const state = await this.#kernel.read(this.#wanted.host, AbortSignal.any([signal, this.#stop.signal]));
    const actual = new Actual(state);
    return { wanted: this.#wanted, actual, ops: planAll(this.#wanted, actual).ops };
  }

  stats(): ReconcilerStats {
    return {
      runs: this.#runs,
      operations: { ...this.#operations },
      repairs: { ...this.#repairs },
      failures: this.#failures,
      lastError: this.#lastError,
      problems: this.#problems,
      converged: this.#converged && this.#problems.length === 0,
      wireguard: this.#wireguard,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    this.#toApply = false;
    this.#toLook = undefined;
    await this.#running;
    await this.#listening;
    this.#settleIdle();
  }

  #busy(): boolean {
    return this.#running !== undefined || this.#toApply || this.#toLook?.counts === true;
  }

  #settleIdle(): void {
    if (this.#busy()) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** A look at the kernel in `delayMs`, or earlier when one is due earlier. */
  #look(delayMs: number, counts: boolean): void {
    const before = this.#toLook;
    const dueMs = Math.min(performance.now() + delayMs, before?.dueMs ?? Number.POSITIVE_INFINITY);
    this.#toLook = { dueMs, counts: counts || before?.counts === true };
    this.#arm();
  }

  #arm(): void {
    if (this.#running !== undefined || this.#stop.signal.aborted) return;
    clearTimeout(this.#timer);
    if (!this.#toApply && this.#toLook === undefined) return;
    const delayMs = this.#toApply ? 0 : Math.max(0, (this.#toLook?.dueMs ?? 0) - performance.now());
    this.#timer = setTimeout(() => this.#start(), delayMs);
  }

  #start(): void {
    const isOverdue = this.#toLook !== undefined && performance.now() - this.#toLook.dueMs > MAX_OVERDUE_MS;
    const cache = this.#toApply && !isOverdue ? this.#cache : undefined;
    this.#toApply = false;
    if (cache === undefined) this.#toLook = undefined;
    this.#running = this.#run(cache).then((healthy) => {
      this.#running = undefined;
      this.#failedRuns = healthy ? 0 : this.#failedRuns + 1;
      this.#failure = this.#runFailure ?? this.#hostProblem();
      const { resyncMs = 30_000 } = this.#options;
      if (!healthy) this.#look(this.#retryDelayMs(), false);
      else this.#look(resyncMs, false);
      this.#settleIdle();
    });
  }

  #retryDelayMs(): number {
    const { backoffMs = 100, maxBackoffMs = 30_000 } = this.#options;
    return Math.min(maxBackoffMs, backoffMs * 2 ** Math.min(this.#failedRuns - 1, 30));
  }

  /** With `cache`, without a look at the kernel. Never rejects. @returns whether nothing failed. */
  async #run(cache: Actual | undefined): Promise<boolean> {
    this.#runs++;
    this.#runFailure = undefined;
    const done: Done = { changed: [], repaired: [] };
    try {
      return cache === undefined ? await this.#lookAndApply(done) : await this.#applyTo(cache, done);
    } catch (error) {
      if (this.#stop.signal.aborted) return true;
      this.#cache = undefined;
      this.#converged = false;
      this.#runFailure = describeError(error);
      this.#fail(undefined, this.#runFailure);
      return false;
    } finally {
      const { changed, repaired } = done;
      this.#repairRuns = repaired.length > 0 ? this.#repairRuns + 1 : 0;
      if (changed.length > 0) this.#options.onChange?.(changed);
      if (repaired.length > 0) this.#options.onRepair?.(repaired);
    }
  }

  async #applyTo(cache: Actual, done: Done): Promise<boolean> {
    const version = this.#version;
    const scope = this.#scope;
    const plan = planChanged(this.#wanted, cache);
    this.#setProblems(plan);
    this.#wanted.forgetChanges();
    // What is wanted may change while it is applied; whether the cache still answers is then known.
    this.#cache = undefined;
    const healthy = plan.ops.length === 0 || (await this.#apply(plan.ops, false, done));
    if (healthy && cache.follow(plan.ops) && scope === this.#scope) this.#cache = cache;
    this.#converged = healthy;
    if (version === this.#version) this.#tried = true;
    return healthy;
  }

  async #lookAndApply(done: Done): Promise<boolean> {
    for (let pass = 0; pass < MAX_PASSES; pass++) {
      const scope = this.#scope;
      const state = await this.#kernel.read(this.#wanted.host, this.#stop.signal);
      const actual = new Actual(state);
      this.#wireguard = state.wireguard ?? [];
      // It does not answer for the links that are wanted now: the run that follows reads those.
      if (scope !== this.#scope) return true;
      const version = this.#version;
      const plan = planAll(this.#wanted, actual);
      const { ops } = plan;
      // What a new link makes possible is no repair either.
      const repairing = !this.#setProblems(plan) && this.#tried;
      this.#wanted.forgetChanges();
      this.#cache = ops.length === 0 ? actual : undefined;
      this.#converged = ops.length === 0;
      const healthy = ops.length === 0 || (await this.#apply(ops, repairing, done));
      if (version === this.#version && (ops.length === 0 || !healthy)) this.#tried = true;
      if (ops.length === 0 || !healthy) return healthy;
    }
    // Their next change brings the next run.
    this.#runFailure = 'another program reverts changes on this host as fast as they are made';
    return true;
  }

  /** Appends what was done. @returns whether all operations succeeded. */
  async #apply(ops: readonly Op[], repairing: boolean, done: Done): Promise<boolean> {
    // The first echoes come before the last operation is done.
    this.#appliedAtMs = Number.POSITIVE_INFINITY;
    try {
      return this.#count(await this.#kernel.apply(ops, this.#stop.signal), repairing, done);
    } finally {
      this.#appliedAtMs = performance.now();
    }
  }

  #count(results: readonly OpResult[], repairing: boolean, done: Done): boolean {
    const failed = new Set<string>();
    for (const result of results) {
      const { op } = result;
      const description = describeOp(op);
      if (!result.ok) {
        failed.add(description);
        if (this.#isOfHost(op)) this.#runFailure ??= `${description}: ${result.error}`;
        this.#fail(op, `${description}: ${result.error}`);
        continue;
      }
      this.#operations[op.type] = (this.#operations[op.type] ?? 0) + 1;
      if (!repairing || this.#failedOps.has(description)) {
        done.changed.push(op);
        continue;
      }
      this.#repairs[op.type] = (this.#repairs[op.type] ?? 0) + 1;
      done.repaired.push(op);
    }
    this.#failedOps = failed;
    return failed.size === 0;
  }

  /** Removing what is not wanted any more keeps no packet back. */
  #isOfHost(op: Op): boolean {
    switch (op.type) {
      case 'link-add':
      case 'link-set':
      case 'link-rename':
      case 'link-sum-before':
      case 'address-add':
      case 'wireguard-set':
        return true;
      case 'route-add':
      case 'route-replace':
        return this.#isHostRoute(op.route);
      case 'policy-set': {
        const key = policyKey(op.policy);
        return this.#wanted.host.policies?.some((own) => policyKey(own) === key) === true;
      }
      default:
        return false;
    }
  }

  #isHostRoute(route: Route): boolean {
    const key = routeKey(route);
    return this.#wanted.host.routes.some((own) => routeKey(own) === key);
  }

  #hostProblem(): string | undefined {
    const first = this.#problems.find((problem) => {
      // A host with the second one carries packets all the same.
      if (['route-twice', 'key-twice', 'sysctl-read-only'].includes(problem.type)) return false;
      return problem.type !== 'route-taken' || this.#isHostRoute(problem.route);
    });
    return first && describeProblem(first);
  }

  #fail(op: Op | undefined, message: string): void {
    this.#failures++;
    this.#lastError = { message, atMs: Date.now() };
    this.#options.onFailure?.({ op, message });
  }

  /** @returns whether they have changed. */
  #setProblems({ linkProblems, routeProblems, routeKeys }: Plan): boolean {
    if (routeKeys === undefined) this.#routeProblems.clear();
    else for (const key of routeKeys) this.#routeProblems.delete(key);
    for (const [key, problem] of routeProblems) this.#routeProblems.set(key, problem);
    const twice = [
      ...[...this.#wanted.routes.losers()].map((route): Problem => ({ type: 'route-twice', route })),
      ...[...this.#wanted.wireguard.losers()].map((peer): Problem => ({ type: 'key-twice', peer })),
    ];
    const byText = new Map(
      [...linkProblems, ...this.#routeProblems.values(), ...twice].map((problem) => [
        describeProblem(problem),
        problem,
      ]),
    );
    this.#problems = [...byText.values()];
    const key = [...byText.keys()].join('\n');
    if (key === this.#problemsKey) return false;
    this.#problemsKey = key;
    this.#options.onProblems?.(this.#problems);
    return true;
  }

  /** Never rejects. */
  async #listen(): Promise<void> {
    for (let attempt = 0; !this.#stop.signal.aborted; attempt++) {
      try {
        for await (const _ of this.#kernel.changes(() => this.#wanted.host, this.#stop.signal)) {
          attempt = 0;
          // What we do ourselves comes back as a notice, also when part of it fails for ever.
          const doublings = Math.min(10, Math.max(this.#repairRuns, this.#failedRuns));
          const delayMs = Math.min(MAX_DEBOUNCE_MS, this.#debounceMs * 2 ** doublings);
          const isEcho = this.#echoMs > 0 && performance.now() - this.#appliedAtMs < this.#echoMs;
          this.#look(isEcho ? Math.max(delayMs, this.#echoMs) : delayMs, !isEcho);
        }
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#fail(undefined, `could not listen for kernel changes: ${describeError(error)}`);
      }
      if (this.#stop.signal.aborted) return;
      const { backoffMs = 100, maxBackoffMs = 30_000 } = this.#options;
      await this.#pause(Math.min(maxBackoffMs, backoffMs * 2 ** Math.min(attempt, 30)));
    }
  }

  #pause(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const handle = setTimeout(done, ms);
    function done(): void {
      clearTimeout(handle);
      resolve();
    }
    this.#stop.signal.addEventListener('abort', done, { once: true });
    return promise.finally(() => this.#stop.signal.removeEventListener('abort', done));
  }
}
