import { backendKind } from '../backend/registry.ts';
import type { FlanneldOptions } from '../config/flanneld-options.ts';
import type { NetworkConfig } from '../config/network-config.ts';
import type { RecordEvent } from '../events/event.ts';
import type { IpPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { GateRules } from '../lease/gate-rules.ts';
import { admittedOf } from '../lease/lease-gate.ts';
import type { Log } from '../log/log.ts';
import { describeNetworkConfig, type LastKnown, lastKnownPath, readLastKnown } from '../node-files/last-known.ts';
import type { SubnetEnvNetworks } from '../node-files/subnet-env.ts';
import { readSubnetFile } from '../node-files/subnet-file.ts';
import { describeStore } from './store-name.ts';

/** What an agent of the same subnet file has left in its files. */
export class EarlierRun {
  readonly #options: FlanneldOptions;
  readonly #log: Pick<Log, 'warn'>;
  #known: LastKnown | undefined;
  #writtenAt: Date | undefined;
  #isFirst = false;

  constructor(options: FlanneldOptions, log: Pick<Log, 'warn'>) {
    this.#options = options;
    this.#log = log;
  }

  /** What it knew, as far as it may be believed; `undefined` until it was read, and when it is of no use. */
  get known(): LastKnown | undefined {
    return this.#known;
  }

  /** Whether no weft has worked with this subnet file before: what else an agent has left is a flanneld's. */
  get isFirst(): boolean {
    return this.#isFirst;
  }

  /** When that was written. */
  get writtenAt(): Date | undefined {
    return this.#writtenAt;
  }

  /** Says why what it knew cannot be used, and of which peers. Never rejects. */
  async read(): Promise<LastKnown | undefined> {
    const { subnetFile } = this.#options;
    const result = await readLastKnown(subnetFile, describeStore(this.#options), backendKind);
    this.#isFirst = result.kind === 'absent';
    if (result.kind === 'unusable') this.#log.warn(`${lastKnownPath(subnetFile)} is not used: ${result.reason}`);
    if (result.kind !== 'read') return undefined;
    const { known, writtenAt, unreadable } = result;
    if (unreadable.length > 0) {
      const [first] = unreadable;
      this.#log.warn(
        `${lastKnownPath(subnetFile)}: ${unreadable.length} peers cannot be read, the first because: ${first}`,
      );
    }
    this.#known = known;
    this.#writtenAt = writtenAt;
    return known;
  }

  /** Its peers pass the same gate as those of the store. */
  believe(known: LastKnown, rules: GateRules): LastKnown {
    const believed = { ...known, peers: admittedOf(rules, known.own, known.peers) };
    this.#known = believed;
    return believed;
  }

  /** Whether it worked with this network configuration. */
  hadConfig(config: NetworkConfig): boolean {
    return this.#known !== undefined && describeNetworkConfig(this.#known.config) === describeNetworkConfig(config);
  }

  /** Records that this host works with another backend than it did. */
  noteBackend(now: string, record: RecordEvent): void {
    const before = this.#known?.config.backend.type;
    if (before === undefined || before === now) return;
    const text = `this host now uses the backend ${now}, before it was ${before}`;
    record({ kind: 'backend-changed', severity: 'info', subject: now, text });
  }

  /** What subnet.env says; `undefined` when it says nothing of use. */
  async subnetEnv(signal: AbortSignal): Promise<SubnetEnvNetworks | undefined> {
    const earlier = await readSubnetFile(this.#options.subnetFile, signal);
    return earlier.kind === 'read' ? earlier.reading : undefined;
  }

  /** Its networks: what it has left of them on this host is this agent's, as no other has the same subnet.env. */
  async networks(signal: AbortSignal): Promise<readonly IpPrefix[]> {
    const earlier = await this.subnetEnv(signal);
    return earlier === undefined ? [] : present(earlier.networks);
  }
}
