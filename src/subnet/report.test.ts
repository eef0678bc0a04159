import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4, parsePrefix6 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { describeReport } from './report.ts';

const lease: Lease = {
  subnets: { ipv4: parsePrefix4('10.244.38.0/24'), ipv6: undefined },
  attrs: {
    publicAddresses: { ipv4: parseIpv4('10.98.0.12'), ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
  },
  expiresAtMs: 1,
};

describe('describeReport', () => {
  it("uses flannel's lines, letter for letter, where flannel has one", () => {
    const text = (report: Parameters<typeof describeReport>[0]): string => describeReport(report).text;
    assert.equal(
      text({ type: 'lease-reused', lease }),
      'Found lease (ip: 10.244.38.0/24 ipv6: ::/0) for current IP (10.98.0.12), reusing',
    );
    assert.equal(
      text({
        type: 'lease-allocated',
        lease: { ...lease, subnets: { ...lease.subnets, ipv6: parsePrefix6('fd00::/64') } },
      }),
      'Allocated lease (ip: 10.244.38.0/24 ipv6: fd00::/64) to current node (10.98.0.12)',
    );
    assert.equal(
      text({ type: 'picking', from: parseIpv4('10.244.1.0')!, to: parseIpv4('10.244.255.0')! }),
      'Picking subnet in range 10.244.1.0 ... 10.244.255.0',
    );
    assert.equal(
      text({ type: 'previous-reused', subnets: lease.subnets }),
      'Found previously leased subnet (10.244.38.0/24), reusing',
    );
    assert.equal(text({ type: 'renewal-scheduled', delayMs: 82_798_999 }), 'Waiting for 22h59m59s to renew lease');
    assert.match(text({ type: 'lease-renewed', lease }), /^Lease renewed, new expiration: 1970-01-01T/);
    assert.equal(
      text({ type: 'store-failed', failure: 'Error renewing lease', error: new Error('no answer'), retryInMs: 60_000 }),
      'Error renewing lease (trying again in 1m0s): no answer',
    );
  });

  it('says whose claim a subnet was taken under, where no other is free', () => {
    const entry = { ipv4: parsePrefix4('10.244.0.0/16'), ipv6: undefined };
    const { severity, text } = describeReport({ type: 'picked-under', subnets: lease.subnets, entry, by: lease.attrs });
    assert.equal(severity, 'warning');
    assert.match(text, /^Taking 10\.244\.38\.0\/24, although 10\.98\.0\.12 claims it with 10\.244\.0\.0\/16: /);
  });
});
