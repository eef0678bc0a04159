import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { whyBpfRefused } from './capabilities.ts';

const NET_ADMIN = 1n << 12n;
const SYS_ADMIN = 1n << 21n;
const BPF = 1n << 39n;

const statusOf = (effective: bigint, bounding: bigint, seccomp: 0 | 2): string =>
  `Name:\tnode\nCapEff:\t${effective.toString(16).padStart(16, '0')}\nCapBnd:\t${bounding.toString(16).padStart(16, '0')}\n` +
  `NoNewPrivs:\t1\nSeccomp:\t${seccomp}\nSeccomp_filters:\t1\n`;

describe('whyBpfRefused', () => {
  it('blames the seccomp filter when both capabilities are in effect', () => {
    for (const effective of [BPF | NET_ADMIN, SYS_ADMIN | NET_ADMIN]) {
      assert.match(whyBpfRefused(statusOf(effective, effective, 2)), /Seccomp: 2.*refuses bpf\(2\).*Unconfined/);
    }
  });

  it('names the capabilities that are missing, whatever the filter, and whether they can be had at all', () => {
    const all = BPF | NET_ADMIN;
    assert.match(whyBpfRefused(statusOf(NET_ADMIN, all, 2)), /lacks: CAP_BPF\.$/);
    assert.match(whyBpfRefused(statusOf(BPF, all, 2)), /lacks: CAP_NET_ADMIN\.$/);
    assert.match(whyBpfRefused(statusOf(0n, NET_ADMIN, 0)), /lacks: CAP_BPF, CAP_NET_ADMIN\..*CapBnd.*: CAP_BPF\.$/);
  });

  it('blames the kernel when there is neither', () => {
    assert.match(whyBpfRefused(statusOf(BPF | NET_ADMIN, BPF | NET_ADMIN, 0)), /locked down/);
    assert.match(whyBpfRefused(undefined), /CAP_BPF and CAP_NET_ADMIN/);
  });
});
