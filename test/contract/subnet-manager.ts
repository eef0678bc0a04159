import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { NetworkConfig } from '../../src/config/network-config.ts';
import { WeftError } from '../../src/errors.ts';
import { overlaps } from '../../src/ip/address.ts';
import { ipv4Of, parseIpv4 } from '../../src/ip/ipv4.ts';
import { parseIpv6 } from '../../src/ip/ipv6.ts';
import { containsPrefix4, containsPrefix6, formatPrefix4, parsePrefix4, parsePrefix6 } from '../../src/ip/prefix.ts';
import { type JsonValue, type Lease, type LeaseAttrs, type LeaseKey, leaseKey } from '../../src/lease/lease.ts';
import { encodeLeaseValue } from '../../src/lease/lease-codec.ts';
import type { SubnetReport } from '../../src/subnet/report.ts';
import type { LeaseUpdate, OwnLeaseEvent, SubnetManager } from '../../src/subnet/subnet-manager.ts';

export interface ManagerOptions {
  /** Own lease is renewed that long after it was had, instead of an hour before its end. */
  readonly renewAfterMs?: number;
  readonly report?: (report: SubnetReport) => void;
}

/** One store, the hosts on it, and the hands that change it behind their backs. */
export interface SubnetManagerHarness extends AsyncDisposable {
  /** A manager as an agent on its own host makes it; the harness disposes of it. */
  manager(options?: ManagerOptions): SubnetManager;
  /** Puts a network configuration into the place where managers look for it; undefined removes it. */
  configure(netConf: string | undefined): Promise<void>;
  /**
   * Writes a lease as another host, or an operator (no expiration: a reservation), does.
   * @param backendData JSON text, or what should be: stands in the place of the lease's own data as it is.
   */
  writeEntry(lease: Lease, backendData?: string): Promise<void>;
  deleteEntry(key: LeaseKey): Promise<void>;
  /** Puts a value that cannot be read under a key; the key itself may be no lease key either. */
  corruptEntry(key: string): Promise<void>;
  /** Lets the entry run out now. */
  expireNow(key: LeaseKey): Promise<void>;
  /** Makes the store fail for everybody until the result is disposed of. */
  interrupt(): Promise<AsyncDisposable>;
  /** Makes writes to the store hang, without an error, until the result is disposed of. */
  stall(): Promise<AsyncDisposable>;
  /** For a store with a clock of its own: moves it. Real time passes by itself. */
  elapse(ms: number): Promise<void>;
}

/** Waiting for an event is bounded by this, so that a broken manager fails a test instead of hanging the run. */
const PATIENCE_MS = 20_000;

export const NET_CONF = JSON.stringify({ Network: '10.5.0.0/16', SubnetMin: '10.5.1.0', SubnetMax: '10.5.8.0' });
const HOUR_MS = 3_600_000;

export function attrsOf(host: number, backendData?: JsonValue): LeaseAttrs {
  const publicIp = parseIpv4(`192.168.77.${host}`);
  assert.ok(publicIp !== undefined);
  return {
    publicAddresses: { ipv4: publicIp, ipv6: undefined },
    backendType: backendData === undefined ? '' : 'vxlan',
    backendData: { ipv4: backendData, ipv6: undefined },
  };
}

export function leaseOf(
  cidr: string,
  host: number,
  ttlMs: number | undefined = HOUR_MS,
  backendData?: JsonValue,
): Lease {
  const subnet = parsePrefix4(cidr);
  assert.ok(subnet !== undefined);
  const expiresAtMs = ttlMs === undefined ? undefined : Date.now() + ttlMs;
  return { subnets: { ipv4: subnet, ipv6: undefined }, attrs: attrsOf(host, backendData), expiresAtMs };
}

/** flannel's value of a lease whose data is a text as it is. */
export function rawLeaseValue({ attrs }: Lease, backendData: string): string {
  return `${encodeLeaseValue({ ...attrs, backendType: 'vxlan', backendData: { ...attrs.backendData, ipv4: undefined } }).slice(0, -1)},"BackendData":${backendData}}`;
}

/** What a host that may write its own entry can put there; none of it means anything to a backend. */
const HOSTILE_DATA: readonly string[] = [
  `${'['.repeat(3_000)}${']'.repeat(3_000)}`,
  `${'['.repeat(3_001)}${']'.repeat(3_001)}`,
  `${'{"a":'.repeat(3_000)}1${'}'.repeat(3_000)}`,
  `[${'0,'.repeat(60_000)}0]`,
  JSON.stringify('x'.repeat(100_000)),
  '{"__proto__":{"VNI":1},"constructor":null}',
  '{"VNI":1e999,"VtepMAC":"\\ud800"}',
  '"\u001b[2J\\n"',
  '{"VNI":',
];

