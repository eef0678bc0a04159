import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { PathResult } from '../../probe/probe-path.ts';
import { type PingFacts, type PingRound, renderRound, renderSummary, summarize } from './ping-report.ts';

const YES: PathResult['passes'] = {
  ...{ small: 'yes', full: 'yes', fragments: 'yes', underlay: 'yes', 'underlay-full': 'yes' },
  ...{ udp: 'unknown', 'udp-plain': 'unknown' },
};
const DIAGNOSIS = { fault: 'tunnel-blocked', cause: 'nothing comes back '.repeat(12).trim(), remedy: 'Look.' } as const;
const answered = (rttMs: number) => ({ kind: 'answered', rttMs }) as const;
const LOST = { kind: 'lost' } as const;
const good: PingRound = { overlay: answered(0.4), underlay: answered(0.1), path: 'forwarder' };

function report(changes: Partial<PingFacts>) {
  return summarize({
    ...{ name: '10.244.2.0/24', rounds: [good, { ...good, overlay: answered(0.8) }] },
    probes: { target: { passes: YES, pathMtuBytes: 1_472, diagnosis: undefined }, host: undefined },
    ...{ mtuBytes: 1_472, underlayMtuBytes: 1_500, untilFast: false },
    ...changes,
  });
}

describe('weft ping, for people', () => {
  it('prints a line a round', () => {
    assert.equal(renderRound(good, 1), 'seq=1  overlay 0.400 ms  underlay 0.100 ms  path forwarder');
    const refused = { kind: 'refused', refusal: { by: 'kernel', errno: 'not-permitted' } } as const;
    const rejected = { kind: 'refused', refusal: { by: 'icmp', reason: 'host', from: '192.168.77.2' } } as const;
    assert.equal(renderRound({ overlay: LOST }, 2), 'seq=2  overlay no answer  path unknown');
    assert.equal(
      renderRound({ overlay: refused, underlay: rejected, path: 'wireguard' }, 10_000),
      'seq=10000  overlay not permitted  underlay refused  path wireguard',
    );
  });

  it('ends with loss, times, path and MTU of both ways', () => {
    assert.equal(
      renderSummary(report({})),
      `
--- 10.244.2.0/24 ping statistics ---
overlay   2/2 answered, 0% loss, min/avg/max 0.400/0.600/0.800 ms
underlay  2/2 answered, 0% loss, min/avg/max 0.100/0.100/0.100 ms
path      forwarder
MTU       overlay 1472, underlay 1500
`,
    );
  });

  it('says what is wrong and what to do, and no line is longer than 80 columns', () => {
    const rounds = [{ overlay: LOST, underlay: answered(1_234) }];
    const passes = { ...YES, small: 'no', 'underlay-full': 'no' } as const;
    const probes = { target: { passes, pathMtuBytes: undefined, diagnosis: DIAGNOSIS }, host: undefined };
    const text = renderSummary(report({ rounds, probes }));
    assert.match(text, /^overlay {3}0\/1 answered, 100% loss$/m);
    assert.match(text, /^path {6}unknown: no agent answers$/m);
    assert.match(text, /^MTU {7}underlay less than 1500$/m);
    assert.match(text, /^✖ tunnel-blocked: nothing comes back/m);
    assert.match(text, /^ {2}→ Look\.$/m);
    assert.ok(text.split('\n').every((line) => line.length <= 80));
  });

  it('shows what is left of the MTU', () => {
    const target = { passes: { ...YES, full: 'no' } as const, pathMtuBytes: 1_272, diagnosis: undefined };
    const text = renderSummary(report({ probes: { target, host: undefined } }));
    assert.match(text, /^MTU {7}overlay 1272 of 1472, underlay 1500$/m);
  });
});

describe('weft ping, for scripts', () => {
  it('is well when every echo through the overlay is answered, even where hosts refuse echo between them', () => {
    assert.equal(report({}).ok, true);
    assert.equal(report({ rounds: [{ ...good, underlay: LOST }] }).ok, true);
    assert.equal(report({ rounds: [good, { ...good, overlay: LOST }] }).ok, false);
    assert.equal(report({ rounds: [] }).ok, false);
    const target = { passes: YES, pathMtuBytes: 1_472, diagnosis: { ...DIAGNOSIS, fault: 'mtu-blackhole' } } as const;
    assert.equal(report({ probes: { target, host: undefined } }).ok, false);
  });

  it('does not call one lost echo of many no loss', () => {
    const rounds = [{ ...good, overlay: LOST }, ...Array.from({ length: 999 }, () => good)];
    assert.match(renderSummary(report({ rounds })), /999\/1000 answered, 1% loss/);
  });

  it('with --until-fast is well only on a path of the kernel', () => {
    assert.equal(report({ untilFast: true, rounds: [good, { ...good, path: 'fast-path' }] }).ok, true);
    assert.equal(report({ untilFast: true, rounds: [{ ...good, path: 'vxlan' }] }).ok, true);
    const { ok, problems } = report({ untilFast: true });
    assert.deepEqual([ok, problems.map(({ fault }) => fault)], [false, ['not-fast']]);
    const { path: _, ...unknown } = good;
    assert.match(report({ untilFast: true, rounds: [unknown] }).problems[0]!.cause, /^no agent/);
  });

  it('tells a silent container from a silent host', () => {
    const target = { passes: { ...YES, small: 'no' } as const, pathMtuBytes: undefined, diagnosis: DIAGNOSIS };
    const faultOf = (small: 'yes' | 'no') =>
      report({ probes: { target, host: { passes: { ...YES, small } } } }).problems.map(({ fault }) => fault);
    assert.deepEqual(faultOf('yes'), ['container-silent']);
    assert.deepEqual(faultOf('no'), ['tunnel-blocked']);
  });
});
