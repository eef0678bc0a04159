import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { backendKind } from '../../src/backend/registry.ts';
import type { NetworkConfig } from '../../src/config/network-config.ts';
import { CertificateAuthority } from '../../src/lab/servers/certs.ts';
import { EtcdServer } from '../../src/lab/servers/etcd-server.ts';
import { type Lease, leaseKey } from '../../src/lease/lease.ts';
import { EtcdClient } from '../../src/subnet/etcd/etcd-client.ts';
import { EtcdSubnetManager, type EtcdSubnetManagerOptions } from '../../src/subnet/etcd/etcd-subnet-manager.ts';
import { LeaseRegistry } from '../../src/subnet/etcd/lease-registry.ts';
import type { SubnetReport } from '../../src/subnet/report.ts';
import type { LeaseUpdate, OwnLeaseEvent } from '../../src/subnet/subnet-manager.ts';
import { traceTo } from '../../src/trace.ts';
import { attrsOf, leaseOf, NET_CONF } from '../contract/subnet-manager.ts';
import { eventually } from '../netns/waiting.ts';
import { TcpProxy } from './etcd-proxy.ts';

const PREFIX = '/coreos.com/network';

/** Takes from `source` until `wanted` accepts one; all that were taken. */
async function until<T>(source: AsyncIterator<T>, wanted: (value: T) => boolean): Promise<T[]> {
  const taken: T[] = [];
  for (;;) {
    const step = await source.next();
    assert.ok(step.done !== true, `the stream ended after ${JSON.stringify(taken.map(String))}`);
    taken.push(step.value);
    if (wanted(step.value)) return taken;
  }
}

function sets(key: string): (update: LeaseUpdate) => boolean {
  return (update) =>
    (update.type === 'set' && leaseKey(update.lease) === key) ||
    (update.type === 'snapshot' && update.leases.some((lease) => leaseKey(lease) === key));
}

function removes(key: string): (update: LeaseUpdate) => boolean {
  return (update) => update.type === 'removed' && update.key === key;
}

const renewed = (event: OwnLeaseEvent): boolean => event.type === 'renewed';

/** A test's managers, all closed at its end, and a signal that ends with it. */
class Scope implements AsyncDisposable {
  readonly signal: AbortSignal;
  readonly reports: SubnetReport[] = [];
  readonly #abort = new AbortController();
  readonly #managers: EtcdSubnetManager[] = [];
  readonly #defaults: Omit<EtcdSubnetManagerOptions, 'backends'>;