function overlap(a: Lease, b: Lease): boolean {
  return (
    (a.subnets.ipv4 !== undefined && b.subnets.ipv4 !== undefined && overlaps(a.subnets.ipv4, b.subnets.ipv4)) ||
    (a.subnets.ipv6 !== undefined && b.subnets.ipv6 !== undefined && overlaps(a.subnets.ipv6, b.subnets.ipv6))
  );
}

/** Takes from `source` until `wanted` accepts one, and hands that one back. */
async function until<T>(source: AsyncIterator<T>, what: string, wanted: (value: T) => boolean): Promise<T> {
  for (;;) {
    const step = await source.next();
    assert.ok(step.done !== true, `the stream ended while waiting for ${what}`);
    if (wanted(step.value)) return step.value;
  }
}

/** Rejects when `signal` fires, for waits that do not look at it. */
function outOfPatience(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** A manager's own picture of the leases, kept by the rules of LeaseUpdate. */
class Picture {
  readonly leases = new Map<LeaseKey, Lease>();
  readonly #updates: AsyncIterator<LeaseUpdate>;
  /** Every key that was ever reported as removed, or was missing from a later snapshot. */
  readonly withdrawn = new Set<LeaseKey>();

  constructor(updates: AsyncIterable<LeaseUpdate>) {
    this.#updates = updates[Symbol.asyncIterator]();
  }

  async until(what: string, wanted: (leases: ReadonlyMap<LeaseKey, Lease>) => boolean): Promise<void> {
    while (!wanted(this.leases)) {
      const step = await this.#updates.next();
      assert.ok(step.done !== true, `the watch ended while waiting for ${what}`);
      this.#apply(step.value);
    }
  }

  async first(): Promise<LeaseUpdate> {
    const step = await this.#updates.next();
    assert.ok(step.done !== true, 'the watch ended at once');
    this.#apply(step.value);
    return step.value;
  }

  #apply(update: LeaseUpdate): void {
    switch (update.type) {
      case 'snapshot': {
        const keys = new Set(update.leases.map(leaseKey));
        for (const key of this.leases.keys()) if (!keys.has(key)) this.withdrawn.add(key);
        this.leases.clear();
        for (const lease of update.leases) this.leases.set(leaseKey(lease), lease);
        return;
      }
      case 'set':
        this.leases.set(leaseKey(update.lease), update.lease);
        return;
      case 'removed':
        this.leases.delete(update.key);
        this.withdrawn.add(update.key);
        return;
    }
  }
}

export interface SubnetManagerCapabilities {
  /**
   * The manager itself chooses subnets, for a time. False for Kubernetes, which gives every node its pod CIDR for as long
   * as the node exists: there is no allocation, no expiry, and nobody else can take a subnet.
   */
  readonly allocates: boolean;
}

