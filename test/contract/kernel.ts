import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Kernel } from '../../src/desired/kernel.ts';
import { describeOp, type Op } from '../../src/desired/op.ts';
import { reconcile } from '../../src/desired/plan/plan.ts';
import {
  type ActualState,
  type Address,
  describeRoute,
  EMPTY_WANTED_STATE,
  type IpsecPolicy,
  type PolicyDirection,
  type PolicyVerdict,
  type Route,
  type UnicastRoute,
  type WantedLink,
  type WantedState,
} from '../../src/desired/state.ts';
import {
  formatAddr,
  formatPrefix,
  type IpAddr,
  type IpPrefix,
  isIpv4,
  parseAddr,
  parsePrefix,
} from '../../src/ip/address.ts';
import { parseMac } from '../../src/ip/mac.ts';
import { wantedState } from './kernel-states.ts';
import { planned } from './planned.ts';

/** One host with an uplink `eth0` (up, 192.168.77.1/24), the port under test, and the hands of somebody else. */
export interface KernelHarness extends AsyncDisposable {
  readonly kernel: Kernel;
  /** A tun device as the data plane makes it: down. */
  addTun(name: string): Promise<void>;
  deleteLink(name: string): Promise<void>;
  renameLink(name: string, to: string): Promise<void>;
  setDown(name: string): Promise<void>;
  setMtu(name: string, mtuBytes: number): Promise<void>;
  setQueue(name: string, packets: number): Promise<void>;
  addAddress(link: string, cidr: string): Promise<void>;
  flushAddresses(link: string): Promise<void>;
  /** Behind those with the same key, if there are any. */
  addRoute(route: ForeignRoute): Promise<void>;
  deleteRoute(dst: string): Promise<void>;
  /** Until the kernel has nothing more to say of the addresses that it gives to new links by itself. */
  quiet(): Promise<void>;
}

export interface ForeignRoute {
  readonly dst: string;
  readonly dev: string;
  readonly via?: string;
  readonly protocol: number;
}

const addr = (text: string): IpAddr => parseAddr(text) ?? assert.fail(text);
const prefix = (text: string): IpPrefix => parsePrefix(text) ?? assert.fail(text);
const mac = (text: string) => parseMac(text) ?? assert.fail(text);

const TUN: WantedLink = {
  kind: 'tun',
  name: 'flannel0',
  alias: 'weft:10.244.0.0/16',
  mtuBytes: 1472,
  queuePackets: 2_000,
};
const UPLINK: WantedLink = { kind: 'external', name: 'eth0' };

function address(cidr: string, change: Partial<Address> = {}): Address {
  const [text = '', length] = cidr.split('/');
  return {
    link: 'flannel0',
    addr: addr(text),
    prefixLength: Number(length),
    scope: 'global',
    prefixRoute: true,
    ...change,
  };
}

function route(dst: string, change: Partial<UnicastRoute> = {}): UnicastRoute {
  return {
    type: 'unicast',
    dst: prefix(dst),
    dev: 'flannel0',
    via: undefined,
    onlink: false,
    scope: 'global',
    metric: undefined,
    ...change,
  };
}

const UDP: WantedState = {
  ...EMPTY_WANTED_STATE,
  links: [UPLINK, TUN],
  addresses: [address('10.244.1.0/32')],
  routes: [route('10.244.0.0/16')],
  networks: [prefix('10.244.0.0/16'), prefix('fd10:244::/48')],
  staleRoutes: 'everywhere',
};

const DUAL: WantedState = {
  ...UDP,
  addresses: [address('10.244.1.0/32'), address('fd10:244:0:1::/128')],
  routes: [
    route('10.244.0.0/16'),
    route('10.244.2.0/24', { via: addr('192.168.77.2'), dev: 'eth0' }),
    route('10.244.3.0/24', { via: addr('10.244.3.0'), onlink: true }),
    route('10.244.0.0/16', { metric: 50, scope: 'link' }),
    route('fd10:244::/48'),
    route('fd10:244:0:3::/64', { via: addr('fd10:244:0:3::'), onlink: true }),
    route('fd10:244::/48', { metric: 50 }),
    { type: 'blackhole', dst: prefix('10.244.1.0/24'), metric: 10_000 },
    { type: 'blackhole', dst: prefix('fd10:244:0:1::/64'), metric: undefined },
  ],
};