  constructor(defaults: Omit<EtcdSubnetManagerOptions, 'backends'>) {
    this.#defaults = defaults;
    this.signal = AbortSignal.any([this.#abort.signal, AbortSignal.timeout(60_000)]);
  }

  manager(options: Partial<EtcdSubnetManagerOptions> = {}): EtcdSubnetManager {
    const report = (each: SubnetReport): unknown => this.reports.push(each);
    const manager = new EtcdSubnetManager({ backends: backendKind, report, ...this.#defaults, ...options });
    this.#managers.push(manager);
    return manager;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort(new Error('the test is over'));
    for (const manager of this.#managers) await manager[Symbol.asyncDispose]();
  }
}

async function put(server: EtcdServer, key: string, value: string): Promise<void> {
  await server.etcdctl('put', `${PREFIX}/subnets/${key}`, value);
}

describe('etcd subnet manager, cut off and back', () => {
  let server: EtcdServer;
  let proxy: TcpProxy;
  before(async () => {
    server = await EtcdServer.start();
    proxy = await TcpProxy.start(server.endpoints[0]!);
  });
  after(async () => {
    await proxy[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
  });

  async function scoped(): Promise<{ scope: Scope; config: NetworkConfig }> {
    await server.etcdctl('del', '--prefix', '');
    await server.etcdctl('put', `${PREFIX}/config`, NET_CONF);
    const scope = new Scope({ endpoints: [...server.endpoints] });
    return { scope, config: await scope.manager().networkConfig(scope.signal) };
  }

  it('follows changes over a compaction that it did not see, with a new snapshot', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    for (const n of [1, 2, 3]) await put(server, `10.5.${n}.0-24`, `{"PublicIP":"192.168.77.${n}","PublicIPv6":null}`);
    const updates = scope.manager({ endpoints: [proxy.url] }).watchLeases(config, scope.signal);
    assert.equal((await updates.next()).value?.type, 'snapshot');
    const pending = updates.next();
    proxy.cut();
    await server.etcdctl('del', `${PREFIX}/subnets/10.5.1.0-24`);
    await put(server, '10.5.2.0-24', '{"PublicIP":"192.168.77.20","PublicIPv6":null}');
    await put(server, '10.5.4.0-24', '{"PublicIP":"192.168.77.4","PublicIPv6":null}');
    await server.compact();
    proxy.heal();
    const { value } = await pending;
    assert.ok(value?.type === 'snapshot', `got ${value?.type}`);
    assert.deepEqual(
      value.leases.map((lease) => [leaseKey(lease), lease.attrs.publicAddresses.ipv4]),
      [
        ['10.5.2.0-24', attrsOf(20).publicAddresses.ipv4],
        ['10.5.3.0-24', attrsOf(3).publicAddresses.ipv4],
        ['10.5.4.0-24', attrsOf(4).publicAddresses.ipv4],
      ],
    );
    assert.ok(scope.reports.some((report) => report.type === 'resynchronised' && report.reason.includes('compacted')));
    await server.etcdctl('del', `${PREFIX}/subnets/10.5.3.0-24`);
    await until(updates, removes('10.5.3.0-24'));
  });

  it('goes on where it was after a break, without a snapshot', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    const updates = scope.manager({ endpoints: [proxy.url] }).watchLeases(config, scope.signal);
    await updates.next();
    const pending = updates.next();
    proxy.cut();
    await put(server, '10.5.2.0-24', '{"PublicIP":"192.168.77.2","PublicIPv6":null}');
    proxy.heal();
    assert.equal((await pending).value?.type, 'set');
  });

  it('holds a lease over a compaction, a restart and both at once', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    const manager = scope.manager({ endpoints: [proxy.url] });
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    const events = manager.holdLease(lease, scope.signal);
    const pending = events.next();
    proxy.cut();
    await scope.manager().acquireLease(config, attrsOf(1, { VNI: 9 }), scope.signal);
    await server.compact();
    await server.kill();
    await server.restart();
    proxy.heal();
    const seen = [(await pending).value];
    if (seen[0]?.type === 'store-unavailable') seen.push((await events.next()).value);
    const last = seen.at(-1);
    assert.ok(last?.type === 'renewed');
    assert.deepEqual(last.lease.attrs, attrsOf(1, { VNI: 9 }));
  });

  it('takes the same subnet again when its lease ran out while it was cut off', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    const manager = scope.manager({ endpoints: [proxy.url], leaseTtlSeconds: 2, renewMarginMs: 1_000 });
    const lease = await manager.acquireLease(config, attrsOf(1, { VNI: 1 }), scope.signal);
    const events = manager.holdLease(lease, scope.signal);
    const pending = events.next();
    const updates = scope.manager().watchLeases(config, scope.signal);
    await until(updates, sets(leaseKey(lease)));
    proxy.cut();
    assert.equal((await pending).value?.type, 'store-unavailable');
    await until(updates, removes(leaseKey(lease)));
    proxy.heal();
    const [back] = await until(events, () => true);
    assert.ok(back?.type === 'renewed');
    assert.equal(leaseKey(back.lease), leaseKey(lease));
    await until(updates, sets(leaseKey(lease)));
    assert.ok(scope.reports.some((report) => report.type === 'lease-retaken'));
    const renewedAgain = await until(events, renewed);
    assert.equal(renewedAgain.length, 1, 'a renewal in time');
  });

  it('says that it is lost when another host took the subnet meanwhile, and gets another one', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    const manager = scope.manager({ endpoints: [proxy.url], leaseTtlSeconds: 2, renewMarginMs: 1_000 });
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    const events = manager.holdLease(lease, scope.signal);
    const pending = events.next();
    const updates = scope.manager().watchLeases(config, scope.signal);
    await until(updates, sets(leaseKey(lease)));
    proxy.cut();
    assert.equal((await pending).value?.type, 'store-unavailable');
    await until(updates, removes(leaseKey(lease)));
    const taken = await scope.manager().acquireLease(config, attrsOf(2), scope.signal, { previous: lease.subnets });
    assert.equal(leaseKey(taken), leaseKey(lease));
    proxy.heal();
    const { value: lost } = await events.next();
    assert.ok(lost?.type === 'lost');
    assert.match(lost.reason, /192\.168\.77\.2/);
    assert.equal((await events.next()).done, true);
    const other = await manager.acquireLease(config, attrsOf(1), scope.signal, { previous: lease.subnets });
    assert.notEqual(leaseKey(other), leaseKey(lease));
  });

  it('registers itself again, and sees the others do so, after etcd lost everything', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    const manager = scope.manager();
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    for (let n = 0; n < 5; n++)
      await put(server, '10.5.8.0-24', `{"PublicIP":"192.168.77.${n + 8}","PublicIPv6":null}`);
    const updates = manager.watchLeases(config, scope.signal);
    await updates.next();
    const events = manager.holdLease(lease, scope.signal);
    const holding = until(events, renewed);
    const forgotten = until(updates, (update) => removes('10.5.8.0-24')(update) || update.type === 'snapshot');
    await server.kill();
    await server.wipe();
    await server.restart();
    await holding;
    const resync = (await forgotten).at(-1);
    assert.ok(resync?.type === 'snapshot');
    assert.ok(!resync.leases.some((each) => leaseKey(each) === '10.5.8.0-24'));
    // The snapshot shows the own lease, or was taken just before it was back.
    if (!sets(leaseKey(lease))(resync)) await until(updates, sets(leaseKey(lease)));
    await put(server, '10.5.2.0-24', '{"PublicIP":"192.168.77.2","PublicIPv6":null}');
    await until(updates, sets('10.5.2.0-24'));
  });

  it('notices a connection whose other end vanished without a word', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    const manager = scope.manager({ endpoints: [proxy.url], keepaliveMs: 5_000 });
    const updates = manager.watchLeases(config, scope.signal);
    await updates.next();
    const pending = updates.next();
    proxy.swallow();
    await put(server, '10.5.2.0-24', '{"PublicIP":"192.168.77.2","PublicIPv6":null}');
    assert.equal((await pending).value?.type, 'set');
  });

