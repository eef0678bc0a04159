import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIpv4 } from '../ip/ipv4.ts';
import type { Arrival, ProbeIo, ProbeRequest, Sent } from '../probe/ports.ts';
import { type EchoRound, echoRound } from './echo-round.ts';

const OVERLAY = parseIpv4('10.244.2.0')!;
const UNDERLAY = parseIpv4('192.168.77.2')!;
const ROUTER = parseIpv4('192.168.77.254')!;
const signal = AbortSignal.timeout(60_000);

type Echo = ProbeRequest & { readonly kind: 'echo' };
type Answer = (request: Echo) => Arrival['message'] | 'lost' | { readonly errno: number };

/** What comes back of each echo, by where it goes. */
class FakeNetwork implements ProbeIo {
  readonly sent: Echo[] = [];
  readonly arrivals: Arrival[] = [];
  readonly #answer: Answer;

  constructor(answer: Answer) {
    this.#answer = answer;
  }

  send(request: ProbeRequest): Sent {
    assert.ok(request.kind === 'echo');
    this.sent.push(request);
    const answer = this.#answer(request);
    if (answer === 'lost') return { atMs: 100 };
    if ('errno' in answer) return answer;
    const from = answer.kind === 'error' ? ROUTER : request.to;
    this.arrivals.push({ from, atMs: request.to === OVERLAY ? 100.5 : 100.125, message: answer });
    return { atMs: 100 };
  }

  receive(): readonly Arrival[] {
    return this.arrivals.splice(0);
  }

  [Symbol.dispose](): void {}
}

function round(io: ProbeIo, number = 1): Promise<EchoRound> {
  const describeErrno = () => 'no-route' as const;
  return echoRound({ io, describeErrno, overlay: OVERLAY, underlay: UNDERLAY, timeoutMs: 30 }, number, signal);
}

describe('a round of echoes', () => {
  it('goes through the overlay and beside it, each with its own round-trip time', async () => {
    const io = new FakeNetwork(({ sequence }) => ({ kind: 'reply', sequence }));
    assert.deepEqual(await round(io), {
      overlay: { kind: 'answered', rttMs: 0.5 },
      underlay: { kind: 'answered', rttMs: 0.125 },
    });
    assert.deepEqual(
      io.sent.map(({ to }) => to),
      [OVERLAY, UNDERLAY],
    );
  });

  it('tells which of the two has no answer, and leaves out an address that is not known', async () => {
    const io = new FakeNetwork(({ to, sequence }) => (to === OVERLAY ? 'lost' : { kind: 'reply', sequence }));
    assert.deepEqual(await round(io), { overlay: { kind: 'lost' }, underlay: { kind: 'answered', rttMs: 0.125 } });
    const options = { io, describeErrno: () => 'other' as const, overlay: OVERLAY, underlay: undefined, timeoutMs: 30 };
    assert.deepEqual(await echoRound(options, 1, signal), { overlay: { kind: 'lost' } });
  });

  it('tells a refusal by this kernel, and one by somebody on the way', async () => {
    const io = new FakeNetwork(({ to, sequence }) =>
      to === OVERLAY
        ? { errno: -101 }
        : { kind: 'error', reason: 'prohibited', mtuBytes: 0, about: { kind: 'echo', to, sequence } },
    );
    assert.deepEqual(await round(io), {
      overlay: { kind: 'refused', refusal: { by: 'kernel', errno: 'no-route' } },
      underlay: { kind: 'refused', refusal: { by: 'icmp', reason: 'prohibited', from: '192.168.77.254' } },
    });
  });

  it('does not take a late answer for its own, also where sequence numbers start again', async () => {
    const io = new FakeNetwork(() => 'lost');
    await round(io, 1);
    const late = io.sent.map(({ sequence }) => sequence);
    for (const sequence of late) io.arrivals.push({ from: OVERLAY, atMs: 101, message: { kind: 'reply', sequence } });
    assert.deepEqual(await round(io, 2), { overlay: { kind: 'lost' }, underlay: { kind: 'lost' } });
    await round(io, 32_768);
    assert.ok(io.sent.every(({ sequence }) => sequence <= 0xffff));
  });

  it('takes no word of another host for an answer, or for a refusal', async () => {
    const io: FakeNetwork = new FakeNetwork(({ sequence }) => {
      const about = { kind: 'echo', to: ROUTER, sequence } as const;
      const forged = [
        { kind: 'reply', sequence } as const,
        { kind: 'error', reason: 'net', mtuBytes: 0, about } as const,
      ];
      for (const message of forged) io.arrivals.push({ from: ROUTER, atMs: 100.1, message });
      return { kind: 'reply', sequence };
    });
    assert.deepEqual(await round(io), {
      overlay: { kind: 'answered', rttMs: 0.5 },
      underlay: { kind: 'answered', rttMs: 0.125 },
    });
  });

  it('ends with the signal', async () => {
    const reason = new Error('stopped');
    const io = new FakeNetwork(() => 'lost');
    const options = { io, describeErrno: () => 'other' as const, overlay: OVERLAY, underlay: UNDERLAY };
    await assert.rejects(echoRound({ ...options, timeoutMs: 60_000 }, 1, AbortSignal.abort(reason)), { cause: reason });
  });
});
