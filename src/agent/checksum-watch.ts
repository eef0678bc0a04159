import { setTimeout as delay } from 'node:timers/promises';
import type { Neighbour, WantedState } from '../desired/state.ts';
import { formatAddr, type IpAddr } from '../ip/address.ts';
import type { LeaseKey } from '../lease/lease.ts';
import type { Log } from '../log/log.ts';
import type { AgentHost } from './ports.ts';

export interface ProbedLink {
  readonly link: string;
  /** Own address on it. */
  readonly from: IpAddr;
}

export interface ChecksumWatchParts {
  readonly probe: AgentHost['probeChecksum'];
  /** Another link is among the {@link ChecksumWatch.broken}. */
  readonly onBroken: () => void;
  readonly log: Pick<Log, 'info' | 'warn'>;
  /** How long an answer may take, and how long to wait when no peer has answered at all. */
  readonly timing?: { readonly answerMs: number; readonly retryMs: number };
}

const TIMING = { answerMs: 1_000, retryMs: 10_000 };
/** So often in a row a datagram must be lost with one checksum and arrive with the other. */
const ROUNDS = 3;
/** Peers asked in one turn. */
const PEERS = 3;
/** So many peers are believed; fewer where no other one answers. One alone may have a fault of its own, or tell lies. */
const WITNESSES = 2;

type Verdict = 'works' | 'broken' | 'unknown';

/**
 * Finds out whether network cards on the way spoil the checksums of tunnelled packets that they were left to compute: peers are sent
 * the same datagram with a checksum of the device's and with one of the kernel's. Only a peer that answers the second and never
 * the first, three times in a row, is evidence; a peer that answers neither says nothing. Once a link has a verdict, nobody is asked
 * any more until `basis` changes.
 */
export class ChecksumWatch implements AsyncDisposable {
  readonly #parts: ChecksumWatchParts;
  readonly #stop = new AbortController();
  readonly #broken = new Set<string>();
  readonly #working = new Set<string>();
  readonly #peers = new Map<LeaseKey, readonly Neighbour[]>();
  #links: readonly ProbedLink[] = [];
  #basis: string | undefined;
  /** Where the next turn begins among the peers. */
  #next = 0;
  #running: Promise<void> | undefined;

  constructor(parts: ChecksumWatchParts) {
    this.#parts = parts;
  }

  /** Links on which this host must compute checksums itself. */
  get broken(): ReadonlySet<string> {
    return this.#broken;
  }

  /** @param basis of what the answer depends on: when it is another one, links that worked are tried anew. */
  set(links: readonly ProbedLink[], basis: string): void {
    if (basis !== this.#basis) this.#working.clear();
    this.#basis = basis;
    this.#links = links;
    this.#wake();
  }

  setPeer(key: LeaseKey, neighbours: readonly Neighbour[]): void {
    if (neighbours.length === 0) this.#peers.delete(key);
    else this.#peers.set(key, neighbours);
    this.#wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  #open(): readonly ProbedLink[] {
    return this.#links.filter(({ link }) => !this.#broken.has(link) && !this.#working.has(link));
  }

  #wake(): void {
    if (this.#running !== undefined || this.#stop.signal.aborted) return;
    if (this.#peers.size === 0 || this.#open().length === 0) return;
    this.#running = this.#run()
      .catch(() => {}) // told to stop
      .finally(() => {
        this.#running = undefined;
      });
  }

  async #run(): Promise<void> {
    const { retryMs } = this.#parts.timing ?? TIMING;
    while (this.#peers.size > 0) {
      for (const probed of this.#open()) await this.#ask(probed);
      if (this.#open().length === 0) return;
      await delay(retryMs, undefined, { signal: this.#stop.signal, ref: false });
    }
  }

  async #ask({ link, from }: ProbedLink): Promise<void> {
    const { log, onBroken } = this.#parts;
    const there = [...this.#peers.values()].flat().filter((neighbour) => neighbour.link === link);
    const against: IpAddr[] = [];
    for (let asked = 0; asked < Math.min(PEERS, there.length) && against.length < WITNESSES; asked++) {
      const { addr } = there[this.#next++ % there.length]!;
      const verdict = await this.#judge(from, addr);
      if (verdict === 'works') {
        this.#working.add(link);
        log.info(`Checksum offload works on ${link}: ${formatAddr(addr)} has answered`);
        return;
      }
      if (verdict === 'broken') against.push(addr);
    }
    if (against.length === 0) return;
    this.#broken.add(link);
    const peers = `${against.map(formatAddr).join(' and ')} ${against.length === 1 ? 'answers' : 'answer'}`;
    log.warn(
      `Checksum offload corrupts packets from ${link}: ${peers} only if this host computes the checksum itself. Turning off tx-checksum-ip-generic on ${link} (TxChecksumOffload)`,
    );
    onBroken();
  }

  async #judge(from: IpAddr, to: IpAddr): Promise<Verdict> {
    const { answerMs } = this.#parts.timing ?? TIMING;
    const ask = (by: 'device' | 'kernel'): Promise<boolean | undefined> =>
      this.#parts.probe({ from, to, by, timeoutMs: answerMs }, this.#stop.signal);
    for (let round = 0; round < ROUNDS; round++) {
      const device = await ask('device');
      if (device !== false) return device === true ? 'works' : 'unknown';
      if ((await ask('kernel')) !== true) return 'unknown';
    }
    return 'broken';
  }
}

/** The same, with this host computing the checksums of what enters these links. */
export function summedBefore(state: WantedState, names: ReadonlySet<string>): WantedState {
  const links = state.links.map((link) =>
    link.kind === 'vxlan' && names.has(link.name) ? { ...link, sumsBefore: true as const } : link,
  );
  return { ...state, links };
}
