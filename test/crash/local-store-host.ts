import { writeSync } from 'node:fs';
import { backendKind } from '../../src/backend/registry.ts';
import { WeftError } from '../../src/errors.ts';
import { ipv4Of } from '../../src/ip/ipv4.ts';
import { leaseKey } from '../../src/lease/lease.ts';
import { LocalSubnetManager } from '../../src/subnet/local/local-subnet-manager.ts';

/**
 * A host for the crash test: takes a lease, holds it for a moment, asks for it again, without end. Says what it has been
 * given before it does anything else, one JSON line each: `{"host":3,"key":"10.5.2.0-24","expiresAtMs":…}`.
 *
 * Arguments: store path, net-conf path, host number, life of a lease in milliseconds.
 */
const [storePath = '', netConfPath = '', hostText = '', ttlText = ''] = process.argv.slice(2);
const host = Number(hostText);
const leaseTtlMs = Number(ttlText);
const attrs = {
  publicAddresses: { ipv4: ipv4Of(0xc0a84d00 + host), ipv6: undefined },
  backendType: '',
  backendData: { ipv4: undefined, ipv6: undefined },
};
const forever = new AbortController().signal;
const manager = new LocalSubnetManager({
  backends: backendKind,
  storePath,
  netConfPath,
  leaseTtlMs,
  // Renewals are due all the time: the file is written as often as possible.
  renewMarginMs: leaseTtlMs - 10,
  pollMs: 5,
});
const config = await manager.networkConfig(forever);

function tell(message: Readonly<Record<string, unknown>>): void {
  writeSync(1, `${JSON.stringify({ host, ...message })}\n`);
}

for (;;) {
  try {
    const lease = await manager.acquireLease(config, attrs, forever);
    tell({ key: leaseKey(lease), expiresAtMs: lease.expiresAtMs });
    const enough = AbortSignal.timeout(Math.floor(Math.random() * 100));
    for await (const event of manager.holdLease(lease, enough)) {
      if (event.type === 'renewed') tell({ key: leaseKey(event.lease), expiresAtMs: event.lease.expiresAtMs });
    }
  } catch (error) {
    if (!(error instanceof WeftError) || error.code !== 'WEFT_SUBNET_EXHAUSTED') throw error;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
