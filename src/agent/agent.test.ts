import assert from 'node:assert/strict';
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { get } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { FAKE_IDENTITY_HOST, FAKE_PUBLIC_KEY } from '../../test/fakes/backends.ts';
import { FakeKernel } from '../../test/fakes/fake-kernel.ts';
import { FakeLeaseStore, FakeSubnetManager } from '../../test/fakes/fake-subnet-manager.ts';
import { FakeTrafficManager } from '../../test/fakes/fake-traffic-manager.ts';
import { STUB_STARTS } from '../../test/fakes/forwarder-stub.ts';
import { eventually, PATIENCE_MS } from '../../test/netns/waiting.ts';
import type { Inspection } from '../api/inspection.ts';
import { ANSWERS, PeersSchema } from '../api/schema.ts';
import type { CloudRoute } from '../backend/backend.ts';
import { type NamedTun, tunMark } from '../backend/tun-name.ts';
import { keyPairOf, newPrivateKey } from '../backend/wireguard-key.ts';
import { type FlanneldOptions, parseFlanneldOptions } from '../config/flanneld-options.ts';
import { Forwarder } from '../dataplane/supervisor.ts';
import { WeftError } from '../errors.ts';
import type { NodeEvent, TellNodeEvent } from '../events/node-event.ts';
import { formatPrefix, parsePrefix } from '../ip/address.ts';
import { parseIpv4 } from '../ip/ipv4.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import { createLog } from '../log/log.ts';
import { lastKnownPath } from '../node-files/last-known.ts';
import type { NetworkInterface } from '../underlay/host-network.ts';
import { runAgent } from './agent.ts';
import type { AgentHost } from './ports.ts';

/** The whole life of an agent on fakes: without root, devices, stores and programs. */

const NET_CONF = '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}';

/** A host with one interface, and an agent's life on it. */
class Stage implements AsyncDisposable {
  readonly kernel = new FakeKernel();
  readonly rules = new FakeTrafficManager();
  readonly store = new FakeLeaseStore();
  /** On the Node. */
  readonly told: NodeEvent[] = [];
  examinations = 0;
  /** Looks at what the kernel has counted. */
  counted = 0;
  readonly lines: string[] = [];
  readonly fatal: unknown[] = [];
  readonly failures: string[] = [];
  readonly cloudRoutes: CloudRoute[] = [];
  /** Why the cloud refuses a route. */
  cloudRefuses: WeftError | undefined;
  /** How often a lease was begun to be held. The first session fails when `breakSession` resolves. */
  readonly held = { count: 0 };
  readonly breakSession: PromiseWithResolvers<void> = Promise.withResolvers();
  /** What the API would show. */
  inspection: Inspection | undefined;
  readonly directory: string;
  /** The TUN devices that the host has. */
  tuns: readonly NamedTun[] = [];
  /** What the host has beside eth0. */
  interfaces: readonly NetworkInterface[] = [];
  /** What the host's key file holds. */
  key: string | undefined;
  /** What the life has asked its host for, of what must come in an order. */
  readonly asked: string[] = [];
  /** Whether the store keeps whoever opens it waiting. */
  storeHangs = false;
  #stop = new AbortController();
  readonly #port: number;
  #ending: Promise<void> = Promise.resolve();

  private constructor(directory: string) {
    this.directory = directory;
    this.#port = 20_000 + Math.floor(Math.random() * 10_000);
    this.kernel.addLink({ name: 'flannel0', kind: 'tun', up: false });
  }

  static async make(): Promise<Stage> {
    return new Stage(await mkdtemp(join(tmpdir(), 'weft-agent-')));
  }

  get subnetFile(): string {
    return join(this.directory, 'subnet.env');
  }

