import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { IptablesTrafficManager } from '../../src/linux/iptables.ts';
import { NftablesTrafficManager } from '../../src/linux/nftables.ts';
import { type Child, lines, run, start } from '../../src/linux/run.ts';
import { trafficRules } from '../../src/trafficmngr/rules.ts';
import type { TrafficManager } from '../../src/trafficmngr/traffic-manager.ts';
import { v4 } from '../contract/traffic-manager.ts';
import { type Namespace, withNamespace } from './traffic-namespace.ts';

/**
 * What the rules do to real packets. A host forwards between a pod of its own, a pod of another node (which stands for
 * the whole way there) and the world; each receiver tells which source address arrived.
 */
const POD = { link: 'pod0', host: '10.244.1.1', address: '10.244.1.2' };
const REMOTE = { link: 'flannel0', host: '10.244.3.1', address: '10.244.2.2' };
const WORLD = { link: 'eth0', host: '192.0.2.1', address: '192.0.2.2' };
const PORT = 9999;
/** Datagrams to this port carry the mark of kube-proxy together with somebody else's. */
const MARKED_PORT = 9998;

const RECEIVER = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.on('message', (text, from) => console.log(text + ' ' + from.address));
  socket.bind(Number(process.argv[1]), () => console.log('ready'));`;
const SENDER = `
  const [, text, source, to, port] = process.argv;
  const socket = require('node:dgram').createSocket('udp4');
  socket.bind(0, source, () => socket.send(text, Number(port), to, () => socket.close()));`;

class Site implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #arrived = new Map<string, PromiseWithResolvers<string>>();
  readonly #namespaces = new Map<string, Namespace>();
  #count = 0;

  static async create(): Promise<Site> {
    const site = new Site();
    try {
      await site.#build();
      return site;
    } catch (error) {
      await site[Symbol.asyncDispose]();
      throw error;
    }
  }

  get host(): string {
    return this.#name('host');
  }

  async #build(): Promise<void> {
    for (const name of ['host', 'pod', 'remote', 'world']) {
      this.#namespaces.set(name, this.#stack.use(await withNamespace()));
    }
    for (const [name, end] of [
      ['pod', POD],
      ['remote', REMOTE],
      ['world', WORLD],
    ] as const) {
      const netns = this.#name(name);
      const pair = ['peer', 'name', 'eth0', 'netns', netns];
      await run(['ip', 'link', 'add', end.link, 'type', 'veth', ...pair], { netns: this.host });
      await run(['ip', 'addr', 'add', `${end.host}/32`, 'dev', end.link], { netns: this.host });
      await run(['ip', 'link', 'set', end.link, 'up'], { netns: this.host });
      await run(['ip', 'route', 'add', end.address, 'dev', end.link, 'src', end.host], { netns: this.host });
      await run(['ip', 'addr', 'add', `${end.address}/32`, 'dev', 'eth0'], { netns });
      await run(['ip', 'link', 'set', 'eth0', 'up'], { netns });
      await run(['ip', 'route', 'add', end.host, 'dev', 'eth0'], { netns });
      await run(['ip', 'route', 'add', 'default', 'via', end.host], { netns });
      for (const port of [PORT, MARKED_PORT]) await this.#receive(netns, port);
    }
    const settings = 'cd /proc/sys/net/ipv4 && echo 1 >ip_forward && echo 0 >conf/all/rp_filter';
    await run(['sh', '-c', settings], { netns: this.host });
    const marks = [
      'add table ip test-marks',
      'add chain ip test-marks c { type filter hook prerouting priority mangle; }',
      `add rule ip test-marks c udp dport ${MARKED_PORT} meta mark set 0x4001`,
      '',
    ];
    await run(['nft', '-f', '-'], { netns: this.host, stdin: marks.join('\n') });
  }

  #name(name: string): string {
    const namespace = this.#namespaces.get(name);
    assert.ok(namespace !== undefined, name);
    return namespace.name;
  }

  async #receive(netns: string, port: number): Promise<void> {
    const child: Child = this.#stack.use(await start([process.execPath, '-e', RECEIVER, String(port)], { netns }));
    const ready = Promise.withResolvers<void>();
    void (async () => {
      for await (const line of lines(child.stdout!)) {
        if (line === 'ready') ready.resolve();
        const [text = '', source = ''] = line.split(' ');
        this.#arrived.get(text)?.resolve(source);
      }
      ready.reject(new Error(`the receiver ended: ${child.tail()}`));
    })();
    await ready.promise;
  }

  /** The source address with which a datagram arrives. */
  async send(from: string, source: string, to: string, port: number = PORT): Promise<string> {
    const text = `m${this.#count++}`;
    const arrival = Promise.withResolvers<string>();
    this.#arrived.set(text, arrival);
    await run([process.execPath, '-e', SENDER, text, source, to, String(port)], { netns: this.#name(from) });
    return arrival.promise;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

const RULES = trafficRules({
  ipv4: { network: v4('10.244.0.0/16'), subnet: v4('10.244.1.0/24') },
  ipv6: undefined,
  ipMasq: true,
  randomFully: true,
  forwardRules: true,
});

const managers: readonly (readonly [string, (netns: string) => TrafficManager])[] = [
  ['iptables', (netns) => new IptablesTrafficManager({ netns })],
  ['nftables', (netns) => new NftablesTrafficManager({ netns })],
];

for (const [name, make] of managers) {
  describe(`the effect of the rules on packets, ${name}`, () => {
    let site: Site;
    before(async () => {
      site = await Site.create();
      await make(site.host).ensure(RULES);
    });
    after(() => site?.[Symbol.asyncDispose]());

    const cases: readonly {
      readonly what: string;
      readonly from: string;
      readonly source: string;
      readonly to: string;
      readonly port?: number;
      readonly seen: string;
    }[] = [
      {
        what: 'a pod to the world is masqueraded',
        from: 'pod',
        source: POD.address,
        to: WORLD.address,
        seen: WORLD.host,
      },
      {
        what: 'a pod to a pod elsewhere is not',
        from: 'pod',
        source: POD.address,
        to: REMOTE.address,
        seen: POD.address,
      },
      {
        what: 'a pod elsewhere to a pod here is not',
        from: 'remote',
        source: REMOTE.address,
        to: POD.address,
        seen: REMOTE.address,
      },
      {
        what: 'the world to a pod here is not',
        from: 'world',
        source: WORLD.address,
        to: POD.address,
        seen: WORLD.address,
      },
      // flannel's nftables rules leave this one alone, and the answer takes another way than the question.
      {
        what: 'the host’s own address to a pod elsewhere is masqueraded',
        from: 'host',
        source: WORLD.host,
        to: REMOTE.address,
        seen: REMOTE.host,
      },
      // flannel's nftables rules masquerade this one.
      {
        what: 'what kube-proxy has marked is left to it, whatever other marks there are',
        from: 'pod',
        source: POD.address,
        to: WORLD.address,
        port: MARKED_PORT,
        seen: POD.address,
      },
    ];
    for (const { what, from, source, to, port, seen } of cases) {
      it(what, async () => assert.equal(await site.send(from, source, to, port), seen));
    }
  });
}

// Only with iptables: a policy of DROP in a table of somebody else cannot be undone from ours, nor from flannel's.
describe('a FORWARD chain that drops by default', () => {
  it('lets packets of the network pass', async () => {
    await using site = await Site.create();
    await run(['iptables', '-w', '-P', 'FORWARD', 'DROP'], { netns: site.host });
    await new IptablesTrafficManager({ netns: site.host }).ensure(RULES);
    assert.equal(await site.send('pod', POD.address, REMOTE.address), POD.address);
  });
});

describe('a jump that a catch-all rule would hide', () => {
  it('comes before it, so that pods are forwarded although the distribution rejects the rest', async () => {
    await using site = await Site.create();
    const reject = ['-j', 'REJECT', '--reject-with', 'icmp-host-prohibited'];
    await run(['iptables', '-w', '-A', 'FORWARD', ...reject], { netns: site.host });
    await new IptablesTrafficManager({ netns: site.host }).ensure(RULES);
    assert.equal(await site.send('pod', POD.address, REMOTE.address), POD.address);
    const { stdout } = await run(['iptables', '-w', '-S', 'FORWARD'], { netns: site.host });
    assert.match(stdout.trim().split('\n').at(-1) ?? '', /REJECT/);
  });
});
