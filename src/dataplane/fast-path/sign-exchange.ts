import { type IpAddr, isIpv4 } from '../../ip/address.ts';
import type { PeerSignal } from './peer-signals.ts';
import { ARRIVED_HOLDS_MS, decodeSign, encodeSign, type Sign } from './sign.ts';

/** What the programs may do with a peer; times in nanoseconds of CLOCK_MONOTONIC, 0n for never. */
export interface Grant {
  readonly sendUntil: bigint;
  readonly acceptUntil: bigint;
  readonly wholeUntil: bigint;
  /** The same two for IPv6 packets; never longer than theirs for IPv4. */
  readonly sendUntil6: bigint;
  readonly wholeUntil6: bigint;
  /** It takes super-packets that are cut on the way, and tells of it; never longer than any packet. */
  readonly takesCutUntil: bigint;
  /** What it wants to see. */
  readonly tag: number;
  readonly tagWhole: number;
  /** What we want to see. */
  readonly expectTag: number;
  readonly expectTagWhole: number;
}

export interface SignExchangeParts {
  /** Nanoseconds of CLOCK_MONOTONIC. */
  readonly now: () => bigint;
  readonly randomBytes: (count: number) => Uint8Array;
  readonly ownAddress: IpAddr;
  /**
   * Who cuts super-packets, see `ProgramOptions`. `host`: what leaves is plain datagrams, so a peer need not say anything over IPv4, and
   * what the socket sends shows what the host's rules allow. Over IPv6 it must show that it takes datagrams without a UDP checksum.
   */
  readonly segmentation: 'host' | 'beyond';
  /** Whether the programs take IPv6 packets. */
  readonly carriesIpv6: boolean;
  /**
   * Sends by the forwarder's socket, or as that would without a checksum; false when the host or its kernel did not let it.
   */
  readonly send: (address: IpAddr, packet: Uint8Array, checksum: 'checksum' | 'no-checksum') => boolean;
  readonly grant: (address: IpAddr, grant: Grant) => void;
  readonly isPeer: (address: IpAddr) => boolean;
  readonly observed: (address: IpAddr) => Observed;
  /** Whether programs are there that go by what is granted; until then nobody is answered, for those of an agent before this one do. */
  readonly hasPrograms: () => boolean;
  /** Whether one of them takes what peers send before the kernel joins packets. */
  readonly takesCut: () => boolean;
}

/** What the inbound program has seen of a host; times in nanoseconds of CLOCK_MONOTONIC, 0n for never. */
export interface Observed {
  /** A super-packet of its arrived in one piece. */
  readonly arrivedAt: bigint;
  /** The same, of IPv6 packets. */
  readonly arrivedAt6: bigint;
  /** The way back to it leads through the device that its datagrams come by. */
  readonly wayBackUntil: bigint;
}

const MS = 1_000_000n;
/** For how long an answer lets packets go out, from when the question was sent. */
const SEND_HOLDS = 4_500n * MS;
/** The same where the host cuts super-packets: what is in use is looked after, and what is not may be used again at once. */
const HOST_SEND_HOLDS = 600_000n * MS;
/**
 * Without a packet by the socket for so long, it is tried whether one may leave: all that the host's rules, the neighbour entry and
 * what the peer accepts need of it.
 */
const SENT_HOLDS = 1_400n * MS;
/** … and in: longer than any sender may rely on what we told it, those of earlier versions too. */
const ACCEPT_HOLDS = 5_000n * MS;
/** How soon a sender asks again while all is well: each sign wakes two processes. A little less than some of the agent's turns. */
const RENEW_AFTER = 1_900n * MS;
/** A host that does not answer is asked after this, twice this, and so on; flannel's never will. */
const FIRST_PAUSE = 250n * MS;
const LONGEST_PAUSE = 60_000n * MS;
/** For so long after the last packet a peer is asked on: a pause in a conversation does not send it by the forwarder. */
const STAYS_IN_USE = 30_000n * MS;
const ARRIVED_HOLDS = BigInt(ARRIVED_HOLDS_MS) * MS;
/** The program looks with every datagram to the socket, and so with the question that is to be answered. */
const WAY_BACK_HOLDS = 1_000n * MS;
/** Writing a grant anew for less than that would cost more than it is worth. */
const WORTH_WRITING = 300n * MS;
const ANSWER_EVERY = 5n * MS;
/** Segments of a super-packet count on from its tag. */
const TAG_DISTANCE = 1_024;