  it('leaves a reservation permanent while its owner runs, and after', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    await put(server, '10.5.4.0-24', '{"PublicIP":"192.168.77.1"}');
    const manager = scope.manager({ renewMarginMs: 86_399_900 });
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    assert.equal(leaseKey(lease), '10.5.4.0-24');
    const events = manager.holdLease(lease, scope.signal);
    const pending = events.next();
    // Something that the holder sees and must not answer with a 24-hour lease.
    await put(server, '10.5.4.0-24', '{"PublicIP":"192.168.77.1","BackendType":"vxlan"}');
    const { value } = await pending;
    assert.ok(value?.type === 'renewed');
    assert.equal(value.lease.expiresAtMs, undefined);
    const stored = await server.etcdctl('get', `${PREFIX}/subnets/10.5.4.0-24`, '--write-out=fields');
    assert.match(stored, /"Lease" : 0\b/);
  });

  it('is renewed in time although the clock of the host was set back', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    let offsetMs = 0;
    const now = (): number => Date.now() + offsetMs;
    const manager = scope.manager({ leaseTtlSeconds: 6, renewMarginMs: 3_000, now });
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    const events = manager.holdLease(lease, scope.signal);
    const pending = events.next();
    await eventually(
      'it is scheduled',
      () => scope.reports.some(({ type }) => type === 'renewal-scheduled') || undefined,
    );
    offsetMs = -60 * 86_400_000;
    const { value } = await pending;
    assert.ok(value?.type === 'renewed');
    assert.ok(value.lease.expiresAtMs !== undefined && value.lease.expiresAtMs - now() > 4_000);
    assert.ok(scope.reports.some(({ type }) => type === 'lease-renewed'));
    assert.ok(!scope.reports.some(({ type }) => type === 'lease-retaken'), 'it was never gone');
  });

  it('withdraws a lease that overlaps one which was created since the listing', async () => {
    const { scope } = await scoped();
    await using _ = scope;
    using client = new EtcdClient({ endpoints: server.endpoints });
    const registry = new LeaseRegistry(client, `${PREFIX}/`, Date.now);
    const listing = await registry.list(scope.signal);
    await put(server, '10.5.4.128-25', '{"PublicIP":"192.168.77.2","PublicIPv6":null}');
    const create = async (cidr: string): Promise<string> => {
      const binding = await registry.grant(60, scope.signal);
      return await registry.create(
        leaseOf(cidr, 1).subnets,
        '{"PublicIP":"192.168.77.1"}',
        binding,
        listing.revision,
        await scope.manager().networkConfig(scope.signal),
        scope.signal,
      );
    };
    assert.equal(await create('10.5.4.0/24'), 'overlapped');
    assert.equal(await create('10.5.5.0/24'), 'created');
    assert.equal(await create('10.5.5.0/24'), 'taken');
    const { keys } = await registry.list(scope.signal);
    assert.deepEqual(
      keys.map(({ kv }) => registry.nameOf(kv)),
      ['10.5.4.128-25', '10.5.5.0-24'],
    );
  });

  it('reads thousands of leases in pages, all of one moment', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    using client = new EtcdClient({ endpoints: server.endpoints });
    const count = 4_100;
    for (let from = 0; from < count; from += 100) {
      const success = Array.from({ length: 100 }, (_unused, i) => {
        const key = Buffer.from(`${PREFIX}/subnets/10.${100 + ((from + i) >> 8)}.${(from + i) & 255}.0-24`);
        return { request_put: { key, value: Buffer.from('{"PublicIP":"192.168.77.9"}'), lease: '0' } };
      });
      await client.call('Txn', { compare: [], success, failure: [] }, 'filling etcd', scope.signal);
    }
    const { value } = await scope.manager().watchLeases(config, scope.signal).next();
    assert.ok(value?.type === 'snapshot');
    assert.equal(new Set(value.leases.map(leaseKey)).size, count);
  });

  it('is not hurt by megabytes that somebody writes below its prefix, at a start and later', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    using client = new EtcdClient({ endpoints: server.endpoints });
    const { signal } = scope;
    const put = async (name: string, value: string): Promise<void> => {
      const key = Buffer.from(`${PREFIX}/subnets/${name}`);
      const success = [{ request_put: { key, value: Buffer.from(value), lease: '0' } }];
      await client.call('Txn', { compare: [], success, failure: [] }, 'filling etcd', signal);
    };
    const megabyte = 'x'.repeat(1 << 20);
    await put('10.5.7.0-24', '{"PublicIP":"192.168.77.7"}');
    for (let i = 0; i < 20; i++) await put(i % 2 === 0 ? `junk-${i}` : `10.5.${100 + i}.0-24`, megabyte);
    const [key, end] = [Buffer.from(`${PREFIX}/subnets/`), Buffer.from(`${PREFIX}/subnets0`)];
    // What a client takes has a bound, whatever etcd has.
    await assert.rejects(client.call('Range', { key, range_end: end }, 'reading all of it', signal), {
      code: 'WEFT_STORE_UNAVAILABLE',
      message: /Received message larger than max/,
    });
    const updates = scope.manager().watchLeases(config, signal);
    const { value: snapshot } = await updates.next();
    assert.ok(snapshot?.type === 'snapshot');
    assert.deepEqual(snapshot.leases.map(leaseKey), ['10.5.7.0-24']);
    for (let i = 0; i < 3; i++) await put(`later-${i}`, megabyte);
    await put('10.5.8.0-24', '{"PublicIP":"192.168.77.8"}');
    const { value: update } = await updates.next();
    assert.ok(update?.type === 'set');
    assert.equal(leaseKey(update.lease), '10.5.8.0-24');
  });

  it('gives the etcd leases back that it does not need any more', async () => {
    const { scope, config } = await scoped();
    await using _ = scope;
    for (const id of (await server.etcdctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]+$/.test(line))) {
      await server.etcdctl('lease', 'revoke', id);
    }
    const manager = scope.manager({ renewMarginMs: 86_399_900 });
    let lease: Lease | undefined;
    for (let n = 0; n < 3; n++) lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    const events = manager.holdLease(lease!, scope.signal);
    for (let n = 0; n < 3; n++) await until(events, renewed);
    await manager[Symbol.asyncDispose]();
    const rest = (await server.etcdctl('lease', 'list')).split('\n').filter((line) => /^[0-9a-f]+$/.test(line));
    assert.ok(rest.length <= 2, `${rest.length} etcd leases for one key`);
  });
});