/** What every subnet manager promises. `makeHarness` starts from an empty store each time. */
export function subnetManagerContract(
  name: string,
  makeHarness: () => Promise<SubnetManagerHarness>,
  { allocates }: SubnetManagerCapabilities = { allocates: true },
): void {
  const allocationTest: typeof test = (...args) => {
    if (allocates) test(...args);
  };

  /** A test with its own store, configured, and a signal that ends whatever the test left running. */
  function test(
    what: string,
    body: (context: {
      readonly harness: SubnetManagerHarness;
      readonly config: NetworkConfig;
      readonly signal: AbortSignal;
    }) => Promise<void>,
    netConf: string = NET_CONF,
  ): void {
    it(what, async () => {
      const scope = new AbortController();
      const signal = AbortSignal.any([scope.signal, AbortSignal.timeout(PATIENCE_MS)]);
      await using harness = await makeHarness();
      try {
        await harness.configure(netConf);
        const config = await harness.manager().networkConfig(signal);
        await Promise.race([body({ harness, config, signal }), outOfPatience(signal)]);
        assert.equal(signal.aborted, false, 'what was waited for did not come in time');
      } finally {
        scope.abort(new Error('the test is over'));
      }
    });
  }

  describe(`${name}: network configuration`, () => {
    test('is read and validated', async ({ harness, signal }) => {
      const config = await harness.manager().networkConfig(signal);
      assert.deepEqual(config.ipv4?.network, parsePrefix4('10.5.0.0/16'));
      if (!allocates) return;
      assert.deepEqual(config.ipv4, {
        network: parsePrefix4('10.5.0.0/16'),
        subnetLength: 24,
        subnetMin: parseIpv4('10.5.1.0'),
        subnetMax: parseIpv4('10.5.8.0'),
      });
    });

    test('missing is an error of its own, and found once it is there', async ({ harness, signal }) => {
      const manager = harness.manager();
      await harness.configure(undefined);
      await assert.rejects(manager.networkConfig(signal), { code: 'WEFT_CONFIG_MISSING' });
      await harness.configure(NET_CONF);
      assert.equal((await manager.networkConfig(signal)).ipv4?.subnetLength, 24);
    });

    test('wrong is told from missing', async ({ harness, signal }) => {
      // Lengths matter only to those who cut the subnets.
      await harness.configure(`{"Network": "10.5.0.0/16", "SubnetLen": ${allocates ? 12 : '"12"'}}`);
      await assert.rejects(harness.manager().networkConfig(signal), { code: 'WEFT_CONFIG_INVALID' });
      await harness.configure('{"Network": ');
      await assert.rejects(harness.manager().networkConfig(signal), { code: 'WEFT_CONFIG_INVALID' });
    });
  });

  describe(`${name}: acquiring a lease`, () => {
    allocationTest(
      'gives a subnet of the configured range and length, for a day',
      async ({ harness, config, signal }) => {
        const before = Date.now();
        const attrs = attrsOf(1, { VNI: 1, VtepMAC: '72:4f:d0:84:69:9f' });
        const lease = await harness.manager().acquireLease(config, attrs, signal);
        assert.ok(lease.subnets.ipv4 !== undefined && config.ipv4 !== undefined);
        assert.equal(lease.subnets.ipv4.length, 24);
        assert.ok(lease.subnets.ipv4.addr >= config.ipv4.subnetMin && lease.subnets.ipv4.addr <= config.ipv4.subnetMax);
        assert.equal(lease.subnets.ipv6, undefined);
        assert.deepEqual(lease.attrs, attrs);
        assert.ok(lease.expiresAtMs !== undefined);
        const ttlMs = lease.expiresAtMs - before;
        assert.ok(Math.abs(ttlMs - 24 * HOUR_MS) < 60_000, `a lease of ${ttlMs} ms`);
      },
    );

    test('again under the same public address gives the same subnet with the new attributes', async (t) => {
      const first = await t.harness.manager().acquireLease(t.config, attrsOf(1), t.signal);
      const again = await t.harness.manager().acquireLease(t.config, attrsOf(1, { VNI: 7 }), t.signal);
      assert.equal(leaseKey(again), leaseKey(first));
      const picture = new Picture(t.harness.manager().watchLeases(t.config, t.signal));
      await picture.first();
      assert.deepEqual(
        [...picture.leases.values()].map((lease) => lease.attrs),
        [attrsOf(1, { VNI: 7 })],
      );
    });

    test('that is held comes along when the public address changes', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const held = await manager.acquireLease(config, attrsOf(1), signal);
      const moved = await manager.acquireLease(config, attrsOf(2), signal, { previous: held.subnets, held });
      assert.equal(leaseKey(moved), leaseKey(held));
      assert.deepEqual(moved.attrs, attrsOf(2));
      const picture = new Picture(manager.watchLeases(config, signal));
      await picture.first();
      assert.deepEqual(
        [...picture.leases.values()].map((lease) => lease.attrs),
        [attrsOf(2)],
      );
    });

    allocationTest('is had again under another address of this host', async ({ harness, config, signal }) => {
      await harness.writeEntry(leaseOf('10.5.3.0/24', 2));
      await harness.writeEntry(leaseOf('10.5.6.0/24', 7));
      const hostAddresses = [1, 7].map((host) => attrsOf(host).publicAddresses.ipv4!);
      const lease = await harness.manager().acquireLease(config, attrsOf(1), signal, { hostAddresses });
      assert.equal(leaseKey(lease), '10.5.6.0-24');
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.first();
      assert.deepEqual(picture.leases.get('10.5.6.0-24' as LeaseKey)?.attrs, attrsOf(1));
    });

    allocationTest('is not taken from who holds it by now, held as it was', async ({ harness, config, signal }) => {
      const held = leaseOf('10.5.6.0/24', 1);
      await harness.writeEntry(leaseOf('10.5.6.0/24', 3));
      const lease = await harness.manager().acquireLease(config, attrsOf(2), signal, { previous: held.subnets, held });
      assert.ok(!overlap(lease, held));
    });

    allocationTest('takes the previous subnet when nobody holds it', async ({ harness, config, signal }) => {
      const reports: SubnetReport[] = [];
      const manager = harness.manager({ report: (report) => reports.push(report) });
      const previous = leaseOf('10.5.6.0/24', 1);
      const lease = await manager.acquireLease(config, attrsOf(1), signal, { previous: previous.subnets });
      assert.equal(leaseKey(lease), leaseKey(previous));
      assert.ok(reports.some((report) => report.type === 'previous-reused'));
    });

    allocationTest(
      'prefers the lease of its public address to the previous subnet',
      async ({ harness, config, signal }) => {
        await harness.writeEntry(leaseOf('10.5.3.0/24', 1));
        const previous = leaseOf('10.5.6.0/24', 1);
        const lease = await harness.manager().acquireLease(config, attrsOf(1), signal, { previous: previous.subnets });
        assert.equal(leaseKey(lease), '10.5.3.0-24');
      },
    );

    allocationTest('takes another subnet when the previous one is held', async ({ harness, config, signal }) => {
      const taken = leaseOf('10.5.6.0/24', 2);
      await harness.writeEntry(taken);
      const lease = await harness.manager().acquireLease(config, attrsOf(1), signal, { previous: taken.subnets });
      assert.ok(!overlap(lease, taken));
    });

    allocationTest(
      'ignores a previous subnet that does not fit the configuration',
      async ({ harness, config, signal }) => {
        for (const [host, cidr] of ['10.6.1.0/24', '10.5.2.0/25', '10.5.99.0/24'].entries()) {
          const reports: SubnetReport[] = [];
          const manager = harness.manager({ report: (report) => reports.push(report) });
          const previous = leaseOf(cidr, host + 1);
          const lease = await manager.acquireLease(config, attrsOf(host + 1), signal, { previous: previous.subnets });
          assert.notEqual(leaseKey(lease), leaseKey(previous));
          assert.ok(
            reports.some((report) => report.type === 'previous-incompatible'),
            `${cidr} was not reported`,
          );
        }
      },
    );

    allocationTest('replaces a lease of its own that does not fit the configuration any more', async (t) => {
      await t.harness.writeEntry(leaseOf('10.5.200.0/24', 1));
      const lease = await t.harness.manager().acquireLease(t.config, attrsOf(1), t.signal);
      assert.notEqual(leaseKey(lease), '10.5.200.0-24');
      const picture = new Picture(t.harness.manager().watchLeases(t.config, t.signal));
      await picture.first();
      assert.deepEqual([...picture.leases.keys()], [leaseKey(lease)]);
    });

    allocationTest('never picks what overlaps a lease of another length', async ({ harness, config, signal }) => {
      await harness.writeEntry(leaseOf('10.5.0.0/21', 2)); // 10.5.0.0 … 10.5.7.255: only 10.5.8.0/24 is left
      const lease = await harness.manager().acquireLease(config, attrsOf(1), signal);
      assert.equal(leaseKey(lease), '10.5.8.0-24');
    });

    allocationTest('fails when no subnet is left, and says so', async ({ harness, config, signal }) => {
      for (let n = 1; n <= 8; n++) await harness.writeEntry(leaseOf(`10.5.${n}.0/24`, 10 + n));
      await assert.rejects(harness.manager().acquireLease(config, attrsOf(1), signal), (error) => {
        assert.ok(error instanceof WeftError);
        assert.equal(error.code, 'WEFT_SUBNET_EXHAUSTED');
        assert.match(error.message, /out of subnets/);
        return true;
      });
    });

    allocationTest(
      'never gives two hosts overlapping subnets, however many ask at once',
      async ({ harness, config, signal }) => {
        const asked = Array.from({ length: 9 }, (_, n) =>
          harness.manager().acquireLease(config, attrsOf(n + 1), signal),
        );
        const answers = await Promise.allSettled(asked);
        const leases = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
        const refusals = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason] : []));
        assert.equal(leases.length, 8, `of 8 subnets; refusals: ${refusals.join('; ')}`);
        assert.deepEqual(
          refusals.map((error) => error.code),
          ['WEFT_SUBNET_EXHAUSTED'],
        );
        for (const [i, a] of leases.entries()) {
          for (const b of leases.slice(i + 1)) assert.ok(!overlap(a, b), `${leaseKey(a)} overlaps ${leaseKey(b)}`);
        }
      },
    );

    allocationTest('takes an expired subnet of another host', async ({ harness, config, signal }) => {
      for (let n = 1; n <= 8; n++) await harness.writeEntry(leaseOf(`10.5.${n}.0/24`, 10 + n));
      await harness.expireNow('10.5.5.0-24' as LeaseKey);
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.until('the end of the expired lease', (leases) => leases.size === 7);
      const lease = await harness.manager().acquireLease(config, attrsOf(1), signal);
      assert.equal(leaseKey(lease), '10.5.5.0-24');
    });

    allocationTest('never picks a subnet whose entry cannot be read', async ({ harness, config, signal }) => {
      for (let n = 1; n <= 7; n++) await harness.corruptEntry(`10.5.${n}.0-24`);
      const lease = await harness.manager().acquireLease(config, attrsOf(1), signal);
      assert.equal(leaseKey(lease), '10.5.8.0-24');
    });

    allocationTest('is not kept from a subnet by an entry for more than one, nor loses one to it', async (t) => {
      const { harness, config, signal } = t;
      const own = await harness.manager().acquireLease(config, attrsOf(1), signal);
      for (const cidr of ['0.0.0.0/0', '10.0.0.0/8', '10.5.0.0/16', '10.5.0.0/17', '10.5.0.0/21', '10.5.8.0/21']) {
        await harness.writeEntry(leaseOf(cidr, 66));
      }
      const four = leaseOf('0.0.0.0/0', 66);
      const everything = { ...four, subnets: { ...four.subnets, ipv6: parsePrefix6('::/0')! } };
      await harness.writeEntry(everything);
      // A host that is restarted, also under another of its addresses, one that is new, and one whose entry has gone for a moment.
      const hostAddresses = [1, 9].map((host) => attrsOf(host).publicAddresses.ipv4!);
      const moved = await harness.manager().acquireLease(config, attrsOf(9), signal, { hostAddresses });
      assert.equal(leaseKey(moved), leaseKey(own));
      await harness.manager().acquireLease(config, attrsOf(1), signal, { hostAddresses });
      const again = await harness.manager().acquireLease(config, attrsOf(1), signal);
      assert.equal(leaseKey(again), leaseKey(own));
      const other = await harness.manager().acquireLease(config, attrsOf(2), signal);
      assert.ok(!overlap(other, own));
      const manager = harness.manager();
      const held = manager.holdLease(await manager.acquireLease(config, attrsOf(1), signal), signal);
      await harness.deleteEntry(leaseKey(own));
      const told = await until(held[Symbol.asyncIterator](), 'the lease to be had again', (event) => {
        return event.type !== 'store-unavailable';
      });
      assert.ok(told.type === 'renewed', `got ${JSON.stringify(told)}`);
      assert.equal(leaseKey(told.lease), leaseKey(own));
    });

    allocationTest('keeps a reservation of its address permanent', async ({ harness, config, signal }) => {
      await harness.writeEntry({ ...leaseOf('10.5.4.0/24', 1), expiresAtMs: undefined });
      const lease = await harness.manager().acquireLease(config, attrsOf(1, { VNI: 3 }), signal);
      assert.equal(leaseKey(lease), '10.5.4.0-24');
      assert.equal(lease.expiresAtMs, undefined);
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.first();
      const { origin: _, ...seen } = picture.leases.get(leaseKey(lease))!;
      assert.deepEqual(seen, lease);
    });

    const dual = JSON.stringify({ Network: '10.5.0.0/16', EnableIPv6: true, IPv6Network: 'fd00:5::/48' });
    allocationTest(
      'gives a subnet of each family when both are on',
      async ({ harness, config, signal }) => {
        const publicIpv6 = parseIpv6('fd77::1');
        assert.ok(publicIpv6 !== undefined && config.ipv6 !== undefined);
        const one = attrsOf(1);
        const attrs = { ...one, publicAddresses: { ...one.publicAddresses, ipv6: publicIpv6 } };
        const lease = await harness.manager().acquireLease(config, attrs, signal);
        assert.ok(lease.subnets.ipv4 !== undefined && lease.subnets.ipv6 !== undefined);
        assert.ok(containsPrefix4(parsePrefix4('10.5.0.0/16')!, lease.subnets.ipv4));
        assert.ok(containsPrefix6(parsePrefix6('fd00:5::/48')!, lease.subnets.ipv6));
        assert.equal(lease.subnets.ipv6.length, 64);
        const again = await harness.manager().acquireLease(config, attrs, signal);
        assert.equal(leaseKey(again), leaseKey(lease));
      },
      dual,
    );
  });

  describe(`${name}: watching all leases`, () => {
    test('starts with a snapshot of own and foreign leases', async ({ harness, config, signal }) => {
      await harness.writeEntry(leaseOf('10.5.2.0/24', 2, HOUR_MS, { VNI: 1 }));
      const manager = harness.manager();
      const own = await manager.acquireLease(config, attrsOf(1), signal);
      const picture = new Picture(manager.watchLeases(config, signal));
      const first = await picture.first();
      assert.equal(first.type, 'snapshot');
      assert.deepEqual([...picture.leases.keys()].sort(), [leaseKey(own), '10.5.2.0-24'].sort());
      assert.deepEqual(picture.leases.get('10.5.2.0-24' as LeaseKey)?.attrs, attrsOf(2, { VNI: 1 }));
    });

    test('starts with an empty snapshot when there are none', async ({ harness, config, signal }) => {
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      assert.deepEqual(await picture.first(), { type: 'snapshot', leases: [] });
    });

    test('sees leases come, change their attributes, and go', async ({ harness, config, signal }) => {
      const key = '10.5.3.0-24' as LeaseKey;
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.first();
      await harness.writeEntry(leaseOf('10.5.3.0/24', 3));
      await picture.until('a new lease', (leases) => leases.has(key));
      await harness.writeEntry(leaseOf('10.5.3.0/24', 4, HOUR_MS, { VNI: 2 }));
      await picture.until('the changed attributes', (leases) => leases.get(key)?.attrs.backendType === 'vxlan');
      assert.deepEqual(picture.leases.get(key)?.attrs, attrsOf(4, { VNI: 2 }));
      await harness.deleteEntry(key);
      await picture.until('the end of the lease', (leases) => !leases.has(key));
    });

    test('sees the lease that its own manager takes later', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const picture = new Picture(manager.watchLeases(config, signal));
      await picture.first();
      const own = await manager.acquireLease(config, attrsOf(1), signal);
      await picture.until('the own lease', (leases) => leases.has(leaseKey(own)));
    });

    allocationTest('sees an expired lease go', async ({ harness, config, signal }) => {
      const key = '10.5.3.0-24' as LeaseKey;
      await harness.writeEntry(leaseOf('10.5.3.0/24', 3));
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.until('the lease', (leases) => leases.has(key));
      await harness.expireNow(key);
      await picture.until('its expiry', (leases) => !leases.has(key));
    });

    test('skips and reports what cannot be read, and withdraws nobody for it', async ({ harness, config, signal }) => {
      await harness.writeEntry(leaseOf('10.5.2.0/24', 2));
      await harness.writeEntry(leaseOf('10.5.3.0/24', 3));
      await harness.corruptEntry('10.5.4.0-24');
      const reports: string[] = [];
      const manager = harness.manager({
        report: (report) => report.type === 'entry-unreadable' && reports.push(report.key),
      });
      const picture = new Picture(manager.watchLeases(config, signal));
      await picture.first();
      assert.deepEqual([...picture.leases.keys()].sort(), ['10.5.2.0-24', '10.5.3.0-24']);
      assert.ok(reports.some((key) => key.endsWith('10.5.4.0-24')));

      await harness.corruptEntry('10.5.3.0-24');
      await harness.corruptEntry('rubbish');
      await harness.writeEntry(leaseOf('10.5.7.0/24', 7));
      await picture.until('a change after the damage', (leases) => leases.has('10.5.7.0-24' as LeaseKey));
      assert.deepEqual([...picture.leases.keys()].sort(), ['10.5.2.0-24', '10.5.3.0-24', '10.5.7.0-24']);
      assert.deepEqual([...picture.withdrawn], []);
      assert.ok(reports.some((key) => key.endsWith('10.5.3.0-24')));
      assert.ok(reports.some((key) => key.endsWith('rubbish')));
    });

    test('nothing that one entry says can hurt the others, whatever it becomes', async (t) => {
      const { harness, config, signal } = t;
      const manager = harness.manager();
      const own = await manager.acquireLease(config, attrsOf(1), signal, {
        previous: leaseOf('10.5.1.0/24', 1).subnets,
      });
      const picture = new Picture(manager.watchLeases(config, signal));
      await picture.first();
      const held = manager.holdLease(own, signal)[Symbol.asyncIterator]().next();
      for (const [i, data] of HOSTILE_DATA.entries()) {
        await harness.writeEntry(leaseOf('10.5.2.0/24', 2), data);
        const key = `10.5.3.0-24` as LeaseKey;
        await harness.writeEntry(leaseOf('10.5.3.0/24', 30 + i));
        await picture.until(
          'a change after it',
          (leases) => leases.get(key)?.attrs.publicAddresses.ipv4 === attrsOf(30 + i).publicAddresses.ipv4,
        );
      }
      // A manager that starts now reads the last of them in its first list.
      for (const data of HOSTILE_DATA.slice(0, 2)) {
        await harness.writeEntry(leaseOf('10.5.2.0/24', 2), data);
        const fresh = new Picture(harness.manager().watchLeases(config, signal));
        await fresh.first();
        assert.ok(fresh.leases.has('10.5.3.0-24' as LeaseKey) && fresh.leases.has(leaseKey(own)));
      }
      assert.equal(
        await Promise.race([held, new Promise((resolve) => setImmediate(resolve, 'still held'))]),
        'still held',
      );
      assert.ok(!picture.withdrawn.has(leaseKey(own)));
    });

    test('keeps what peers publish for their backend only for a backend that wants it', async (t) => {
      const { harness, config, signal } = t;
      await harness.writeEntry(leaseOf('10.5.2.0/24', 2, HOUR_MS, { VNI: 1 }));
      const key = '10.5.2.0-24' as LeaseKey;
      const manager = harness.manager();
      const wanting = new Picture(manager.watchLeases(config, signal, { backendData: true }));
      await wanting.first();
      assert.deepEqual(wanting.leases.get(key)?.attrs, attrsOf(2, { VNI: 1 }));
      const other = new Picture(manager.watchLeases(config, signal, { backendData: false }));
      await other.first();
      assert.deepEqual(other.leases.get(key)?.attrs, { ...attrsOf(2), backendType: 'vxlan' });
      await harness.writeEntry(leaseOf('10.5.2.0/24', 4, HOUR_MS, { VNI: 2 }));
      await other.until(
        'the new address',
        (leases) => leases.get(key)?.attrs.publicAddresses.ipv4 === attrsOf(4).publicAddresses.ipv4,
      );
      assert.deepEqual(other.leases.get(key)?.attrs, { ...attrsOf(4), backendType: 'vxlan' });
    });

    test('has it for a backend that wants it and comes after one that does not', async (t) => {
      const { harness, config, signal } = t;
      await harness.writeEntry(leaseOf('10.5.2.0/24', 2, HOUR_MS, { VNI: 1 }));
      const key = '10.5.2.0-24' as LeaseKey;
      const manager = harness.manager();
      const session = new AbortController();
      const other = new Picture(manager.watchLeases(config, session.signal, { backendData: false }));
      await other.first();
      assert.deepEqual(other.leases.get(key)?.attrs, { ...attrsOf(2), backendType: 'vxlan' });
      session.abort();
      const wanting = new Picture(manager.watchLeases(config, signal, { backendData: true }));
      await wanting.first();
      assert.deepEqual(wanting.leases.get(key)?.attrs, attrsOf(2, { VNI: 1 }));
      await harness.writeEntry(leaseOf('10.5.2.0/24', 2, HOUR_MS, { VNI: 2 }));
      await wanting.until('the new data', () => {
        const data = wanting.leases.get(key)?.attrs.backendData.ipv4;
        return JSON.stringify(data) === '{"VNI":2}';
      });
    });

    test('goes on over an outage of the store without withdrawing anybody', async ({ harness, config, signal }) => {
      const failed = Promise.withResolvers<void>();
      const manager = harness.manager({ report: (report) => report.type === 'store-failed' && failed.resolve() });
      await harness.writeEntry(leaseOf('10.5.2.0/24', 2));
      const picture = new Picture(manager.watchLeases(config, signal));
      await picture.first();
      const after = picture.until('a change after the outage', (leases) => leases.has('10.5.3.0-24' as LeaseKey));
      {
        await using _outage = await harness.interrupt();
        await Promise.race([failed.promise, after]);
      }
      await harness.writeEntry(leaseOf('10.5.3.0/24', 3));
      await after;
      assert.deepEqual([...picture.withdrawn], []);
    });

    test('ends quietly when aborted', async ({ harness, config }) => {
      const abort = new AbortController();
      const updates = harness.manager().watchLeases(config, abort.signal)[Symbol.asyncIterator]();
      assert.equal((await updates.next()).done, false);
      const pending = updates.next();
      abort.abort();
      assert.equal((await pending).done, true);
    });

    test('ends when its manager is disposed of', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const updates = manager.watchLeases(config, signal)[Symbol.asyncIterator]();
      assert.equal((await updates.next()).done, false);
      const pending = updates.next();
      await manager[Symbol.asyncDispose]();
      assert.equal((await pending).done, true);
    });
  });

  describe(`${name}: holding a lease`, () => {
    function hold(manager: SubnetManager, lease: Lease, signal: AbortSignal): AsyncIterator<OwnLeaseEvent> {
      return manager.holdLease(lease, signal)[Symbol.asyncIterator]();
    }

    allocationTest('renews it before its end, with the attributes it has', async ({ harness, config, signal }) => {
      const manager = harness.manager({ renewAfterMs: 50 });
      const attrs = attrsOf(1, { VNI: 1, VtepMAC: '72:4f:d0:84:69:9f' });
      const lease = await manager.acquireLease(config, attrs, signal);
      const events = hold(manager, lease, signal);
      await harness.elapse(100);
      const later = (event: OwnLeaseEvent): boolean =>
        event.type === 'renewed' && event.lease.expiresAtMs! > lease.expiresAtMs!;
      const renewed = await until(events, 'a renewal', later);
      assert.ok(renewed.type === 'renewed');
      assert.equal(leaseKey(renewed.lease), leaseKey(lease));
      assert.deepEqual(renewed.lease.attrs, attrs);
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.first();
      assert.deepEqual(picture.leases.get(leaseKey(lease))?.attrs, attrs);
    });

    test('takes the same subnet again when somebody deleted the entry', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1, { VNI: 5 }), signal);
      const events = hold(manager, lease, signal);
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.first();
      await harness.deleteEntry(leaseKey(lease));
      const renewed = await until(events, 'the lease to be had again', (event) => event.type !== 'store-unavailable');
      assert.ok(renewed.type === 'renewed', `got ${JSON.stringify(renewed)}`);
      assert.equal(leaseKey(renewed.lease), leaseKey(lease));
      await picture.until('the lease', (leases) => leases.has(leaseKey(lease)));
      assert.deepEqual(picture.leases.get(leaseKey(lease))?.attrs, attrsOf(1, { VNI: 5 }));
    });

    allocationTest('takes the same subnet again after it ran out', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      await harness.expireNow(leaseKey(lease));
      const events = hold(manager, lease, signal);
      const renewed = await until(events, 'the lease to be had again', (event) => event.type !== 'store-unavailable');
      assert.ok(renewed.type === 'renewed', `got ${JSON.stringify(renewed)}`);
      assert.ok(renewed.lease.expiresAtMs! > Date.now() + HOUR_MS);
    });

    test('puts its own entry right when somebody damaged it', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      const events = hold(manager, lease, signal);
      await harness.corruptEntry(leaseKey(lease));
      const renewed = await until(events, 'the entry to be put right', (event) => event.type !== 'store-unavailable');
      assert.ok(renewed.type === 'renewed', `got ${JSON.stringify(renewed)}`);
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.until('the entry to be put right', (leases) => leases.has(leaseKey(lease)));
      assert.deepEqual(picture.leases.get(leaseKey(lease))?.attrs, attrsOf(1));
    });

    allocationTest('adopts attributes that were published meanwhile under the same address', async (t) => {
      const manager = t.harness.manager();
      const lease = await manager.acquireLease(t.config, attrsOf(1, { VNI: 1 }), t.signal);
      const events = hold(manager, lease, t.signal);
      await t.harness.manager().acquireLease(t.config, attrsOf(1, { VNI: 2 }), t.signal);
      const told = await until(events, 'the new attributes', (event) => event.type !== 'store-unavailable');
      assert.ok(told.type === 'renewed', `got ${JSON.stringify(told)}`);
      assert.deepEqual(told.lease.attrs, attrsOf(1, { VNI: 2 }));
    });

    allocationTest('says that it is lost when another host has it, and ends', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      const events = hold(manager, lease, signal);
      await harness.writeEntry({ ...lease, attrs: attrsOf(2) });
      const lost = await until(events, 'the loss', (event) => event.type === 'lost');
      assert.ok(lost.type === 'lost');
      assert.match(lost.reason, /192\.168\.77\.2/);
      assert.equal((await events.next()).done, true);
      const next = await manager.acquireLease(config, attrsOf(1), signal, { previous: lease.subnets });
      assert.notEqual(leaseKey(next), leaseKey(lease));
    });

    allocationTest('says that it is lost when an overlapping subnet was taken after it ran out', async (t) => {
      const manager = t.harness.manager();
      const lease = await manager.acquireLease(t.config, attrsOf(1), t.signal);
      await t.harness.deleteEntry(leaseKey(lease));
      const half = { addr: ipv4Of(lease.subnets.ipv4!.addr), length: 25 };
      await t.harness.writeEntry(leaseOf(formatPrefix4(half), 2));
      const events = hold(manager, lease, t.signal);
      const lost = await until(events, 'the loss', (event) => event.type !== 'store-unavailable');
      assert.equal(lost.type, 'lost');
      assert.equal((await events.next()).done, true);
    });

    test('tells of an outage once, and holds on', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      const seen: string[] = [];
      const events = hold(manager, lease, signal);
      {
        await using _outage = await harness.interrupt();
        seen.push((await until(events, 'the outage', () => true)).type);
      }
      const back = await until(events, 'the end of the outage', (event) => seen.push(event.type) > 0);
      assert.deepEqual(seen, ['store-unavailable', 'renewed']);
      assert.ok(back.type === 'renewed');
      assert.equal(leaseKey(back.lease), leaseKey(lease));
    });

    test('ends quietly when aborted', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      const abort = new AbortController();
      const events = hold(manager, lease, abort.signal);
      const pending = events.next();
      abort.abort();
      assert.equal((await pending).done, true);
    });

    test('leaves the lease in the store when the manager is disposed of', async ({ harness, config, signal }) => {
      const manager = harness.manager();
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      const events = hold(manager, lease, signal);
      const pending = events.next();
      await manager[Symbol.asyncDispose]();
      assert.equal((await pending).done, true);
      const picture = new Picture(harness.manager().watchLeases(config, signal));
      await picture.first();
      assert.ok(picture.leases.has(leaseKey(lease)));
    });
  });

  describe(`${name}: cancellation`, () => {
    test('rejects with the reason of the signal, before and during the work', async ({ harness, config, signal }) => {
      const reason = new Error('stopped by the test');
      const manager = harness.manager();
      const before = AbortSignal.abort(reason);
      await assert.rejects(manager.networkConfig(before), reason);
      await assert.rejects(manager.acquireLease(config, attrsOf(1), before), reason);
      const lease = await manager.acquireLease(config, attrsOf(1), signal);
      await assert.rejects(manager.completeLease(lease, before), reason);

      const during = new AbortController();
      await using _stall = await harness.stall();
      const pending = manager.acquireLease(config, attrsOf(1), during.signal);
      during.abort(reason);
      await assert.rejects(pending, reason);
    });
  });
}