type Status = Pick<Sign, 'takes' | 'arrives' | 'takes6' | 'arrives6' | 'takesCut'>;
const NOTHING: Status = { takes: false, arrives: false, takes6: false, arrives6: false, takesCut: false };
const NO_SENDING = { sendUntil: 0n, wholeUntil: 0n, sendUntil6: 0n, wholeUntil6: 0n, takesCutUntil: 0n };

interface Question {
  readonly nonce: bigint;
  readonly at: bigint;
}

interface PeerState {
  /** The last two. */
  questions: readonly Question[];
  nextQuestionAt: bigint;
  pause: bigint;
  answeredAt: bigint;
  /** Since when only its program has answered; 0n while its agent does. */
  aloneSince: bigint;
  /** The last number it sent, for a word of farewell. */
  theirNonce: bigint;
  /** When something was last sent, by whatever way. */
  usedAt: bigint;
  /** When something was last sent by the socket without an error. */
  sentAt: bigint;
  sendUntil: bigint;
  acceptUntil: bigint;
  wholeUntil: bigint;
  sendUntil6: bigint;
  wholeUntil6: bigint;
  takesCutUntil: bigint;
  tag: number;
  tagWhole: number;
  readonly expectTag: number;
  readonly expectTagWhole: number;
  written: Grant | undefined;
}

/**
 * Decides which peers may use the fast path, by what the forwarder's socket sends and receives: what a host's firewall, IPsec or
 * cgroup keeps from the socket must not go round it. Nothing is believed about a peer that does not come with a number we sent
 * it a moment ago, which who cannot read our datagrams does not know.
 */
export class SignExchange {
  readonly #parts: SignExchangeParts;
  readonly #peers = new Map<IpAddr, PeerState>();

  readonly #isOverIpv6: boolean;
  /** Whether a peer must have answered before it is sent to by the fast path. */
  readonly #asks: boolean;

  constructor(parts: SignExchangeParts) {
    this.#parts = parts;
    this.#isOverIpv6 = !isIpv4(parts.ownAddress);
    this.#asks = parts.segmentation === 'beyond' || this.#isOverIpv6;
  }