describe('etcd subnet manager, several endpoints', () => {
  it('asks the next endpoint when one does not answer, and needs only a majority', async () => {
    await using server = await EtcdServer.start({ members: 3 });
    await server.etcdctl('put', `${PREFIX}/config`, NET_CONF);
    await using scope = new Scope({ endpoints: ['http://127.0.0.1:1', ...server.endpoints], requestTimeoutMs: 2_000 });
    const manager = scope.manager();
    const config = await manager.networkConfig(scope.signal);
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    const updates = manager.watchLeases(config, scope.signal);
    await until(updates, sets(leaseKey(lease)));
    const events = manager.holdLease(lease, scope.signal);
    const pending = events.next();

    // The member that everything went to, for the first endpoint never answered.
    await server.kill(0);
    const seen = until(updates, sets('10.5.100.0-24'));
    const entry = '{"PublicIP":"192.168.77.100","PublicIPv6":null}';
    // A write that is on its way to a leader when that dies is lost: etcd says so after seven seconds.
    await put(server, '10.5.100.0-24', entry).catch(() => put(server, '10.5.100.0-24', entry));
    assert.deepEqual(
      (await seen).map((update) => update.type),
      ['set'],
    );
    await server.etcdctl('del', `${PREFIX}/subnets/${leaseKey(lease)}`);
    const { value } = await pending;
    assert.ok(value?.type === 'renewed' || value?.type === 'store-unavailable', `got ${value?.type}`);
    if (value.type === 'store-unavailable') await until(events, renewed);
  });
});

