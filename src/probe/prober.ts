import { formatAddr, type IpAddr } from '../ip/address.ts';
import type { Refusal } from './diagnose.ts';
import type { Arrival, ProbeIo, ProbeTarget } from './ports.ts';
import { type Cadence, CLOSED_PORTS } from './probe-kind.ts';
import { type DueProbe, type PathResult, ProbePath } from './probe-path.ts';
import { WatchList } from './watch-list.ts';

export interface ProberOptions {
  readonly io: ProbeIo;
  readonly cadence: Cadence;
  /** Probes that one turn may send, at most. */
  readonly perTurn: number;
  /** More peers than that are not probed at a time (watch-list.ts). */
  readonly watched: number;
  /** What the kernel says when it does not send, in words. */
  readonly describeErrno: (errno: number) => 'no-route' | 'not-permitted' | 'too-long' | 'other';
}

interface Outstanding {
  readonly path: ProbePath;
  readonly probe: DueProbe;
  readonly sentAtMs: number;
}

/** Probe packets that were exchanged with a peer through the overlay, as the data path counts packets. */
export interface ProbePackets {
  readonly tx: number;
  readonly rx: number;
}

/**
 * Measures the ways to the peers. Pure but for its port: somebody calls {@link turn} at regular times, and each call costs the
 * same however many peers there are.
 */
export class Prober {
  readonly #options: ProberOptions;
  readonly #targets = new Map<string, ProbeTarget>();
  readonly #byAddress = new Map<IpAddr, string>();
  readonly #paths = new Map<string, ProbePath>();
  readonly #packets = new Map<string, { tx: number; rx: number }>();
  readonly #list: WatchList;
  readonly #outstanding = new Map<string, Outstanding>();
  #sequence = 0;
  #sent = 0;

  constructor(options: ProberOptions) {
    this.#options = options;
    this.#list = new WatchList(options.watched);
  }

  /** `undefined`: the peer is gone. A target that differs from the one before starts anew. */
  set(id: string, target: ProbeTarget | undefined): void {
    const before = this.#targets.get(id);
    if (before !== undefined && target !== undefined && isSame(before, target)) return;
    if (before !== undefined) this.#byAddress.delete(before.overlay);
    this.#paths.delete(id);
    if (target === undefined) {
      this.#targets.delete(id);
      this.#packets.delete(id);
      this.#list.remove(id);
      return;
    }
    this.#targets.set(id, target);
    this.#byAddress.set(target.overlay, id);
    this.#list.add(id);
  }

  /** Peers that packets are exchanged with now: they are looked at first where there are too many. */
  setActive(ids: Iterable<string>): void {
    this.#list.setActive(ids);
  }