  readonly #life = {
    fatal: (error: unknown) => this.fatal.push(error),
    failed: (why: string) => this.failures.push(why),
  };

  start(): void {
    this.#stop = new AbortController();
    const log = createLog({ format: 'text', verbosity: 0, write: (line) => this.lines.push(line) });
    this.#ending = runAgent(this.#host(), this.#options(), log, this.#life, this.#stop.signal);
    this.#ending.catch(() => {});
  }

  /** Settles as the life does. */
  get life(): Promise<void> {
    return this.#ending;
  }

  /** Resolves, or rejects, as the life does. */
  async end(): Promise<void> {
    this.#stop.abort(new Error('told to'));
    await this.#ending;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end().catch(() => {});
    await rm(this.directory, { recursive: true });
  }

  ready(): Promise<{ status: number | undefined; body: string }> {
    return new Promise((resolve, reject) => {
      get({ host: '127.0.0.1', port: this.#port, path: '/readyz', agent: false }, (response) => {
        let body = '';
        response.on('data', (chunk) => {
          body += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode, body }));
      }).on('error', reject);
    });
  }

  async answers(status: number, words: RegExp): Promise<void> {
    await eventually(`${status} ${words}`, async () => {
      const answer = await this.ready().catch(() => undefined);
      return answer?.status === status && words.test(answer.body);
    });
  }

  #options(): FlanneldOptions {
    const flags = ['--ip-masq', `--subnet-file=${this.subnetFile}`, '--skip-br-netfilter-check'];
    const parsed = parseFlanneldOptions([...flags, '--healthz-ip=127.0.0.1', `--healthz-port=${this.#port}`], {});
    assert.ok(parsed.kind === 'run');
    return parsed.options;
  }

  #host(): AgentHost {
    const eth0 = {
      ...{ index: 2, name: 'eth0', mtuBytes: 1500, up: true },
      addresses: [
        { addr: parseIpv4('192.168.77.1')!, prefixLength: 24, dynamic: false, temporary: false, deprecated: false },
      ],
    };
    const silent = async function* (_: unknown, signal: AbortSignal): AsyncGenerator<void, void, void> {
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    };
    const { held, breakSession } = this;
    const tellEvent: TellNodeEvent = async (event) => {
      this.told.push(event);
      return 'told';
    };
    const broken = breakSession.promise;
    return {
      version: 'test',
      hostName: 'node-1',
      serveApi: async (inspection) => {
        this.inspection = inspection;
        return { [Symbol.asyncDispose]: async () => {} };
      },
      ikeDaemon: () => {
        throw new TypeError('this backend has no use for an IKE daemon');
      },
      examine: async () => {
        this.examinations++;
        return [{ name: 'tun-device', looksAt: '/dev/net/tun', status: 'fail', found: 'missing', remedy: 'mknod' }];
      },
      hostDrops: () => {
        this.counted++;
        return { 'filtered-in': 3 };
      },
      hostDrops6: () => ({ 'filtered-out': 4 }),
      deviceDrops: () => 5,
      endFastPath: () => undefined,
      probes: {
        open: () => ({ send: () => ({ atMs: performance.now() }), receive: () => [], [Symbol.dispose]: () => {} }),
        describeErrno: () => 'other',
      },
      openStore: async (report, signal) => {
        this.asked.push('store');
        if (this.storeHangs) await new Promise((resolve) => signal.addEventListener('abort', resolve));
        signal.throwIfAborted();
        const manager = new FakeSubnetManager(this.store, { report });
        const hold = manager.holdLease.bind(manager);
        manager.holdLease = async function* (lease, signal) {
          held.count++;
          if (held.count === 1) {
            const stopped = new Promise((resolve) => signal.addEventListener('abort', resolve));
            await Promise.race([broken, stopped]);
            signal.throwIfAborted();
            throw new Error('credentials cannot be had');
          }
          yield* hold(lease, signal);
        };
        return {
          manager,
          nodeAddresses: undefined,
          published: undefined,
          reportFailure: undefined,
          tellEvent,
        };
      },
      readNetwork: async () => ({
        interfaces: [eth0, ...this.interfaces],
        defaultDevices: { ipv4: ['eth0'], ipv6: [] },
        canReach: undefined,
      }),
      readAddresses: async () => [parseIpv4('192.168.77.1')!],
      externalNotices: silent,
      reachNotices: (signal) => silent(undefined, signal),
      identity: {
        ...FAKE_IDENTITY_HOST,
        tunDevices: async () => this.tuns,
        keyFile: async (fresh) => {
          this.key ??= fresh();
          return { path: 'wgkey', text: this.key };
        },
      },
      setCloudRoute: async (route) => {
        if (this.cloudRefuses !== undefined) throw this.cloudRefuses;
        this.cloudRoutes.push(route);
        return 'the route is set';
      },
      connections: () => {
        this.asked.push('connections');
        return { keepOnly: () => new Map(), [Symbol.dispose]: () => {} };
      },
      kernel: () => this.kernel,
      forwarder: ({ onEvent, sourceCheck, destinationCheck }) =>
        new Forwarder({
          workerUrl: new URL('../../test/fakes/forwarder-stub-worker.ts', import.meta.url),
          ...{ sourceCheck, destinationCheck, onEvent },
          open: () => ({
            ...{ tunFd: STUB_STARTS.well, udpSegmentation: false, socketFd: -1, icmpFd: -1, stopFd: -1 },
            ...{ underlay: 4 as const, icmp6Fd: -1 },
            signalStop: () => {},
            ending: () => {},
            started: () => {},
            [Symbol.dispose]: () => {},
          }),
        }),
      probeChecksum: async () => undefined,
      outerFilters: NO_FILTERS,
      trafficManager: () => this.rules,
      firewall: async () => ({ nft: [], legacy: { ipv4: undefined, ipv6: undefined } }),
      readText: async () => undefined,
      releaseMemory: () => {},
      serviceManager: () => ({ ready: () => {}, stopping: () => {}, [Symbol.dispose]: () => {} }),
      handOver: {
        announce: async () => undefined,
        accept: async () => ({ [Symbol.asyncDispose]: async () => {} }),
        settled: () => {},
      },
    };
  }
}