describe('etcd subnet manager, users', () => {
  it('authenticates, takes a new token when the old one is refused, and says what is wrong', async () => {
    await using server = await EtcdServer.start();
    await server.etcdctl('put', `${PREFIX}/config`, NET_CONF);
    const user = { username: 'flannel', password: 'p?a=s,s' };
    const traced: string[] = [];
    using _trace = { [Symbol.dispose]: () => traceTo(undefined) };
    traceTo((level, text) => void (level === 6 && traced.push(text)));
    await using scope = new Scope({ endpoints: server.endpoints, ...user });
    const manager = scope.manager();
    // A user is configured before etcd wants one: that is no error.
    const config = await manager.networkConfig(scope.signal);
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);

    const root = '--user=root:root-password';
    await server.etcdctl('user', 'add', 'root:root-password');
    await server.etcdctl('user', 'grant-role', 'root', 'root');
    await server.etcdctl('role', 'add', 'network');
    await server.etcdctl('role', 'grant-permission', '--prefix', 'network', 'readwrite', PREFIX);
    await server.etcdctl('user', 'add', `${user.username}:${user.password}`);
    await server.etcdctl('user', 'add', 'stranger:stranger');
    await server.etcdctl('user', 'grant-role', user.username, 'network');
    await server.etcdctl('auth', 'enable');

    const updates = manager.watchLeases(config, scope.signal);
    await until(updates, sets(leaseKey(lease)));
    const events = scope.manager({ renewMarginMs: 86_399_900 }).holdLease(lease, scope.signal);
    await until(events, renewed);

    await assert.rejects(scope.manager({ password: 'wrong' }).networkConfig(scope.signal), (error) => {
      assert.ok(error instanceof Error);
      assert.match(error.message, /authenticating as flannel .*authentication failed/);
      assert.ok(!error.message.includes('wrong'));
      return 'code' in error && error.code === 'WEFT_ETCD_DENIED';
    });
    await assert.rejects(scope.manager({ username: '', password: '' }).networkConfig(scope.signal), {
      code: 'WEFT_ETCD_DENIED',
    });
    await assert.rejects(scope.manager({ username: 'stranger', password: 'stranger' }).networkConfig(scope.signal), {
      code: 'WEFT_ETCD_DENIED',
      message: /permission denied/,
    });

    // etcd forgets all tokens when it restarts.
    await server.kill();
    const [holding, watching] = [until(events, renewed), until(updates, sets('10.5.7.0-24'))];
    await server.restart(root);
    await server.etcdctl(root, 'put', `${PREFIX}/subnets/10.5.7.0-24`, '{"PublicIP":"192.168.77.7"}');
    await holding;
    await watching;

    // At level 6: each request by name, endpoint and outcome, and nothing of what was asked or answered.
    const about = (method: string): string[] =>
      traced.filter((text) => text.startsWith(`${method} ${server.endpoints[0]}: `));
    for (const method of ['Range', 'Txn', 'LeaseGrant', 'Authenticate']) {
      assert.ok(
        about(method).some((text) => /: answered after [\d.]+ ms$/.test(text)),
        method,
      );
    }
    assert.ok(about('Authenticate').some((text) => /authentication failed/.test(text)));
    assert.ok(about('Watch').some((text) => /: \d+ events, goes on$/.test(text)));
    assert.doesNotMatch(traced.join('\n'), /p\?a=s,s|wrong|192\.168\.77\.7/);
  });
});

