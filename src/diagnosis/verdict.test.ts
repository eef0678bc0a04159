import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fail, ok, warn } from '../doctor/check.ts';
import type { Passing } from '../probe/diagnose.ts';
import type { PathResult } from '../probe/probe-path.ts';
import { renderJunit, renderReport } from './report.ts';
import { judge, type MeasuredPath, type Origin } from './verdict.ts';

/** A path whose probes pass, or all fail with that diagnosis. */
function path(from: Origin, to: string, fault?: NonNullable<PathResult['diagnosis']>['fault']): MeasuredPath {
  const all: Passing = fault === undefined ? 'yes' : 'no';
  const result: PathResult = {
    ...{
      id: to,
      kinds: ['small'],
      isHeard: false,
      refusal: undefined,
      lossRatio: 0,
      mtuBytes: 1_472,
      pathMtuBytes: 1_472,
    },
    passes: {
      ...{ small: all, full: all, fragments: all, underlay: 'yes', 'underlay-full': 'yes' },
      ...{ udp: all, 'udp-plain': all },
    },
    rttMs: fault === undefined ? { median: 0.5, p99: 1 } : undefined,
    ...{ underlayRttMs: 0.2, measuredAtMs: 1, lastAnswerAtMs: 1 },
    diagnosis: fault && { fault, cause: `because of <${fault}>`, remedy: 'look' },
  };
  return { from, to, result };
}

const check = (name: string, finding: ReturnType<typeof ok>) => ({ name, looksAt: 'it', ...finding });
const short = (checks: Parameters<typeof judge>[0], paths: readonly MeasuredPath[]) =>
  judge(checks, paths).map(({ where, fault, severity }) => `${severity} ${where} ${fault}`);

describe('what a test says', () => {
  it('is nothing where nothing is wrong', () => {
    assert.deepEqual(short([check('agent', ok('ready'))], [path('host', 'b'), path('container', 'b')]), []);
  });

  it('has this host’s own failures first, then pairs, then warnings', () => {
    const checks = [check('store', warn('away', 'look')), check('routes', fail('none', 'start it'))];
    assert.deepEqual(short(checks, [path('host', 'b', 'one-way'), path('host', 'c')]), [
      'error this host routes',
      'error b one-way',
      'warning this host store',
    ]);
  });

  it('names the peer whose doing it is', () => {
    const entries = check('lease-entries', { ...warn('refused', 'correct it'), where: 'b' } as ReturnType<typeof warn>);
    assert.deepEqual(short([entries], []), ['warning b lease-entries']);
  });

  it('names what this host has in the way instead of what probes show, where they fail', () => {
    const finding = { fault: 'underlay-route', cause: 'no route to b', remedy: 'look' } as const;
    const problems = judge(
      [],
      [path('host', 'b', 'one-way'), path('host', 'c')],
      new Map([
        ['b', finding],
        ['c', finding],
      ]),
    );
    assert.deepEqual(problems, [{ where: 'b', severity: 'error', ...finding }]);
  });

  it('does not take a check that did not end for a fault', () => {
    const unknown = { ...fail('the check failed: no answer within 8000 ms', 'again'), isUnknown: true } as const;
    assert.deepEqual(short([check('routes', unknown)], [path('host', 'b')]), ['warning this host routes']);
  });

  it('names this host when its containers alone reach nobody, and one pair when they do not reach one', () => {
    const host = [path('host', 'b'), path('host', 'c')];
    const none = [path('container', 'b', 'tunnel-blocked'), path('container', 'c', 'tunnel-blocked')];
    assert.deepEqual(short([], [...host, ...none]), ['error this host not-forwarded']);
    assert.deepEqual(short([], [...host, none[0]!, path('container', 'c')]), ['error b tunnel-blocked']);
  });

  it('names this host when its containers reach nobody over one family alone', () => {
    const [four, six] = ['10.244.2.0/24', 'fd10:2::/64'];
    const host = [path('host', four), path('host', six)];
    const problems = judge([], [...host, path('container', four), path('container', six, 'tunnel-blocked')]);
    assert.deepEqual(
      problems.map(({ where, fault }) => `${where} ${fault}`),
      ['this host not-forwarded'],
    );
    assert.match(problems[0]!.cause, /over IPv6/);
  });

  it('does not say twice what fails for host and containers', () => {
    assert.deepEqual(
      short(
        [],
        [
          path('host', 'b', 'one-way'),
          path('host', 'c'),
          path('container', 'b', 'tunnel-blocked'),
          path('container', 'c'),
        ],
      ),
      ['error b one-way'],
    );
  });

  it('is a table for people and XML for build servers', () => {
    const paths = [path('host', 'b', 'one-way'), path('container', 'c')];
    const checks = [check('agent', ok('ready')), check('routes', fail('no "route" & more', 'start it'))];
    const problems = judge(checks, paths);
    const report = { host: '10.244.1.0/24', paths, checks, problems, unchecked: [], tookMs: 1_234 };
    const text = renderReport(report);
    assert.match(text, /^10\.244\.1\.0\/24: 1 of 2 checks of this host passed$/m);
    assert.match(text, /^✖ host → b +one-way, underlay 0\.20 ms, MTU 1472$/m);
    assert.match(text, /^✔ container → c +0\.50 ms, underlay 0\.20 ms, MTU 1472$/m);
    assert.match(text, /^✖ this host: routes: no "route" & more\n {2}→ start it$/m);
    assert.match(text, /^2 problems \(1234 ms\)\.$/m);
    const xml = renderJunit(report);
    assert.match(xml, /<testsuite name="weft 10\.244\.1\.0\/24" tests="4" failures="2" skipped="0" time="1\.234">/);
    assert.match(
      xml,
      /<testcase classname="weft\.host" name="routes"><failure type="routes" message="no &quot;route&quot; &amp; more">start it<\/failure>/,
    );
    assert.match(xml, /message="because of &lt;one-way&gt;"/);
  });

  it('says what was not checked and why, which is no failure', () => {
    const unchecked = [{ name: 'dns', reason: 'no server is known' }];
    const paths = [path('host', 'b')];
    const report = { host: '10.244.1.0/24', paths, checks: [], problems: [], unchecked, tookMs: 5 };
    const text = renderReport(report);
    assert.match(text, /^\? dns: not checked: no server is known$/m);
    assert.match(text, /^All that was checked works \(5 ms\)\.$/m);
    assert.match(renderReport({ ...report, unchecked: [] }), /^All paths work \(5 ms\)\.$/m);
    const xml = renderJunit(report);
    assert.match(xml, /tests="2" failures="0" skipped="1"/);
    assert.match(xml, /classname="weft\.host" name="dns"><skipped message="no server is known"\/>/);
  });
});