const NO_FILTERS: AgentHost['outerFilters'] = {
  replace: async () => {},
  change: async () => {},
  names: async () => [],
  remove: async () => {},
};

describe('the life of an agent', () => {
  it('goes from a configuration to a lease, a route, subnet.env and ready, and ends when it is told to', async () => {
    await using stage = await Stage.make();
    stage.start();
    await stage.answers(503, /no network configuration/);
    stage.store.netConf = NET_CONF;
    await stage.answers(200, /flanneld is ready/);
    assert.deepEqual(stage.store.entries().length, 1);
    assert.equal(stage.kernel.routes.length, 1);
    assert.match(await readFile(stage.subnetFile, 'utf8'), /^FLANNEL_NETWORK=10\.244\.0\.0\/16$/m);
    await stage.end();
    assert.deepEqual(stage.fatal, []);
    assert.equal(stage.kernel.routes.length, 1, 'what it has made stays');
  });

  it('watches its connections before it makes the first one, to its store', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    assert.deepEqual(stage.asked, ['connections', 'store']);
  });

  it('carries what comes through the device of an earlier run at once, whatever its store takes', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    await stage.end();
    const kernelWrites = stage.kernel.routes.length;
    stage.kernel.deleteRoutes(() => true);
    stage.lines.length = 0;
    stage.tuns = [{ name: 'flannel0', alias: tunMark(parsePrefix('10.244.0.0/16')!) }];
    stage.storeHangs = true;
    stage.start();
    await stage.answers(503, /has not answered yet/);
    const at = (words: string): number => stage.lines.findIndex((line) => line.includes(words));
    assert.ok(at('Packet workers are running') >= 0);
    assert.ok(at('Packet workers are running') < at('has not answered yet'), stage.lines.join(''));
    await eventually('the routes are back', () => stage.kernel.routes.length >= kernelWrites);
    await stage.end();
    assert.deepEqual(stage.fatal, []);
  });

  it('waits while somebody else has its route, and writes no subnet.env meanwhile', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.kernel.addForeignRoute({
      ...{ type: 'unicast', dst: parsePrefix('10.244.0.0/16')!, metric: 0, dev: 'eth1', via: undefined },
      ...{ onlink: false, scope: 'link', protocol: 2, elaborate: false },
    });
    stage.start();
    await stage.answers(503, /already routed by another program/);
    await assert.rejects(readFile(stage.subnetFile));
    stage.kernel.deleteRoutes(() => true);
    await stage.answers(200, /flanneld is ready/);
  });

  it('is not ready while the kernel refuses what it needs, and again when it does later', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.kernel.refuse = () => 'RTNETLINK answers: Operation not permitted';
    stage.start();
    await stage.answers(503, /Operation not permitted/);
    stage.kernel.refuse = () => undefined;
    await stage.answers(200, /flanneld is ready/);
    stage.kernel.refuse = () => 'RTNETLINK answers: Operation not permitted';
    stage.kernel.deleteRoutes(() => true);
    await stage.answers(503, /Operation not permitted/);
    stage.kernel.refuse = () => undefined;
    await stage.answers(200, /flanneld is ready/);
  });

  it('begins another session when one fails, and stays ready: its packets flow', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    stage.breakSession.resolve();
    const readyUntil = (what: string, isSo: () => boolean): Promise<true> =>
      eventually(what, async () => {
        assert.equal((await stage.ready()).status, 200);
        return isSo();
      });
    await readyUntil('the failure', () => stage.lines.some((line) => line.includes('credentials cannot be had')));
    await readyUntil('another session', () => stage.held.count >= 2);
    assert.equal(stage.store.entries().length, 1);
    assert.deepEqual(stage.fatal, []);
  });

  it('sets its route in the cloud’s network before it is ready, and fails when it cannot have it', async () => {
    await using stage = await Stage.make();
    stage.store.netConf =
      '{"Network": "10.244.0.0/16", "Backend": {"Type": "tencent-vpc", "AccessKeyID": "the-id", "AccessKeySecret": "the-key"}}';
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    assert.equal(stage.cloudRoutes.length, 1);
    const lines = stage.lines.join('\n');
    assert.match(lines, /the route is set/);
    assert.doesNotMatch(lines, /the-id|the-key/);
    await stage.end();

    await using other = await Stage.make();
    other.store.netConf = stage.store.netConf;
    other.cloudRefuses = new WeftError('WEFT_CLOUD_API', 'CreateRoutes: LimitExceeded');
    other.start();
    await assert.rejects(other.life, {
      code: 'WEFT_CLOUD_API',
      message: 'Error registering network: CreateRoutes: LimitExceeded',
    });
    await assert.rejects(readFile(other.subnetFile));
  });

  it('runs the commands of the backend extension', async () => {
    await using stage = await Stage.make();
    stage.store.netConf =
      '{"Network": "10.244.0.0/16", "Backend": {"Type": "extension", "PostStartupCommand": "up $SUBNET"}}';
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    assert(stage.lines.some((line) => line.includes('Ran command: up $SUBNET')));
  });

  // What flannel's samples of the backend extension make, and what an operator makes for alloc, is as flanneld itself would make it.
  for (const [backend, left] of [
    ['extension', ['10.244.9.0/24', 'flannel-wg']],
    ['alloc', ['10.244.9.0/24', 'flannel-wg']],
    ['host-gw', []],
  ] as const) {
    it(`at its first start on a host, ${left.length > 0 ? 'leaves' : 'removes'} routes and devices as flanneld makes them, with ${backend}`, async () => {
      await using stage = await Stage.make();
      stage.store.netConf = `{"Network": "10.244.0.0/16", "Backend": {"Type": "${backend}"}}`;
      await writeFile(stage.subnetFile, 'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n');
      const addr = parseIpv4('10.244.7.0')!;
      const about = { prefixLength: 32, dynamic: false, temporary: false, deprecated: false };
      stage.interfaces = [{ index: 3, name: 'flannel-wg', mtuBytes: 1420, up: true, addresses: [{ addr, ...about }] }];
      stage.kernel.addLink({ name: 'eth0', kind: 'other', up: true });
      stage.kernel.addLink({ name: 'flannel-wg', kind: 'wireguard' });
      stage.kernel.addForeignRoute({
        ...{ type: 'unicast', dst: parsePrefix('10.244.9.0/24')!, metric: 0, dev: 'eth0' },
        ...{ via: parseIpv4('192.168.77.9')!, onlink: false, scope: 'global', protocol: 3, elaborate: false },
      });
      stage.start();
      await stage.answers(200, /flanneld is ready/);
      await eventually('nothing is left to do', async () => {
        const state = await stage.inspection?.state(100, AbortSignal.timeout(PATIENCE_MS));
        return state?.isConverged === true && state.difference.length === 0;
      });
      const routes = stage.kernel.routes.map(({ dst }) => formatPrefix(dst));
      assert.deepEqual([...routes, ...(stage.kernel.links.has('flannel-wg') ? ['flannel-wg'] : [])], left);
    });
  }

  it('takes another key from its file while it runs, publishes it, and follows that of a peer', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "wireguard"}}';
    stage.kernel.addLink({ name: 'eth0', kind: 'other', up: true });
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    const published = () => stage.store.entries().map(({ attrs }) => attrs?.backendData.ipv4);
    const inKernel = () => stage.kernel.wireguardSettings.get('flannel-wg')?.publicKey;
    assert.deepEqual([published(), inKernel()], [[{ PublicKey: FAKE_PUBLIC_KEY, Port: 51820 }], FAKE_PUBLIC_KEY]);
    const [own] = stage.store.entries();
    const text = newPrivateKey((count) => new Uint8Array(count).fill(0x37));
    const { publicKey } = keyPairOf({ path: 'wgkey', text });
    stage.key = text;
    await eventually('the new key', async () => {
      assert.equal((await stage.ready()).status, 200);
      return inKernel() === publicKey && isDeepStrictEqual(published(), [{ PublicKey: publicKey, Port: 51820 }]);
    });
    assert.deepEqual(stage.store.entries()[0]?.subnets.ipv4, own?.subnets.ipv4);
    assert.doesNotMatch(stage.lines.join(''), new RegExp(text.slice(0, 40).replaceAll('+', '\\+')));

    const peer = (key: string) =>
      stage.store.put({
        subnets: { ipv4: parsePrefix4('10.244.99.0/24'), ipv6: undefined },
        attrs: {
          ...{ publicAddresses: { ipv4: parseIpv4('192.168.77.99'), ipv6: undefined }, backendType: 'wireguard' },
          ...{ backendData: { ipv4: { PublicKey: key, Port: 51820 }, ipv6: undefined } },
        },
        expiresAtMs: undefined,
      });
    const peers = () => stage.kernel.wireguardPeers.map((one) => one.publicKey);
    const keys = [1, 2].map((byte) => Buffer.alloc(32, byte).toString('base64'));
    for (const key of keys) {
      peer(key);
      await eventually('the peer’s key', () => isDeepStrictEqual(peers(), [key]));
    }
  });

  it('shows in its API what it holds, knows and does, without secrets', async () => {
    await using stage = await Stage.make();
    stage.store.netConf =
      '{"Network": "10.244.0.0/16", "Backend": {"Type": "udp", "Port": 8285, "Nonsense": "canary-7f3a"}}';
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    const { inspection } = stage;
    assert.ok(inspection !== undefined);
    const signal = AbortSignal.timeout(PATIENCE_MS);
    const answers = {
      '/self': inspection.self(),
      '/peers': inspection.peers(),
      '/leases': inspection.leases(),
      '/readiness': inspection.readiness(),
      '/config': inspection.config(),
      '/state': await inspection.state(100, signal),
      '/rules': await inspection.rules(signal),
      '/doctor': await inspection.doctor(),
    } as const;
    for (const [endpoint, answer] of Object.entries(answers)) {
      const sent: unknown = JSON.parse(JSON.stringify(answer));
      assert.deepEqual(v.parse(ANSWERS[endpoint as keyof typeof answers], sent), sent, endpoint);
    }
    assert.doesNotMatch(JSON.stringify(answers), /canary-7f3a/);
    assert.deepEqual([await inspection.doctor(), await inspection.doctor()], Array(2).fill(answers['/doctor']));
    assert.equal(stage.examinations, 1, 'who looks at the same time shares one examination');
    const self = answers['/self'];
    assert.deepEqual(answers['/peers'].self, v.parse(PeersSchema.entries.self, self));
    const { counted } = stage;
    inspection.peers();
    assert.equal(stage.counted, counted, 'what is asked each second does not read the kernel');
    inspection.self();
    assert.equal(stage.counted, counted + 1, 'and what does reads it once');
    const [subnet] = self.lease?.subnets ?? [];
    assert.deepEqual(
      [self.ready, self.backendType, self.networks, self.lease?.publicAddresses, self.dataPath.kind, self.host],
      [true, 'udp', ['10.244.0.0/16'], ['192.168.77.1'], 'forwarder', 'node-1'],
    );
    assert.deepEqual(
      answers['/leases'].leases.map((lease) => [lease.status, lease.subnets]),
      [['own', [subnet]]],
    );
    assert.equal(answers['/state'].isConverged, true);
    assert.deepEqual(
      answers['/state'].entries.filter(({ type }) => type === 'route').map(({ key, status }) => [key, status]),
      [['10.244.0.0/16 metric 100', 'same']],
    );
    assert.ok(answers['/readiness'].parts.some(({ part }) => part === 'kernel'));

    stage.kernel.refuse = () => 'RTNETLINK answers: Operation not permitted';
    stage.kernel.deleteRoutes(() => true);
    await stage.answers(503, /Operation not permitted/);
    const kernel = inspection.readiness().parts.find(({ part }) => part === 'kernel');
    assert.match(kernel?.failure ?? '', /add route 10\.244\.0\.0\/16 dev flannel0 metric 100: RTNETLINK/);
    assert.ok(kernel?.remedy);
    const broken = await inspection.state(100, signal);
    assert.deepEqual(
      [broken.isConverged, broken.difference],
      [false, ['add route 10.244.0.0/16 dev flannel0 metric 100']],
    );
    assert.deepEqual([broken.entries[0]?.type, broken.entries[0]?.status], ['route', 'missing']);
    const kinds = (): string[] => inspection.events.after(0, 1_000).events.map(({ kind }) => kind);
    await eventually('not ready', () => kinds().includes('not-ready'));
    stage.kernel.refuse = () => undefined;
    await stage.answers(200, /flanneld is ready/);
    await eventually('ready', () => kinds().at(-1) === 'ready');
    for (const kind of ['agent-started', 'lease-acquired', 'forwarder-started', 'kernel-failed', 'not-ready']) {
      assert.ok(kinds().includes(kind), `${kind} in ${kinds().join()}`);
    }
    const acquired = inspection.events.after(0, 1_000).events.find(({ kind }) => kind === 'lease-acquired');
    assert.equal(acquired?.subject, subnet);
  });

  it('tells in its events of peers that come, change and go, and of entries that it does not believe', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    const { inspection } = stage;
    assert.ok(inspection !== undefined);
    const until = (kind: string, subject: string): Promise<string> =>
      eventually(`${kind} ${subject}`, () => {
        const found = inspection.events.after(0, 1_000).events.findLast((each) => each.kind === kind);
        return found?.subject === subject && `${found.text} ${found.cause ?? ''}`;
      });
    const attrs = { backendType: '', backendData: { ipv4: undefined, ipv6: undefined } };
    const subnet = parsePrefix4('10.244.200.0/24')!;
    const put = (publicIp: string): void =>
      stage.store.put({
        ...{ subnets: { ipv4: subnet, ipv6: undefined }, expiresAtMs: undefined },
        attrs: { ...attrs, publicAddresses: { ipv4: parseIpv4(publicIp)!, ipv6: undefined } },
      });
    put('192.168.77.2');
    assert.match(await until('peer-added', '10.244.200.0/24'), /192\.168\.77\.2/);
    const peer = inspection.peers().peers[0];
    assert.deepEqual([peer?.id, peer?.path, peer?.tx?.packets], ['10.244.200.0/24', 'forwarder', 0]);
    put('192.168.77.3');
    assert.match(await until('peer-changed', '10.244.200.0/24'), /192\.168\.77\.3.*before: .*192\.168\.77\.2/);
    put('127.0.0.1');
    assert.match(await until('entry-refused', '10.244.200.0/24'), /loopback.*address-not-unicast/);
    assert.match(await until('peer-removed', '10.244.200.0/24'), /gone/);
    assert.equal(inspection.leases().leases.at(-1)?.status, 'refused');
  });

  it('tells on the Node what somebody has changed, and that its backend is another one', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = NET_CONF;
    stage.start();
    await stage.answers(200, /flanneld is ready/);
    stage.kernel.deleteRoutes(() => true);
    await eventually('the repair is told', () => stage.told.find(({ reason }) => reason === 'FlannelKernelRepaired'));
    assert.deepEqual(
      stage.told.map(({ reason, type, count }) => `${type} ${reason} ${count}`),
      ['Warning FlannelKernelRepaired 1'],
      'a start without trouble is not told',
    );
    await stage.end();

    await using other = await Stage.make();
    await copyFile(lastKnownPath(stage.subnetFile), lastKnownPath(other.subnetFile));
    other.store.netConf =
      '{"Network": "10.244.0.0/16", "Backend": {"Type": "extension", "PostStartupCommand": "up $SUBNET"}}';
    other.start();
    const told = await eventually('the change is told', () => other.told[0]);
    assert.deepEqual([told.type, told.reason], ['Normal', 'FlannelBackendChanged']);
    assert.match(told.message, /now uses the backend extension, before it was udp/);
  });

  it('fails with what a person must mend', async () => {
    await using stage = await Stage.make();
    stage.store.netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "carrier"}}';
    stage.start();
    await assert.rejects(stage.life, { code: 'WEFT_BACKEND_UNKNOWN' });
    assert.match(
      stage.failures.join(),
      /^Error fetching backend: unknown backend type: carrier \[WEFT_BACKEND_UNKNOWN\]/,
    );
  });
});