describe('etcd subnet manager, TLS', () => {
  let folder: string;
  let authority: CertificateAuthority;
  let tls: { caFile: string; certFile: string; keyFile: string };
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'weft-etcd-tls-'));
    authority = await CertificateAuthority.create(join(folder, 'ca'), 'etcd test authority');
    tls = { caFile: authority.certFile, ...(await authority.issueServer('etcd', ['127.0.0.1', 'localhost'])) };
  });
  after(() => rmSync(folder, { recursive: true }));

  it('checks the server against the authority alone', async () => {
    await using server = await EtcdServer.start({ tls });
    await server.etcdctl('put', `${PREFIX}/config`, NET_CONF);
    await using scope = new Scope({ endpoints: server.endpoints });
    const config = await scope.manager({ caFile: tls.caFile }).networkConfig(scope.signal);
    assert.equal(config.backend.type, 'udp');
    const byName = server.endpoints.map((endpoint) => endpoint.replace('127.0.0.1', 'localhost'));
    await scope.manager({ caFile: tls.caFile, endpoints: byName }).networkConfig(scope.signal);
    assert.ok(!scope.reports.some((report) => report.type === 'insecure'));

    const stranger = await CertificateAuthority.create(join(folder, 'other'), 'another authority');
    for (const caFile of [stranger.certFile, '']) {
      const failed = Promise.withResolvers<SubnetReport>();
      const abort = new AbortController();
      const asking = scope
        .manager({ caFile, report: (report) => report.type === 'store-failed' && failed.resolve(report) })
        .networkConfig(abort.signal);
      const report = await failed.promise;
      assert.ok(report.type === 'store-failed');
      assert.match(report.error.message, /certificate/);
      abort.abort();
      await assert.rejects(asking);
    }
  });

  it('shows its certificate, whose name is its user, and reads it anew after it was replaced', async () => {
    const client = await authority.issueClient('flannel');
    const admin = await authority.issueClient('root');
    await using server = await EtcdServer.start({ tls: { ...tls, clients: admin } });
    await server.etcdctl('put', `${PREFIX}/config`, NET_CONF);
    await server.etcdctl('user', 'add', 'root:x');
    await server.etcdctl('user', 'grant-role', 'root', 'root');
    await server.etcdctl('role', 'add', 'network');
    await server.etcdctl('role', 'grant-permission', '--prefix', 'network', 'readwrite', PREFIX);
    await server.etcdctl('user', 'add', 'flannel:y');
    await server.etcdctl('user', 'grant-role', 'flannel', 'network');
    await server.etcdctl('auth', 'enable');
    await using scope = new Scope({ endpoints: server.endpoints, caFile: tls.caFile, ...client });
    const manager = scope.manager();
    const config = await manager.networkConfig(scope.signal);
    const lease = await manager.acquireLease(config, attrsOf(1), scope.signal);
    await until(manager.watchLeases(config, scope.signal), sets(leaseKey(lease)));

    const failed = Promise.withResolvers<void>();
    const [certFile, keyFile] = [join(folder, 'late.crt'), join(folder, 'late.key')];
    const outsider = await (await CertificateAuthority.create(join(folder, 'third'), 'third')).issueClient('flannel');
    await copyFile(outsider.certFile, certFile);
    await copyFile(outsider.keyFile, keyFile);
    const late = scope
      .manager({ certFile, keyFile, report: (report) => report.type === 'store-failed' && failed.resolve() })
      .networkConfig(scope.signal);
    await failed.promise;
    await copyFile(client.certFile, certFile);
    await copyFile(client.keyFile, keyFile);
    assert.equal((await late).backend.type, 'udp');
  });

  it('names the file that cannot be used', async () => {
    await using scope = new Scope({ endpoints: ['https://127.0.0.1:1'] });
    const missing = join(folder, 'missing.pem');
    await assert.rejects(scope.manager({ caFile: missing }).networkConfig(scope.signal), (error) => {
      assert.ok(error instanceof Error && error.message.includes(missing));
      return 'code' in error && error.code === 'WEFT_ETCD_TLS';
    });
    const rubbish = join(folder, 'rubbish.pem');
    writeFileSync(rubbish, 'no certificate');
    await assert.rejects(
      scope.manager({ caFile: tls.caFile, certFile: rubbish, keyFile: rubbish }).networkConfig(scope.signal),
      { code: 'WEFT_ETCD_TLS' },
    );
  });
});

