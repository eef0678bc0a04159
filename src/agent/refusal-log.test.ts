import assert from 'node:assert/strict';
import { it } from 'node:test';
import { parsePrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { RefusalLog } from './refusal-log.ts';

it('a flood of refusals is some lines, and a word about the others', () => {
  const attrs = {
    publicAddresses: { ipv4: undefined, ipv6: undefined },
    backendType: '',
    backendData: { ipv4: undefined, ipv6: undefined },
  };
  const lease: Lease = {
    subnets: { ipv4: parsePrefix4('0.0.0.0/0')!, ipv6: undefined },
    attrs,
    expiresAtMs: undefined,
  };
  const lines: string[] = [];
  let nowMs = 0;
  const log = new RefusalLog(
    { warn: (text) => void lines.push(text), error: (text) => void lines.push(`E ${text}`) },
    () => nowMs,
  );
  log.say([{ lease, reason: 'overlaps-own', by: undefined }]);
  assert.match(lines[0]!, /^E Refusing the lease 0\.0\.0\.0\/0: /);
  log.say(Array.from({ length: 10_000 }, () => ({ lease, reason: 'outside-network' as const, by: undefined })));
  assert.equal(lines.length, 21);
  log.say([{ lease, reason: 'overlaps-own', by: undefined }]);
  assert.match(lines[21]!, /^E Refusing the lease .*\[overlaps-own\]$/, 'not lost among the others');
  nowMs = 10_000;
  log.say([{ lease, reason: 'outside-network', by: undefined }]);
  assert.match(lines[22]!, /\(9980 more were refused and not logged\)$/);
});
