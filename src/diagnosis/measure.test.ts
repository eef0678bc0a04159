import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ipv4Of, parseIpv4 } from '../ip/ipv4.ts';
import type { Arrival, ProbeIo, Sent } from '../probe/ports.ts';
import { measure } from './measure.ts';

/** Among so many, a host listens for three seconds. That nothing is answered is known after one. */
const targets = Array.from({ length: 6 }, (_, index) => ({
  ...{ id: `10.244.${index}.0/24`, overlay: ipv4Of(parseIpv4('10.244.0.0')! + index * 256), underlay: undefined },
  ...{ onlyEcho: true, mtuBytes: 1_472, underlayMtuBytes: 1_500 },
}));
const HEARD_AFTER_MS = 2_900;

/** Nothing comes back, and the peers' own probes come late. */
class OneWay implements ProbeIo {
  readonly #hearsAtMs = performance.now() + HEARD_AFTER_MS;

  send(): Sent {
    return { atMs: performance.now() };
  }

  receive(): readonly Arrival[] {
    const atMs = performance.now();
    if (atMs < this.#hearsAtMs) return [];
    return targets.map(({ overlay }) => ({ from: overlay, atMs, message: { kind: 'request' } }));
  }

  [Symbol.dispose](): void {}
}

describe('the measurement of paths on which nothing comes back', () => {
  const faultsOf = async (hears: boolean) => {
    const parts = { io: new OneWay(), describeErrno: () => 'other' as const, targets, hears };
    const results = await measure(parts, AbortSignal.timeout(60_000));
    return [...new Set(results.map(({ diagnosis }) => diagnosis?.fault))];
  };

  it('waits on a host until its peers would have been heard', async () =>
    assert.deepEqual(await faultsOf(true), ['one-way']));

  it('does not wait in a container, which hears no peer', async () =>
    assert.deepEqual(await faultsOf(false), ['tunnel-blocked']));
});
