import { confFilesBefore, hiddenBy } from '../cni/conf-dir.ts';
import { ConfKeeper, type ConfKeeperEvent } from '../cni/conf-keeper.ts';
import { CONF_FILE_NAME } from '../cni/conf-list.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import { describeError } from '../errors.ts';
import type { Log } from '../log/log.ts';
import type { NodeReadiness } from './readiness.ts';

/** Where container runtimes look unless they are told otherwise. */
const RUNTIME_CONF_DIR = '/etc/cni/net.d';

/** The CNI configuration of this node, if the agent is to keep it; else others install it, and only its place is looked at. */
export class NodeCniConf implements AsyncDisposable {
  readonly #keeper: ConfKeeper | undefined;
  readonly #log: Log;

  constructor(options: FlanneldOptions, readiness: NodeReadiness, log: Log) {
    this.#log = log;
    if (options.cniConfDir === '') return;
    const keeper = new ConfKeeper({
      directory: options.cniConfDir,
      templatePath: options.cniConfTemplate,
      plugin: options.cniConfPlugin,
      subnetFile: options.subnetFile,
      onEvent: (event) => this.#tell(event, options.cniConfDir),
    });
    readiness.watch('cni-conf', keeper);
    this.#keeper = keeper;
  }

  /** First of all: what an earlier boot left must not make the node ready. */
  async start(): Promise<void> {
    try {
      if (await this.#keeper?.removeStale()) {
        this.#log.info(`Removed ${this.#keeper?.path}: no packets flow yet, and pods must not start before they do`);
      }
      if (this.#keeper === undefined) await this.#lookForHiding();
    } catch (error) {
      this.#log.warn(`Could not check the CNI configuration: ${describeError(error)}`);
    }
  }

  /** Once packets flow; from then on it is kept. */
  async publish(): Promise<void> {
    await this.#keeper?.publish();
  }

  /** Where nobody has put flannel's configuration, it is not meant to be used, and nothing hides it. */
  async #lookForHiding(): Promise<void> {
    const [hiding, upToOurs] = [
      await confFilesBefore(RUNTIME_CONF_DIR, CONF_FILE_NAME),
      await confFilesBefore(RUNTIME_CONF_DIR, `${CONF_FILE_NAME}\0`),
    ];
    if (hiding.length > 0 && upToOurs.includes(CONF_FILE_NAME)) {
      this.#log.warn(hiddenBy(RUNTIME_CONF_DIR, hiding, CONF_FILE_NAME));
    }
  }

  #tell(event: ConfKeeperEvent, directory: string): void {
    switch (event.type) {
      case 'written':
        this.#log.info(`Wrote CNI configuration ${event.path} (${BEFORE[event.before]})`);
        break;
      case 'failed':
        this.#log.error(describeError(event.error));
        break;
      case 'hidden':
        this.#log.warn(hiddenBy(directory, event.files, CONF_FILE_NAME));
        break;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#keeper?.[Symbol.asyncDispose]();
  }
}

const BEFORE = {
  nothing: 'it did not exist',
  ours: 'it replaced an earlier one',
  "somebody's": 'it replaced one that the agent had not written',
} as const;
