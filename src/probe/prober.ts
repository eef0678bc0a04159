import { containsAddr, formatAddr, type IpAddr, parsePrefix } from '../ip/address.ts';
import { unguessable } from '../unguessable.ts';
import type { Refusal } from './diagnose.ts';
import type { FaultLog } from './fault-log.ts';
import type { Arrival, ProbeIo, ProbeTarget } from './ports.ts';
import { type Cadence, CLOSED_PORTS } from './probe-kind.ts';
import { CONFIRMED, type DueProbe, type PathResult, ProbePath } from './probe-path.ts';
import { WatchList } from './watch-list.ts';

export interface ProberOptions {
  readonly io: ProbeIo;
  readonly cadence: Cadence;
  /** Probes that one turn may send, at most. */
  readonly perTurn: number;
  /** Probes in any second, at most. */
  readonly perSecond: number;
  /** In addition to those, probes that must not wait for their turn: they confirm that a peer is silent. */
  readonly confirmingPerSecond?: number;
  /** More peers than that are not probed at a time (watch-list.ts). */
  readonly watched: number;
  /** What the kernel says when it does not send, in words. */
  readonly describeErrno: (errno: number) => 'no-route' | 'not-permitted' | 'too-long' | 'other';
  /** Told within the turn that finds something out; who calls {@link set} tells it which peers are gone. */
  readonly faults?: FaultLog;
}

interface Outstanding {
  readonly path: ProbePath;
  readonly probe: DueProbe;
  readonly to: IpAddr;
  readonly sentAtMs: number;
  /** From when on its answer is awaited. */
  awaitedFromMs: number;
  isMissing: boolean;
}

