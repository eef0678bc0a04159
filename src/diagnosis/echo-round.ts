import { setTimeout as sleep } from 'node:timers/promises';
import { formatAddr, type IpAddr } from '../ip/address.ts';
import type { Refusal } from '../probe/diagnose.ts';
import type { ProbeIo } from '../probe/ports.ts';
import { SMALLEST_PROBE_BYTES } from '../probe/probe-packet.ts';
import type { ProberOptions } from '../probe/prober.ts';

/** Answers are stamped by the kernel: how often they are looked for is not in the round trip. */
const TURN_MS = 5;

/** What became of one echo. */
export type EchoOutcome =
  | { readonly kind: 'answered'; readonly rttMs: number }
  | { readonly kind: 'lost' }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

/** `underlay` is absent where the peer's address between the hosts is not known. */
export interface EchoRound {
  readonly overlay: EchoOutcome;
  readonly underlay?: EchoOutcome;
}

export interface EchoRoundOptions {
  readonly io: ProbeIo;
  readonly describeErrno: ProberOptions['describeErrno'];
  readonly overlay: IpAddr;
  readonly underlay: IpAddr | undefined;
  /** After that, an echo without an answer is lost. */
  readonly timeoutMs: number;
}

/**
 * One small echo through the overlay and one beside it, at the same time; ends when both are known.
 *
 * @param round 1, 2, …: an answer that is late is not taken for that of a later round.
 * @throws when the signal fires.
 */
export async function echoRound(options: EchoRoundOptions, round: number, signal: AbortSignal): Promise<EchoRound> {
  const { overlay, underlay, timeoutMs } = options;
  const startedAtMs = performance.now();
  const ways = [new Echo(options, overlay, 2 * round)];
  if (underlay !== undefined) ways.push(new Echo(options, underlay, 2 * round + 1));
  for (;;) {
    // Before the look: what came while this process had to wait is no loss.
    const isLate = performance.now() - startedAtMs > timeoutMs;
    for (const arrival of options.io.receive()) for (const way of ways) way.take(arrival);
    if (isLate || ways.every(({ outcome }) => outcome !== undefined)) break;
    await sleep(TURN_MS, undefined, { signal });
  }
  const [through, beside] = ways.map(({ outcome }): EchoOutcome => outcome ?? { kind: 'lost' });
  return { overlay: through!, ...(beside && { underlay: beside }) };
}

class Echo {
  outcome: EchoOutcome | undefined;
  readonly #to: IpAddr;
  /** Both of that host: one of IPv6 that is asked by an anycast address answers by another one. */
  readonly #mayAnswer: readonly (IpAddr | undefined)[];
  readonly #sequence: number;
  readonly #sentAtMs: number = 0;

  constructor({ io, describeErrno, overlay, underlay }: EchoRoundOptions, to: IpAddr, number: number) {
    this.#to = to;
    this.#mayAnswer = [overlay, underlay];
    this.#sequence = number & 0xffff;
    const sent = io.send({ kind: 'echo', to, sequence: this.#sequence, totalBytes: SMALLEST_PROBE_BYTES });
    if ('atMs' in sent) this.#sentAtMs = sent.atMs;
    else this.outcome = { kind: 'refused', refusal: { by: 'kernel', errno: describeErrno(sent.errno) } };
  }

  take({ from, atMs, message }: ReturnType<ProbeIo['receive']>[number]): void {
    if (this.outcome !== undefined || message.kind === 'request') return;
    if (message.kind === 'reply') {
      if (message.sequence !== this.#sequence || !this.#mayAnswer.includes(from)) return;
      this.outcome = { kind: 'answered', rttMs: Math.max(0, atMs - this.#sentAtMs) };
    } else if (message.about.kind === 'echo' && message.about.sequence === this.#sequence) {
      if (message.about.to !== this.#to) return;
      this.outcome = { kind: 'refused', refusal: { by: 'icmp', reason: message.reason, from: formatAddr(from) } };
    }
  }
}