describe('etcd subnet manager, at construction', () => {
  it('has flannel’s name and warns of clear text', () => {
    const reports: SubnetReport[] = [];
    const options = {
      backends: backendKind,
      endpoints: ['http://127.0.0.1:2379'],
      report: (report: SubnetReport) => reports.push(report),
    };
    assert.equal(new EtcdSubnetManager(options).name, 'Etcd Local Manager with Previous Subnet: None');
    const previous = leaseOf('10.244.5.0/24', 1).subnets;
    assert.equal(
      new EtcdSubnetManager({ ...options, previous }).name,
      'Etcd Local Manager with Previous Subnet: 10.244.5.0/24',
    );
    assert.deepEqual(reports[0], {
      type: 'insecure',
      reason: 'no certificate provided: connecting to etcd with http. This is insecure',
    });
  });

  it('refuses endpoints that are none, and a renewal margin as long as the lease', () => {
    for (const endpoints of [[], ['ftp://10.0.0.1:2379'], ['http://'], ['']]) {
      assert.throws(() => new EtcdSubnetManager({ backends: backendKind, endpoints }), { code: 'WEFT_USAGE' });
    }
    assert.throws(
      () => new EtcdSubnetManager({ backends: backendKind, endpoints: ['a:1'], renewMarginMs: 86_400_000 }),
      RangeError,
    );
  });
});