  /** Takes what has come, gives up on what has not, and sends what is due. @param nowMs by the clock of the port. */
  turn(nowMs: number): void {
    for (const arrival of this.#options.io.receive()) this.#take(arrival);
    for (const [key, { path, probe, sentAtMs }] of this.#outstanding) {
      const { timeoutMs, searchTimeoutMs } = this.#options.cadence;
      if (nowMs - sentAtMs <= (probe.kind === 'search' ? searchTimeoutMs : timeoutMs)) continue;
      this.#outstanding.delete(key);
      path.lost(probe, nowMs);
    }
    const watched = this.#list.now(nowMs);
    for (const id of this.#paths.keys()) if (!watched.has(id)) this.#paths.delete(id);
    let left = this.#options.perTurn;
    for (let looks = watched.size; looks > 0 && left > 0; looks--) {
      const path = this.#pathOf(this.#list.next()!);
      while (left > 0) {
        const probe = path.due(nowMs);
        if (probe === undefined) break;
        left--;
        this.#send(path, probe, nowMs);
        // The others' turn comes first, unless there is nobody else.
        if (watched.size > 1) break;
      }
    }
  }

  /** Of the peers that are looked at now. */
  results(nowMs: number): PathResult[] {
    return Array.from(this.#paths.values(), (path) => path.result(nowMs));
  }

  result(id: string, nowMs: number): PathResult | undefined {
    return this.#paths.get(id)?.result(nowMs);
  }

  /** Probes that were handed to the kernel. */
  get sent(): number {
    return this.#sent;
  }

  packets(id: string): ProbePackets {
    return this.#packets.get(id) ?? { tx: 0, rx: 0 };
  }

  #pathOf(id: string): ProbePath {
    let path = this.#paths.get(id);
    if (path === undefined) this.#paths.set(id, (path = new ProbePath(this.#targets.get(id)!, this.#options.cadence)));
    return path;
  }

  #send(path: ProbePath, probe: DueProbe, nowMs: number): void {
    const { target } = path;
    const { kind } = probe;
    const isBeside = kind === 'underlay' || kind === 'underlay-full';
    const to = isBeside ? target.underlay! : target.overlay;
    path.sent(probe, nowMs);
    const isUdp = kind === 'udp' || kind === 'udp-plain';
    const sequence = isUdp ? 0 : this.#nextSequence();
    const sent = this.#options.io.send(
      isUdp
        ? { kind: 'udp', to, port: CLOSED_PORTS[kind], checksum: kind === 'udp' }
        : { kind: 'echo', to, sequence, totalBytes: probe.totalBytes },
    );
    if ('errno' in sent) {
      path.refused(probe, { by: 'kernel', errno: this.#options.describeErrno(sent.errno) }, 0, nowMs);
      return;
    }
    this.#sent++;
    if (!isBeside) this.#count(target.id, 'tx');
    const key = isUdp ? `udp ${CLOSED_PORTS[kind]} ${to}` : `echo ${sequence}`;
    this.#outstanding.delete(key);
    this.#outstanding.set(key, { path, probe, sentAtMs: sent.atMs });
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) & 0xffff;
    return this.#sequence;
  }

  #take({ from, atMs, message }: Arrival): void {
    const peer = this.#byAddress.get(from);
    if (peer !== undefined) this.#count(peer, 'rx');
    if (message.kind === 'request') {
      if (peer === undefined) return;
      // The kernel answers it.
      this.#count(peer, 'tx');
      this.#paths.get(peer)?.heard(atMs);
      return;
    }
    const about = message.kind === 'reply' ? ({ kind: 'echo', sequence: message.sequence } as const) : message.about;
    const key = about.kind === 'echo' ? `echo ${about.sequence}` : `udp ${about.port} ${from}`;
    const outstanding = this.#outstanding.get(key);
    if (outstanding === undefined) return;
    const { path, probe, sentAtMs } = outstanding;
    const isUdp = probe.kind === 'udp' || probe.kind === 'udp-plain';
    if (message.kind === 'reply' || (isUdp && message.reason === 'port')) {
      this.#outstanding.delete(key);
      path.answered(probe, atMs - sentAtMs, atMs);
      return;
    }
    // A firewall that refuses closed ports has answered the question whether the packet arrived.
    this.#outstanding.delete(key);
    if (isUdp && message.reason === 'prohibited') {
      path.answered(probe, atMs - sentAtMs, atMs);
      return;
    }
    const refusal: Refusal = { by: 'icmp', reason: message.reason, from: formatAddr(from) };
    path.refused(probe, refusal, message.mtuBytes, atMs);
  }

  #count(id: string, direction: 'tx' | 'rx'): void {
    let counts = this.#packets.get(id);
    if (counts === undefined) this.#packets.set(id, (counts = { tx: 0, rx: 0 }));
    counts[direction]++;
  }
}

function isSame(a: ProbeTarget, b: ProbeTarget): boolean {
  return (
    a.overlay === b.overlay &&
    a.underlay === b.underlay &&
    a.mtuBytes === b.mtuBytes &&
    a.underlayMtuBytes === b.underlayMtuBytes
  );
}
