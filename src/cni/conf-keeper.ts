import { type FSWatcher, watch } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { writeFileAtomically } from '../atomic-file.ts';
import { hasErrno } from '../errno.ts';
import { describeError, WeftError } from '../errors.ts';
import { confFilesBefore } from './conf-dir.ts';
import { CONF_FILE_NAME, type ConfList, FLANNEL_CONF_LIST, parseConfList } from './conf-list.ts';
import { isWrittenByWeft, renderConf, withoutWrapper } from './final-conf.ts';
import { parsePluginSubnetEnv } from './plugin-subnet-env.ts';

export interface ConfKeeperOptions {
  /** Where the container runtime looks for configurations. */
  readonly directory: string;
  /** cni-conf.json; flannel's own counts when there is none. */
  readonly templatePath: string;
  /** What a pod starts with: the delegate itself, or the plugin `flannel`, as the template says. */
  readonly plugin: 'delegate' | 'flannel';
  /** What the agent has written for this host. */
  readonly subnetFile: string;
  readonly onEvent: (event: ConfKeeperEvent) => void;
  /** How often to look when nothing is heard; changes are seen at once where the file system tells of them. */
  readonly intervalMs?: number;
}

export type ConfKeeperEvent =
  /** `before`: what was there under the name of our file. */
  | { readonly type: 'written'; readonly path: string; readonly before: 'nothing' | 'ours' | "somebody's" }
  /** The file cannot be made or written; said once for each reason. What was written earlier stays. */
  | { readonly type: 'failed'; readonly error: WeftError }
  | { readonly type: 'hidden'; readonly files: readonly string[] };

const INTERVAL_MS = 10_000;
/** Another program may keep the same file: the two of us then write in turns, and not at full speed. */
const AFTER_WRITE_MS = 1_000;

/**
 * Keeps the CNI configuration of this node: made from cni-conf.json and subnet.env, written once {@link publish} says that
 * packets flow, and written again whenever one of the two changes or somebody changes or removes it. Disposing stops that and
 * leaves the file, for the pods that start while the agent is replaced.
 */
export class ConfKeeper implements AsyncDisposable {
  readonly #options: ConfKeeperOptions;
  readonly #stop = new AbortController();
  #watchers: FSWatcher[] = [];
  #wake = new AbortController();
  #running: Promise<void> | undefined;
  #failure: string | undefined;
  #hiding = '';

  constructor(options: ConfKeeperOptions) {
    this.#options = options;
  }

  get path(): string {
    return join(this.#options.directory, CONF_FILE_NAME);
  }

  /** Why there is no configuration, or an old one; `undefined` when all is well, or nothing was published yet. */
  get failure(): string | undefined {
    return this.#failure;
  }

  /**
   * For the start: without a subnet.env this host carries no packets yet (it has been booted, for example), and kubelet must
   * not call the node ready for a file of an earlier run. Returns whether one was removed.
   *
   * @throws the error of the system call when it cannot be removed.
   */
  async removeStale(): Promise<boolean> {
    if ((await readIfThere(this.#options.subnetFile)) !== undefined) return false;
    const text = await readIfThere(this.path);
    if (text === undefined || !isWrittenByWeft(text)) return false;
    await rm(this.path, { force: true });
    return true;
  }

  /** Resolves when the file was written, or could not be. Later calls only look again. */
  async publish(): Promise<void> {
    if (this.#running !== undefined) {
      this.#wake.abort();
      return;
    }
    await this.#check();
    this.#watchers = [this.#options.directory, ...[this.#options.templatePath, this.#options.subnetFile].map(dirname)]
      .map((folder) => this.#watch(folder))
      .filter((watcher) => watcher !== undefined);
    // What changed before anybody watched.
    this.#wake.abort();
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const wake = this.#wake.signal;
      const either = AbortSignal.any([wake, signal]);
      await delay(this.#options.intervalMs ?? INTERVAL_MS, undefined, { signal: either, ref: false }).catch(() => {});
      if (signal.aborted) return;
      if (wake.aborted) this.#wake = new AbortController();
      if (await this.#check()) await delay(AFTER_WRITE_MS, undefined, { signal, ref: false }).catch(() => {});
    }
  }

  /** Returns whether it has written. */
  async #check(): Promise<boolean> {
    try {
      const wrote = await this.#write();
      this.#failure = undefined;
      await this.#lookForHiding();
      return wrote;
    } catch (error) {
      const known = error instanceof WeftError ? error : unwritable(this.path, error);
      const text = describeError(known);
      if (text !== this.#failure) this.#options.onEvent({ type: 'failed', error: known });
      this.#failure = text;
      return false;
    }
  }

  async #write(): Promise<boolean> {
    const existing = await readIfThere(this.path);
    const wanted = await this.#wanted();
    // Without subnet.env nothing new can be said; it was there when this began.
    const text = wanted && renderConf(wanted, existing);
    if (text === undefined || text === existing) return false;
    await writeFileAtomically(this.path, text);
    const before = existing === undefined ? 'nothing' : isWrittenByWeft(existing) ? 'ours' : "somebody's";
    this.#options.onEvent({ type: 'written', path: this.path, before });
    return true;
  }

  async #wanted(): Promise<ConfList | undefined> {
    const { templatePath, subnetFile, plugin } = this.#options;
    const template = await readIfThere(templatePath);
    const list = template === undefined ? FLANNEL_CONF_LIST : parseConfList(template, templatePath);
    const subnetEnv = await readIfThere(subnetFile);
    if (subnetEnv === undefined) return undefined;
    return plugin === 'flannel'
      ? list
      : withoutWrapper(list, parsePluginSubnetEnv(subnetEnv, subnetFile), templatePath);
  }

  async #lookForHiding(): Promise<void> {
    const files = await confFilesBefore(this.#options.directory, CONF_FILE_NAME);
    const hiding = files.join('\n');
    if (hiding !== this.#hiding && files.length > 0) this.#options.onEvent({ type: 'hidden', files });
    this.#hiding = hiding;
  }

  /** `undefined` when the folder cannot be watched; looking from time to time has to do then. */
  #watch(folder: string): FSWatcher | undefined {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.#wake.abort());
      watcher.on('error', () => watcher.close());
      return watcher;
    } catch {
      return undefined;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    for (const watcher of this.#watchers) watcher.close();
    await this.#running;
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function unwritable(path: string, cause: unknown): WeftError {
  return new WeftError(
    'WEFT_CNI_CONF_UNWRITABLE',
    `cannot keep the CNI configuration ${path}: ${describeError(cause)}`,
    {
      hint: "Pods cannot start without it. In a pod, mount the host's folder of CNI configurations writable.",
      cause,
    },
  );
}