const PEER = { mac: mac('72:4f:d0:84:69:01'), host: addr('192.168.77.2') };
const VXLAN: WantedState = {
  ...UDP,
  links: [
    UPLINK,
    {
      kind: 'vxlan',
      name: 'flannel.1',
      mtuBytes: 1450,
      mac: mac('72:4f:d0:84:69:9f'),
      settings: { vni: 1, underlay: 'eth0', local: addr('192.168.77.1'), port: 8472, learning: false, gbp: false },
    },
  ],
  addresses: [address('10.244.1.0/32', { link: 'flannel.1' }), address('fd10:244:0:1::/128', { link: 'flannel.1' })],
  routes: [
    route('10.244.2.0/24', { dev: 'flannel.1', via: addr('10.244.2.0'), onlink: true }),
    route('fd10:244:0:2::/64', { dev: 'flannel.1', via: addr('fd10:244:0:2::'), onlink: true }),
  ],
  neighbours: [
    { link: 'flannel.1', addr: addr('10.244.2.0'), mac: PEER.mac },
    { link: 'flannel.1', addr: addr('fd10:244:0:2::'), mac: PEER.mac },
  ],
  fdb: [{ link: 'flannel.1', mac: PEER.mac, dst: PEER.host }],
};

/** What every implementation of the port must do; run by the fake and by iproute2 on a real kernel. */
export function kernelContract(name: string, open: () => Promise<KernelHarness>): void {
  const signal = new AbortController().signal;

  /** Reads, applies the difference, expects every operation to succeed. @returns the operations. */
  async function applyOnce(kernel: Kernel, wanted: WantedState): Promise<readonly Op[]> {
    const ops = reconcile(wanted, await kernel.read(wanted, signal));
    const results = await kernel.apply(ops, signal);
    assert.deepEqual(
      results.map((result) => result.op),
      ops,
    );
    const failed = results.filter((result) => !result.ok);
    assert.deepEqual(
      failed.map((result) => `${describeOp(result.op)}: ${result.ok ? '' : result.error}`),
      [],
    );
    return ops;
  }

  async function settle(kernel: Kernel, wanted: WantedState): Promise<ActualState> {
    await applyOnce(kernel, wanted);
    const state = await kernel.read(wanted, signal);
    const { ops, problems } = planned(wanted, state);
    assert.deepEqual(ops.map(describeOp), []);
    assert.deepEqual(problems, []);
    return state;
  }

  const routesTo = (state: ActualState, dst: string) =>
    state.routes
      .filter((found) => formatPrefix(found.dst) === dst)
      .map((found) => `${describeRoute(found)} proto ${found.protocol}`);

  describe(`${name}: kernel contract`, () => {
    it('leaves out a link that does not exist', async () => {
      await using h = await open();
      const state = await h.kernel.read(UDP, signal);
      assert.deepEqual(
        state.links.map((link) => link.name),
        ['eth0'],
      );
      assert.deepEqual(
        state.addresses
          .filter((found) => isIpv4(found.addr))
          .map((found) => `${formatAddr(found.addr)}/${found.prefixLength} ${found.link}`),
        ['192.168.77.1/24 eth0'],
      );
    });

    it('sets up the udp backend in one pass', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      const state = await settle(h.kernel, UDP);
      const tun = state.links.find((link) => link.name === 'flannel0');
      assert.deepEqual([tun?.kind, tun?.mtuBytes, tun?.alias, tun?.up], ['tun', 1472, 'weft:10.244.0.0/16', true]);
      assert.equal(tun?.queuePackets, 2_000);
      assert.deepEqual(routesTo(state, '10.244.0.0/16'), ['10.244.0.0/16 dev flannel0 proto 241']);
    });

    it('makes the queue of a device longer, and leaves one that is longer as it is', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, UDP);
      await h.setQueue('flannel0', 100);
      assert.deepEqual((await applyOnce(h.kernel, UDP)).map(describeOp), ['set link flannel0 txqueuelen 2000']);
      await h.setQueue('flannel0', 5_000);
      assert.deepEqual(await applyOnce(h.kernel, UDP), []);
      const tun = (await h.kernel.read(UDP, signal)).links.find((link) => link.name === 'flannel0');
      assert.equal(tun?.queuePackets, 5_000);
    });

    it('sets up both families, gateways, metrics and blackholes in one pass, and takes them away again', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      const state = await settle(h.kernel, DUAL);
      assert.equal(state.routes.filter((found) => found.protocol === 241).length, DUAL.routes.length);
      const bare = { ...DUAL, routes: [] };
      const ops = await applyOnce(h.kernel, bare);
      assert.equal(ops.length, DUAL.routes.length);
      const after = await h.kernel.read(bare, signal);
      assert.equal(after.routes.filter((found) => found.protocol === 241).length, 0);
    });

    it('sets up a vxlan device with neighbours and forwarding entries, and changes them', async () => {
      await using h = await open();
      await settle(h.kernel, VXLAN);
      const other = mac('72:4f:d0:84:69:02');
      await settle(h.kernel, {
        ...VXLAN,
        neighbours: VXLAN.neighbours.map((entry) => ({ ...entry, mac: other })),
        fdb: [
          { link: 'flannel.1', mac: other, dst: PEER.host },
          { link: 'flannel.1', mac: PEER.mac, dst: addr('192.168.77.3') },
        ],
      });
      await settle(h.kernel, { ...VXLAN, neighbours: [], fdb: [], routes: [] });
      const links = VXLAN.links.map((link) =>
        link.kind === 'vxlan' ? { ...link, settings: { ...link.settings, vni: 7 }, mtuBytes: 1400 } : link,
      );
      const remade = await settle(h.kernel, { ...VXLAN, links });
      const device = remade.links.find((link) => link.name === 'flannel.1');
      assert.equal(device?.kind === 'vxlan' && device.settings.vni, 7);
    });

    it('keeps a vxlan device with another port, learning and group policy as it is', async () => {
      await using h = await open();
      const links = VXLAN.links.map((link) =>
        link.kind === 'vxlan'
          ? { ...link, settings: { ...link.settings, port: 4789, learning: true, gbp: true } }
          : link,
      );
      const { links: found } = await settle(h.kernel, { ...VXLAN, links });
      const device = found.find((link) => link.name === 'flannel.1');
      assert.ok(device?.kind === 'vxlan');
      const { port, learning, gbp } = device.settings;
      assert.deepEqual({ port, learning, gbp }, { port: 4789, learning: true, gbp: true });
      assert.deepEqual(await applyOnce(h.kernel, { ...VXLAN, links }), []);
    });

    it('knows a link that is renamed, without its addresses too, and no other of that kind', async () => {
      await using h = await open();
      const { links } = await settle(h.kernel, VXLAN);
      assert.ok(links.every((link) => !('wasOwn' in link)));
      await h.flushAddresses('flannel.1');
      await h.renameLink('flannel.1', 'old');
      const look = async () => (await h.kernel.read(VXLAN, signal)).links.find(({ name }) => name === 'old')?.wasOwn;
      assert.deepEqual([await look(), await look()], ['flannel.1', 'flannel.1']);
      const ops = (await applyOnce(h.kernel, VXLAN)).map(describeOp);
      assert.ok(ops.includes('rename link old to flannel.1'), ops.join('; '));
      assert.ok((await settle(h.kernel, VXLAN)).links.every((link) => !('wasOwn' in link)));
      await h.deleteLink('flannel.1');
      const [, link] = VXLAN.links as [WantedLink, Extract<WantedLink, { kind: 'vxlan' }>];
      const strange = { ...link, name: 'strange', settings: { ...link.settings, vni: 9 } };
      await h.kernel.apply([{ type: 'link-add', link: strange }], signal);
      const found = (await h.kernel.read(VXLAN, signal)).links.find(({ name }) => name === 'strange');
      assert.deepEqual([found?.kind, found !== undefined && 'wasOwn' in found], ['vxlan', false]);
    });

    it('leaves checksums to no device where that is wanted, and looks whether it stays so', async () => {
      await using h = await open();
      const [uplink, link] = VXLAN.links as [WantedLink, Extract<WantedLink, { kind: 'vxlan' }>];
      await settle(h.kernel, VXLAN);
      const summed: WantedState = { ...VXLAN, links: [uplink, { ...link, sumsBefore: true }] };
      const off = ['turn tx-checksum-ip-generic of flannel.1 off'];
      assert.deepEqual((await applyOnce(h.kernel, summed)).map(describeOp), off);
      assert.deepEqual(await applyOnce(h.kernel, summed), []);
      await h.deleteLink('flannel.1');
      assert((await applyOnce(h.kernel, summed)).map(describeOp).includes(off[0]!));
      assert.deepEqual(await applyOnce(h.kernel, summed), []);
    });

    it('sets what is wanted of a link’s settings, on a new device too', async () => {
      await using h = await open();
      const name = 'net/ipv6/conf/flannel.1/accept_ra';
      const wanted = { ...VXLAN, sysctls: [{ link: 'flannel.1', name, value: '0', risk: undefined }] };
      const before = await settle(h.kernel, VXLAN);
      assert.deepEqual(before.sysctls, []);
      const set = await settle(h.kernel, wanted);
      assert.deepEqual(set.sysctls, [{ name, value: '0', writable: true }]);
      await h.deleteLink('flannel.1');
      assert.deepEqual(
        (await h.kernel.read(wanted, signal)).sysctls.filter(({ value }) => value !== '0'),
        [],
      );
      const again = await settle(h.kernel, wanted);
      assert.deepEqual(again.sysctls, [{ name, value: '0', writable: true }]);
    });

    it('sets IPsec policies, in the place of those with the same key, and takes them away', async () => {
      await using h = await open();
      const policy = (direction: PolicyDirection, host: number, verdict: PolicyVerdict): IpsecPolicy => ({
        ...{ direction, src: prefix('10.244.1.0/24'), dst: prefix(`10.244.${host}.0/24`), verdict },
      });
      const tunnel: PolicyVerdict = { kind: 'tunnel', from: addr('192.168.77.1'), to: addr('192.168.77.2') };
      const wanted: WantedState = {
        ...UDP,
        ...{ links: [UPLINK], addresses: [], routes: [] },
        policies: [policy('out', 2, tunnel), policy('fwd', 2, { kind: 'block' }), policy('in', 3, { kind: 'allow' })],
      };
      const { kernel } = h;
      await settle(kernel, wanted);
      const others = { ...wanted, policies: [policy('out', 2, { ...tunnel, to: addr('192.168.77.3') })] };
      const { policies = [] } = await settle(kernel, others);
      const gone = policies.map((each) => ({ type: 'policy-delete', policy: each }) as const);
      assert.equal(gone.length, 1);
      // What is gone already does not keep the next from going.
      const results = await kernel.apply([...gone, ...gone], signal);
      assert.deepEqual(
        results.map(({ ok }) => ok),
        [true, true],
      );
      assert.deepEqual((await kernel.read(wanted, signal)).policies, []);
    });

    it('makes and keeps a bridge', async () => {
      await using h = await open();
      const wanted: WantedState = {
        ...EMPTY_WANTED_STATE,
        links: [{ kind: 'bridge', name: 'br0', mtuBytes: 1472 }],
        addresses: [address('10.244.1.1/24', { link: 'br0' })],
      };
      const state = await settle(h.kernel, wanted);
      assert.deepEqual(routesTo(state, '10.244.1.0/24'), ['10.244.1.0/24 dev br0 proto 2']);
      await h.setDown('br0');
      await settle(h.kernel, wanted);
    });

    it('takes the routes of an earlier run for its own, and nobody else’s', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, UDP);
      await h.addRoute({ dst: '10.99.0.0/16', dev: 'eth0', protocol: 241 });
      await h.addRoute({ dst: 'fd99::/64', dev: 'eth0', protocol: 241 });
      await h.addRoute({ dst: '10.98.0.0/16', dev: 'eth0', protocol: 3 });
      await h.addRoute({ dst: '10.97.0.0/16', dev: 'flannel0', protocol: 4 });
      const state = await settle(h.kernel, UDP);
      for (const gone of ['10.99.0.0/16', 'fd99::/64']) assert.deepEqual(routesTo(state, gone), []);
      assert.deepEqual(routesTo(state, '10.98.0.0/16'), ['10.98.0.0/16 dev eth0 proto 3']);
      assert.deepEqual(routesTo(state, '10.97.0.0/16'), ['10.97.0.0/16 dev flannel0 proto 4']);
    });

    it('replaces the route that flanneld has left', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, { ...UDP, routes: [] });
      await h.addRoute({ dst: '10.244.0.0/16', dev: 'flannel0', protocol: 3 });
      const ops = await applyOnce(h.kernel, UDP);
      assert.deepEqual(ops.map(describeOp), ['replace route 10.244.0.0/16 dev flannel0']);
      const state = await h.kernel.read(UDP, signal);
      assert.deepEqual(routesTo(state, '10.244.0.0/16'), ['10.244.0.0/16 dev flannel0 proto 241']);
    });

    it('never deletes or adds over a route of others with the same key', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await h.addRoute({ dst: '10.244.0.0/16', dev: 'eth0', via: '192.168.77.9', protocol: 4 });
      await applyOnce(h.kernel, UDP);
      const state = await h.kernel.read(UDP, signal);
      const foreign = '10.244.0.0/16 via 192.168.77.9 dev eth0 proto 4';
      assert.deepEqual(routesTo(state, '10.244.0.0/16'), [foreign]);
      assert.deepEqual(
        planned(UDP, state).problems.map((problem) => problem.type),
        ['route-taken'],
      );
      const [added] = await h.kernel.apply([{ type: 'route-add', route: route('10.244.0.0/16') }], signal);
      assert.equal(added?.ok, false);
      const mine = { ...state.routes.find((found) => found.protocol === 4)!, protocol: 241 };
      await h.kernel.apply([{ type: 'route-delete', route: mine }], signal);
      assert.deepEqual(routesTo(await h.kernel.read(UDP, signal), '10.244.0.0/16'), [foreign]);
    });

    it('goes on after a failure and says which operation failed with what', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, UDP);
      const vxlan = VXLAN.links.find((link) => link.kind === 'vxlan');
      assert(vxlan !== undefined);
      const ops: Op[] = [
        { type: 'route-add', route: route('10.1.0.0/16') },
        { type: 'address-add', address: address('10.2.0.1/32', { link: 'nosuch0' }) },
        { type: 'link-add', link: { ...vxlan, settings: { ...vxlan.settings, underlay: 'nosuch1' } } },
        { type: 'route-add', route: route('10.1.0.0/16') },
        { type: 'route-replace', route: route('10.3.0.0/16', { dev: 'nosuch2' }) },
        { type: 'fdb-replace', entry: { link: 'nosuch3', mac: PEER.mac, dst: PEER.host } },
        { type: 'route-add', route: route('fd10:99::/64') },
      ];
      const results = await h.kernel.apply(ops, signal);
      assert.deepEqual(
        results.map((result) => result.ok),
        [true, false, false, false, false, false, true],
      );
      const errors = results.map((result) => (result.ok ? '' : result.error));
      for (const [at, text] of [
        [1, 'nosuch0'],
        [2, 'nosuch1'],
        [3, 'File exists'],
        [4, 'nosuch2'],
        [5, 'nosuch3'],
      ] as const) {
        assert(errors[at]?.includes(text), String(errors[at]));
      }
    });

    it('goes on after a neighbour that the kernel refuses', async () => {
      await using h = await open();
      await settle(h.kernel, { ...VXLAN, neighbours: [] });
      const entry = (host: number, link = 'flannel.1') => ({ link, addr: addr(`10.244.${host}.0`), mac: PEER.mac });
      const ops: Op[] = [
        { type: 'neighbour-delete', neighbour: entry(2) },
        { type: 'neighbour-replace', neighbour: entry(3) },
        { type: 'neighbour-delete', neighbour: entry(4) },
        { type: 'neighbour-replace', neighbour: entry(5, 'nosuch0') },
        { type: 'neighbour-replace', neighbour: entry(6) },
      ];
      const results = await h.kernel.apply(ops, signal);
      assert.deepEqual(
        results.map((result) => result.ok),
        [true, true, true, false, true],
      );
      const { neighbours } = await h.kernel.read(VXLAN, signal);
      assert.deepEqual(neighbours.map((found) => formatAddr(found.addr)).sort(), ['10.244.3.0', '10.244.6.0']);
    });

    it('takes the deletion of what is gone for done', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      const state = await settle(h.kernel, UDP);
      const gone = state.routes.find((found) => found.protocol === 241)!;
      const here = state.addresses.find((found) => found.link === 'flannel0')!;
      const vxlan = await settle(h.kernel, VXLAN);
      const ops: Op[] = [
        { type: 'route-delete', route: { ...gone, dst: prefix('10.1.0.0/16') } },
        { type: 'route-delete', route: { ...gone, dev: 'nosuch0' } },
        { type: 'route-delete', route: { ...gone, dst: prefix('fd77::/64'), metric: 1024 } },
        { type: 'address-delete', address: { ...here, addr: addr('10.9.9.9') } },
        { type: 'address-delete', address: { ...here, addr: addr('fd77::1'), prefixLength: 128 } },
        { type: 'address-delete', address: { ...here, link: 'nosuch0' } },
        { type: 'neighbour-delete', neighbour: { ...vxlan.neighbours[0]!, addr: addr('10.9.9.9') } },
        { type: 'neighbour-delete', neighbour: { ...vxlan.neighbours[0]!, link: 'nosuch0' } },
        { type: 'fdb-delete', entry: { ...vxlan.fdb[0]!, mac: mac('02:00:00:00:00:77') } },
        { type: 'fdb-delete', entry: { ...vxlan.fdb[0]!, link: 'nosuch0' } },
        { type: 'link-delete', name: 'nosuch0' },
      ];
      const results = await h.kernel.apply(ops, signal);
      assert.deepEqual(
        results.flatMap((result) => (result.ok ? [] : [`${describeOp(result.op)}: ${result.error}`])),
        [],
      );
    });

    it('has the IPv4 routes of a link vanish with its last address, and puts them back in one pass', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, UDP);
      await h.flushAddresses('flannel0');
      assert.deepEqual(routesTo(await h.kernel.read(UDP, signal), '10.244.0.0/16'), []);
      await settle(h.kernel, UDP);
    });

    it('has the routes of a link vanish when it goes down, and puts all back in one pass', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, DUAL);
      await h.setDown('flannel0');
      await h.setMtu('flannel0', 1500);
      await settle(h.kernel, DUAL);
    });

    it('replaces addresses in one pass, whatever form they had', async () => {
      for (const before of [
        ['10.244.7.0/32'],
        ['10.244.1.0/16'],
        ['10.244.1.0/24', '10.244.1.9/24'],
        ['fd10:244::7/64'],
      ]) {
        await using h = await open();
        await h.addTun('flannel0');
        await settle(h.kernel, { ...UDP, addresses: [], routes: [] });
        for (const cidr of before) await h.addAddress('flannel0', cidr);
        const state = await settle(h.kernel, { ...DUAL, routes: [route('10.244.0.0/16'), route('fd10:244::/48')] });
        assert.deepEqual(
          state.addresses
            .filter((found) => found.link === 'flannel0' && !formatAddr(found.addr).startsWith('fe80'))
            .map((found) => `${formatAddr(found.addr)}/${found.prefixLength}`)
            .sort(),
          ['10.244.1.0/32', 'fd10:244:0:1::/128'],
          before.join(),
        );
      }
    });

    it('applies 2,000 routes at once', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      const routes: Route[] = [];
      for (let i = 0; i < 1_000; i++) {
        routes.push(route(`10.${100 + (i >> 8)}.${i & 255}.0/24`), route(`fd10:${i.toString(16)}::/64`));
      }
      const state = await settle(h.kernel, { ...UDP, routes });
      assert.equal(state.routes.filter((found) => found.protocol === 241).length, 2_000);
    });

    it('gives notice at the start and of every change by others', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await settle(h.kernel, DUAL);
      const stop = new AbortController();
      const notices = h.kernel.changes(() => DUAL, stop.signal)[Symbol.asyncIterator]();
      await notices.next();
      const noticed = async (what: string, change: () => Promise<void>): Promise<void> => {
        const next = notices.next();
        await change();
        assert.equal((await next).done, false, what);
        // What else belongs to the same change may still be on its way; only a later notice may depend on it.
        await applyOnce(h.kernel, DUAL);
      };
      await noticed('route', () => h.deleteRoute('10.244.0.0/16'));
      await noticed('route of the uplink', () => h.deleteRoute('10.244.2.0/24'));
      await noticed('IPv6 route', () => h.deleteRoute('fd10:244::/48'));
      await noticed('addresses', () => h.flushAddresses('flannel0'));
      await noticed('MTU', () => h.setMtu('flannel0', 1300));
      await noticed('down', () => h.setDown('flannel0'));
      await noticed('deleted', () => h.deleteLink('flannel0'));
      await noticed('made', () => h.addTun('flannel0'));
      const last = notices.next();
      stop.abort();
      await Promise.allSettled([last, notices.return?.()]);
    });

    it('gives notice of IPsec policies that are wanted only after it has begun to listen', async () => {
      await using h = await open();
      const bare: WantedState = { ...UDP, links: [UPLINK], addresses: [], routes: [] };
      const policy: IpsecPolicy = {
        ...{ direction: 'out', src: prefix('10.244.1.0/24'), dst: prefix('10.244.2.0/24') },
        verdict: { kind: 'block' },
      };
      let wanted = bare;
      const stop = new AbortController();
      const patience = AbortSignal.any([stop.signal, AbortSignal.timeout(30_000)]);
      const notices = h.kernel.changes(() => wanted, patience)[Symbol.asyncIterator]();
      await notices.next();
      wanted = { ...bare, policies: [policy] };
      const watched = notices.next();
      await settle(h.kernel, wanted);
      assert.equal((await watched).done, false, 'it watches them');
      const gone = notices.next();
      const { policies = [] } = await h.kernel.read(wanted, signal);
      await h.kernel.apply(
        policies.map((each) => ({ type: 'policy-delete', policy: each })),
        signal,
      );
      assert.equal((await gone).done, false, 'one is gone');
      const last = notices.next();
      stop.abort();
      await Promise.allSettled([last, notices.return?.()]);
    });

    it('gives no notice of the routes, neighbours and forwarding entries that it sets itself', async () => {
      await using h = await open();
      const peers = (macs: readonly string[]): WantedState => ({
        ...VXLAN,
        routes: [
          ...VXLAN.routes,
          route('10.244.4.0/24', { via: addr(`192.168.77.${macs.length}`), dev: 'eth0' }),
          route('10.244.5.1/32', { dev: 'eth0', scope: 'link', metric: macs.length }),
          { type: 'blackhole', dst: prefix('10.244.1.0/24'), metric: 9_000 + macs.length },
          { type: 'blackhole', dst: prefix('fd10:244:0:1::/64'), metric: 9_000 + macs.length },
        ],
        neighbours: macs.flatMap((text, i) => [
          { link: 'flannel.1', addr: addr(`10.244.${9 + i}.0`), mac: mac(text) },
          { link: 'flannel.1', addr: addr(`fd10:244:0:${9 + i}::`), mac: mac(text) },
        ]),
        fdb: macs.map((text, i) => ({ link: 'flannel.1', mac: mac(text), dst: addr(`192.168.77.${9 + i}`) })),
      });
      const states = [
        peers(['72:4f:d0:84:69:02']),
        peers(['72:4f:d0:84:69:03', '72:4f:d0:84:69:02']),
        peers(['72:4f:d0:84:69:02', '72:4f:d0:84:69:03', '72:4f:d0:84:69:04']),
      ];
      await settle(h.kernel, states[0]!);
      await h.quiet();
      const stop = new AbortController();
      using _ = { [Symbol.dispose]: () => stop.abort() };
      const notices = h.kernel.changes(() => VXLAN, stop.signal)[Symbol.asyncIterator]();
      await notices.next();
      let isNoticed = false;
      const next = notices.next().then((result) => {
        isNoticed = true;
        return result;
      });
      for (let round = 0; round < 8; round++) {
        for (const state of states.toReversed()) assert.notDeepEqual(await applyOnce(h.kernel, state), []);
      }
      assert.equal(isNoticed, false);
      await h.deleteRoute('10.244.2.0/24');
      assert.equal((await next).done, false);
      const last = notices.next();
      stop.abort();
      await Promise.allSettled([last, notices.return?.()]);
    });

    it('reaches any wanted state from any other', async () => {
      await using h = await open();
      await h.addTun('flannel0');
      await fc.assert(
        fc.asyncProperty(wantedState, async (wanted) => {
          for (let pass = 0; ; pass++) {
            const ops = await applyOnce(h.kernel, wanted);
            if (ops.length === 0) break;
            assert(pass < 3, ops.map(describeOp).join('; '));
          }
        }),
        { numRuns: 25 },
      );
    });
  });
}