/** A turn that comes so much later than it was wanted says that this host is busy: answers may be late for that alone. */
const LATE_MS = 100;
/** A search does not wait for the next turn, but is not worth a wake each moment. */
const SEARCH_MS = 225;
/** A turn that comes so little before its time is in time. */
const EARLY_MS = 10;
/** A little less, so that turns which are a second apart do not count as one second when the first of them was late. */
const SECOND_MS = 950;
/** Turns are not wanted sooner after each other. */
const LEAST_MS = 20;

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
  /** Those that something was learnt of since the last turn. */
  readonly #learnt = new Set<ProbePath>();
  #sent = 0;
  /** When the latest were sent that were due, and those that confirm; of a second, the oldest first. */
  readonly #dueSentAtMs: number[] = [];
  readonly #confirmingSentAtMs: number[] = [];
  /** When the others are due together. */
  #togetherAtMs = Number.NEGATIVE_INFINITY;
  /** When few peers are asked once more before that. */
  #watchAtMs = Number.POSITIVE_INFINITY;
  #wantedAtMs = Number.POSITIVE_INFINITY;

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

  /**
   * Takes what has come, gives up on what has not, and sends what is due.
   * @param nowMs by the clock of the port.
   * @returns when the next turn is wanted, by that clock. Turns at other times do no harm.
   */
  turn(nowMs: number): number {
    for (const arrival of this.#options.io.receive()) this.#take(arrival);
    if (nowMs - this.#wantedAtMs > LATE_MS) for (const sent of this.#outstanding.values()) sent.awaitedFromMs = nowMs;
    for (const [key, sent] of this.#outstanding) this.#lookAt(key, sent, nowMs);
    const watched = this.#list.now(nowMs);
    for (const id of this.#paths.keys()) if (!watched.has(id)) this.#paths.delete(id);
    forget(this.#dueSentAtMs, nowMs - 1_000);
    forget(this.#confirmingSentAtMs, nowMs - 1_000);
    this.#confirm(nowMs);
    this.#watch(nowMs);
    this.#sendDue(watched.size, nowMs);
    for (const path of this.#learnt) {
      const { target } = path;
      if (this.#paths.get(target.id) === path) this.#options.faults?.look(target, path.evidence(nowMs), nowMs);
    }
    this.#learnt.clear();
    this.#wantedAtMs = this.#nextTurnMs(nowMs);
    return this.#wantedAtMs;
  }

  #lookAt(key: string, sent: Outstanding, nowMs: number): void {
    const { path, probe, sentAtMs } = sent;
    const { timeoutMs, searchTimeoutMs } = this.#options.cadence;
    if (nowMs - sentAtMs > (probe.kind === 'search' ? searchTimeoutMs : timeoutMs)) {
      this.#outstanding.delete(key);
      this.#learnt.add(path);
      path.lost(probe, sentAtMs, sent.isMissing, nowMs);
    } else if (!sent.isMissing && nowMs - sent.awaitedFromMs >= (path.patienceMs(probe.kind) ?? timeoutMs)) {
      sent.isMissing = true;
      this.#learnt.add(path);
      path.missing(probe, sentAtMs, nowMs);
    }
  }

  #confirm(nowMs: number): void {
    const { perSecond, confirmingPerSecond = 0 } = this.#options;
    for (const kind of CONFIRMED) {
      for (const path of this.#paths.values()) {
        if (this.#roomFor(perSecond + confirmingPerSecond) <= 0) return;
        const probe = path.confirming(kind, nowMs);
        if (probe === undefined) continue;
        path.sent(probe, nowMs);
        this.#confirmingSentAtMs.push(nowMs);
        this.#send(path, probe, nowMs);
      }
    }
  }

  #watch(nowMs: number): void {
    if (nowMs < this.#watchAtMs) return;
    this.#watchAtMs = Number.POSITIVE_INFINITY;
    for (const path of this.#paths.values()) {
      if (this.#roomForDue(nowMs) <= 0) return;
      const probe = path.watching();
      if (probe === undefined) continue;
      this.#dueSentAtMs.push(nowMs);
      this.#send(path, probe, nowMs);
    }
  }

  #roomFor(most: number): number {
    return most - this.#dueSentAtMs.length - this.#confirmingSentAtMs.length;
  }

  /** Of those that are not confirming. */
  #roomForDue(nowMs: number): number {
    const { perSecond, confirmingPerSecond = 0 } = this.#options;
    const recent = this.#dueSentAtMs.filter((atMs) => atMs > nowMs - SECOND_MS).length;
    return Math.min(perSecond - recent, this.#roomFor(perSecond + confirmingPerSecond));
  }

  #sendDue(count: number, nowMs: number): void {
    const { perTurn, cadence } = this.#options;
    const isTogether = nowMs >= this.#togetherAtMs;
    if (isTogether) {
      this.#togetherAtMs = atTick(nowMs + cadence.togetherMs, cadence.tickMs) - EARLY_MS;
      const { mostPeers = 0, afterMs = 0 } = cadence.watch ?? {};
      if (count <= mostPeers) this.#watchAtMs = atTick(nowMs + afterMs, cadence.tickMs) - EARLY_MS;
    }
    // A little more than is due in the long run: what is due at the same time for all peers leaves room for what must not wait.
    const fair = cadence.togetherMs === 0 ? perTurn : 2 * count + 1;
    let left = Math.min(perTurn, fair, this.#roomForDue(nowMs));
    const chosen: { readonly path: ProbePath; readonly probe: DueProbe }[] = [];
    // One of each in its turn, until nobody has any.
    for (let idle = 0; idle < count && left > 0; ) {
      const path = this.#pathOf(this.#list.next()!);
      const probe = isTogether ? path.due(nowMs) : path.searching();
      if (probe === undefined) {
        idle++;
        continue;
      }
      idle = 0;
      left--;
      path.sent(probe, nowMs);
      this.#dueSentAtMs.push(nowMs);
      chosen.push({ path, probe });
    }
    // Packets of a peer that are no longer than the one before may travel with it as one, and what spoils checksums may look at the
    // first alone. Datagrams are the shortest.
    for (const { path, probe } of chosen) if (isDatagram(probe.kind)) this.#send(path, probe, nowMs);
    for (const { path, probe } of chosen) if (!isDatagram(probe.kind)) this.#send(path, probe, nowMs);
  }

  #nextTurnMs(nowMs: number): number {
    let next = Math.min(this.#togetherAtMs, this.#watchAtMs);
    let isUrgent = false;
    for (const { path, probe, awaitedFromMs, isMissing } of this.#outstanding.values()) {
      if (probe.beside === 'confirm' && !isMissing) isUrgent = true;
      if (probe.kind === 'search') next = Math.min(next, nowMs + SEARCH_MS);
      const patienceMs = isMissing ? undefined : path.patienceMs(probe.kind);
      if (patienceMs !== undefined) next = Math.min(next, awaitedFromMs + patienceMs);
    }
    const { perSecond, confirmingPerSecond = 0 } = this.#options;
    const oldestMs = Math.min(this.#dueSentAtMs[0] ?? nowMs, this.#confirmingSentAtMs[0] ?? nowMs);
    const roomAtMs = this.#roomFor(perSecond + confirmingPerSecond) > 0 ? nowMs : oldestMs + 1_000;
    for (const { confirmingAtMs } of this.#paths.values()) {
      if (Number.isFinite(confirmingAtMs)) isUrgent = true;
      next = Math.min(next, Math.max(confirmingAtMs, roomAtMs));
    }
    const atMs = Math.max(next, nowMs + LEAST_MS);
    const { tickMs } = this.#options.cadence;
    return isUrgent ? atMs : atTick(atMs, tickMs);
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
    const isUdp = isDatagram(kind);
    const sequence = isUdp ? 0 : this.#nextSequence();
    const sent = this.#options.io.send(
      isUdp
        ? { kind: 'udp', to, port: CLOSED_PORTS[kind], checksum: kind === 'udp' }
        : { kind: 'echo', to, sequence, totalBytes: probe.totalBytes, mayFragment: kind === 'fragments' },
    );
    if ('errno' in sent) {
      this.#learnt.add(path);
      path.refused(probe, { by: 'kernel', errno: this.#options.describeErrno(sent.errno) }, 0, nowMs);
      return;
    }
    this.#sent++;
    if (!isBeside) this.#count(target.id, 'tx');
    const key = isUdp ? `udp ${CLOSED_PORTS[kind]} ${to}` : `echo ${sequence}`;
    this.#outstanding.delete(key);
    this.#outstanding.set(key, { path, probe, to, sentAtMs: sent.atMs, awaitedFromMs: sent.atMs, isMissing: false });
  }

  /** Of none whose answer may still come. Random: what one peer sees must not tell it those of the probes to others. */
  #nextSequence(): number {
    for (;;) {
      const [high = 0, low = 0] = unguessable(2);
      const sequence = high * 256 + low;
      if (!this.#outstanding.has(`echo ${sequence}`)) return sequence;
    }
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
    const isReply = message.kind === 'reply';
    const key = isReply
      ? `echo ${message.sequence}`
      : message.about.kind === 'echo'
        ? `echo ${message.about.sequence}`
        : `udp ${message.about.port} ${message.about.to}`;
    const outstanding = this.#outstanding.get(key);
    if (outstanding === undefined) return;
    const { path, probe, to, sentAtMs } = outstanding;
    const isUdp = isDatagram(probe.kind);
    // One peer must not speak for another: an answer comes from who was asked, a refusal is about a packet to him.
    if (isReply ? !isAddressOf(path.target, from) : message.about.to !== to || (isUdp && from !== to)) return;
    this.#outstanding.delete(key);
    this.#learnt.add(path);
    // A firewall that refuses closed ports has answered the question whether the packet arrived.
    if (isReply || (isUdp && (message.reason === 'port' || message.reason === 'prohibited'))) {
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

/** Whether the peer may answer by it: a host of IPv6 that is asked by an anycast address does so by another one of its own. */
function isAddressOf({ id, overlay, underlay }: ProbeTarget, from: IpAddr): boolean {
  if (from === overlay || from === underlay) return true;
  const subnet = parsePrefix(id);
  return subnet !== undefined && containsAddr(subnet, from);
}

/** The next multiple. */
function atTick(atMs: number, tickMs: number): number {
  return tickMs === 0 ? atMs : Math.ceil(atMs / tickMs) * tickMs;
}

/** Takes those away that are not later. */
function forget(times: number[], atMs: number): void {
  while (times.length > 0 && times[0]! <= atMs) times.shift();
}

function isDatagram(kind: DueProbe['kind']): kind is keyof typeof CLOSED_PORTS {
  return kind === 'udp' || kind === 'udp-plain';
}

function isSame(a: ProbeTarget, b: ProbeTarget): boolean {
  return (
    a.overlay === b.overlay &&
    a.underlay === b.underlay &&
    a.mtuBytes === b.mtuBytes &&
    a.underlayMtuBytes === b.underlayMtuBytes
  );
}