  /**
   * That host was granted this when the agent before this one ended. It holds on, as what is heard or answered now would hold:
   * until then nobody was there to ask.
   */
  resume(address: IpAddr, held: Grant): void {
    const peer = this.#peer(address, held);
    if (peer === undefined) return;
    const now = this.#parts.now();
    const sendUntil = now + (this.#asks ? SEND_HOLDS : HOST_SEND_HOLDS);
    if (held.sendUntil > 0n) peer.sendUntil = sendUntil;
    if (held.sendUntil6 > 0n) peer.sendUntil6 = sendUntil;
    if (held.acceptUntil > 0n) peer.acceptUntil = now + ACCEPT_HOLDS;
    if (held.wholeUntil > 0n && held.sendUntil > 0n) peer.wholeUntil = now + SEND_HOLDS;
    if (held.wholeUntil6 > 0n && held.sendUntil6 > 0n) peer.wholeUntil6 = now + SEND_HOLDS;
    if (held.takesCutUntil > 0n && held.sendUntil > 0n) peer.takesCutUntil = now + SEND_HOLDS;
    peer.usedAt = now;
    this.#write(address, peer);
  }

  /** What a packet worker has to tell. */
  take(signal: PeerSignal): void {
    const { address } = signal;
    const peer = this.#peer(address);
    if (peer === undefined) return;
    const now = this.#parts.now();
    if (signal.type === 'sent') {
      peer.usedAt = now;
      if (this.#asks) this.#askInTime(address, peer, now);
      else this.#noteSent(peer, now);
    } else {
      peer.acceptUntil = now + ACCEPT_HOLDS;
      // Before it hears from us that it may send.
      this.#write(address, peer);
      if (signal.type === 'sign') this.#takeSign(address, peer, decodeSign(signal.payload), now);
    }
    this.#write(address, peer);
  }

  /** Somebody sends to that host by the fast path: it must not lapse. */
  renew(address: IpAddr): void {
    const peer = this.#peer(address);
    if (peer === undefined) return;
    const now = this.#parts.now();
    peer.usedAt = now;
    if (this.#asks) return void this.#askInTime(address, peer, now);
    if (now - peer.sentAt < SENT_HOLDS) return;
    if (this.#send(address, peer, { ...NOTHING, nonce: 0n, echo: 0n })) this.#noteSent(peer, now);
    this.#write(address, peer);
  }

  /** Asks that host, when it is time to, though nothing is sent to it yet. Whether it has answered that it may be sent to. */
  introduce(address: IpAddr): boolean {
    const peer = this.#peer(address);
    if (peer === undefined) return true;
    const now = this.#parts.now();
    if (peer.sendUntil > now) return true;
    this.#askInTime(address, peer, now);
    return false;
  }

  #noteSent(peer: PeerState, now: bigint): void {
    peer.sentAt = now;
    peer.sendUntil = now + HOST_SEND_HOLDS;
    peer.sendUntil6 = peer.sendUntil;
  }

  /** Tells those who may send by it that there is no fast path here any more. */
  end(): void {
    const now = this.#parts.now();
    for (const [address, peer] of this.#peers) {
      if (peer.theirNonce !== 0n && peer.acceptUntil > now) {
        this.#send(address, peer, { ...NOTHING, nonce: 0n, echo: peer.theirNonce });
      }
      Object.assign(peer, { ...NO_SENDING, acceptUntil: 0n });
      this.#write(address, peer);
    }
    this.#peers.clear();
  }

  /** Called twice a second: keeps what was in use a moment ago, and forgets those that are no peers any more. */
  tick(): void {
    const now = this.#parts.now();
    for (const [address, peer] of this.#peers) {
      if (!this.#parts.isPeer(address)) this.#peers.delete(address);
      else if (this.#asks && peer.sendUntil > now && now - peer.usedAt < STAYS_IN_USE) {
        this.#askInTime(address, peer, now);
      }
    }
  }

  /** Hosts that are sent to, and whose agent has been away for that long, as their programs answer. @param ns nanoseconds. */
  aloneFor(ns: bigint): IpAddr[] {
    const now = this.#parts.now();
    return [...this.#peers].flatMap(([address, { aloneSince, sendUntil }]) =>
      aloneSince !== 0n && sendUntil > now && now - aloneSince >= ns ? address : [],
    );
  }

  /** @param held what it goes by already, and we. */
  #peer(address: IpAddr, held?: Grant): PeerState | undefined {
    if (!this.#parts.isPeer(address)) return undefined;
    const known = this.#peers.get(address);
    if (known !== undefined) return known;
    const { expectTag, expectTagWhole } = held ?? this.#newTags();
    const state: PeerState = {
      questions: [],
      nextQuestionAt: 0n,
      pause: FIRST_PAUSE,
      answeredAt: 0n,
      aloneSince: 0n,
      theirNonce: 0n,
      usedAt: 0n,
      sentAt: 0n,
      sendUntil: 0n,
      acceptUntil: 0n,
      wholeUntil: 0n,
      sendUntil6: 0n,
      wholeUntil6: 0n,
      takesCutUntil: 0n,
      tag: held?.tag ?? 0,
      tagWhole: held?.tagWhole ?? 0,
      expectTag,
      expectTagWhole,
      written: undefined,
    };
    this.#peers.set(address, state);
    return state;
  }

  #newTags(): Pick<PeerState, 'expectTag' | 'expectTagWhole'> {
    const random = new DataView(this.#parts.randomBytes(4).buffer);
    const expectTag = random.getUint16(0);
    const distance = TAG_DISTANCE + (random.getUint16(2) % (0x1_0000 - 2 * TAG_DISTANCE));
    return { expectTag, expectTagWhole: (expectTag + distance) & 0xffff };
  }

  #takeSign(address: IpAddr, peer: PeerState, sign: Sign | undefined, now: bigint): void {
    if (sign === undefined) return;
    const question = sign.echo === 0n ? undefined : peer.questions.find(({ nonce }) => nonce === sign.echo);
    if (question !== undefined && now - question.at < SEND_HOLDS) this.#believe(peer, sign, question.at);
    // Programs ask nothing.
    if (sign.nonce !== 0n) peer.aloneSince = 0n;
    if (sign.nonce === 0n || !this.#parts.hasPrograms() || now - peer.answeredAt < ANSWER_EVERY) return;
    peer.answeredAt = now;
    peer.theirNonce = sign.nonce;
    // It speaks our language: no need to be shy.
    peer.pause = FIRST_PAUSE;
    const asksToo = this.#asks && now >= peer.nextQuestionAt - RENEW_AFTER / 2n;
    const status = this.#status(address, now);
    // Over IPv6 an answer must arrive also where a question, which has no checksum, does not.
    const isOne = !this.#isOverIpv6;
    const nonce = asksToo && isOne ? this.#question(peer, now) : 0n;
    this.#send(address, peer, { ...status, nonce, echo: sign.nonce });
    if (asksToo && !isOne) this.#send(address, peer, { ...status, nonce: this.#question(peer, now), echo: 0n });
  }

  #believe(peer: PeerState, sign: Sign, askedAt: bigint): void {
    const until = askedAt + SEND_HOLDS;
    peer.pause = FIRST_PAUSE;
    peer.nextQuestionAt = askedAt + RENEW_AFTER;
    if (!sign.alone) peer.aloneSince = 0n;
    else if (peer.aloneSince === 0n) peer.aloneSince = askedAt;
    peer.tag = sign.tag;
    peer.tagWhole = sign.tagWhole;
    if (!this.#asks) return;
    const isBeyond = this.#parts.segmentation === 'beyond';
    const takes = sign.takes || !isBeyond;
    const takes6 = takes && (sign.takes6 || !isBeyond);
    peer.sendUntil = takes ? until : 0n;
    peer.wholeUntil = takes && isBeyond && sign.arrives ? until : 0n;
    peer.sendUntil6 = takes6 ? until : 0n;
    peer.wholeUntil6 = takes6 && isBeyond && sign.arrives6 ? until : 0n;
    peer.takesCutUntil = takes && isBeyond && sign.takesCut ? until : 0n;
  }

  #askInTime(address: IpAddr, peer: PeerState, now: bigint): void {
    if (now < peer.nextQuestionAt) return;
    this.#send(address, peer, { ...this.#status(address, now), nonce: this.#question(peer, now), echo: 0n });
  }

  #question(peer: PeerState, now: bigint): bigint {
    const random = new DataView(this.#parts.randomBytes(8).buffer);
    const nonce = random.getBigUint64(0) | 1n;
    peer.questions = [{ nonce, at: now }, ...peer.questions.slice(0, 1)];
    peer.nextQuestionAt = now + peer.pause;
    peer.pause = peer.pause * 2n > LONGEST_PAUSE ? LONGEST_PAUSE : peer.pause * 2n;
    return nonce;
  }

  #status(address: IpAddr, now: bigint): Status {
    const { arrivedAt, arrivedAt6, wayBackUntil } = this.#parts.observed(address);
    const takes = this.#parts.segmentation === 'beyond' && now - wayBackUntil < WAY_BACK_HOLDS;
    return {
      takes,
      arrives: arrivedAt !== 0n && now - arrivedAt < ARRIVED_HOLDS,
      takes6: takes && this.#parts.carriesIpv6,
      arrives6: arrivedAt6 !== 0n && now - arrivedAt6 < ARRIVED_HOLDS,
      takesCut: takes && this.#parts.takesCut(),
    };
  }

  #send(address: IpAddr, peer: PeerState, sign: Omit<Sign, 'tag' | 'tagWhole' | 'alone'>): boolean {
    const tags = { tag: peer.expectTag, tagWhole: peer.expectTagWhole, alone: false };
    const packet = encodeSign({ ...sign, ...tags }, this.#parts.ownAddress, address);
    const isProof = this.#isOverIpv6 && sign.nonce !== 0n;
    if (this.#parts.send(address, packet, isProof ? 'no-checksum' : 'checksum')) return true;
    // What the socket may not send, the fast path may not either.
    Object.assign(peer, NO_SENDING);
    this.#write(address, peer);
    return false;
  }

  #write(address: IpAddr, peer: PeerState): void {
    const before = peer.written;
    if (before !== undefined && isAsGood(before, peer)) return;
    const { sendUntil, acceptUntil, wholeUntil, sendUntil6, wholeUntil6, takesCutUntil } = peer;
    const { tag, tagWhole, expectTag, expectTagWhole } = peer;
    const times = { sendUntil, acceptUntil, wholeUntil, sendUntil6, wholeUntil6, takesCutUntil };
    const grant: Grant = { ...times, tag, tagWhole, expectTag, expectTagWhole };
    peer.written = grant;
    this.#parts.grant(address, grant);
  }
}

const TIMES = ['sendUntil', 'acceptUntil', 'wholeUntil', 'sendUntil6', 'wholeUntil6', 'takesCutUntil'] as const;

/** Whether what is written need not be written anew: it permits no more, and hardly less. */
function isAsGood(written: Grant, now: Grant): boolean {
  if (written.tag !== now.tag || written.tagWhole !== now.tagWhole) return false;
  for (const name of TIMES) {
    const longer = now[name] - written[name];
    if (longer < 0n || longer > WORTH_WRITING) return false;
  }
  return true;
}
