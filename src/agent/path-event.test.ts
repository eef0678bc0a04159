import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIpv4 } from '../ip/ipv4.ts';
import { PATH_FAULTS, type PathFault } from '../probe/diagnose.ts';
import type { FaultChange } from '../probe/fault-log.ts';
import { pathEvent } from './path-event.ts';

const target = {
  ...{ id: '10.244.2.0/24', overlay: parseIpv4('10.244.2.0')!, underlay: parseIpv4('192.0.2.2') },
  ...{ mtuBytes: 1_472, underlayMtuBytes: 1_500 },
};
const change = (more: Partial<FaultChange>): FaultChange => ({
  ...{ target, diagnosis: undefined, before: undefined, lastedMs: 0, isProbed: true, isOften: false },
  ...more,
});
const broken = (fault: PathFault) => change({ diagnosis: { fault, cause: 'the cause', remedy: 'the remedy' } });

describe('the event of a path', () => {
  it('says whom no packet reaches, and how that was found', () => {
    assert.deepEqual(pathEvent(broken('tunnel-blocked')), {
      ...{ kind: 'path-fault', severity: 'error', subject: '10.244.2.0/24', cause: 'the cause' },
      text: 'no packets get through to 10.244.2.0/24 (192.0.2.2): tunnel-blocked',
    });
  });

  it('is a warning where some packets pass', () => {
    const warnings = PATH_FAULTS.filter((fault) => pathEvent(broken(fault)).severity === 'warning');
    assert.deepEqual(warnings, ['mtu-lowered', 'mtu-blackhole', 'fragments-dropped', 'checksum-offload', 'lossy']);
    assert.match(pathEvent(broken('lossy')).text, /^some packets do not get through to /);
  });

  it('says when it is over, and how long it was', () => {
    const { kind, severity, text } = pathEvent(change({ before: 'one-way', lastedMs: 35_400 }));
    assert.deepEqual([kind, severity], ['path-recovered', 'info']);
    assert.equal(text, 'the path to 10.244.2.0/24 (192.0.2.2) works again, after one-way for 35 s');
    const gone = pathEvent(change({ before: 'one-way', lastedMs: 600_000, isProbed: false, isOften: true })).text;
    assert.match(gone, /^10\.244\.2\.0\/24 .* is not probed any more: one-way for 10 min; it changes often/);
  });
});
