import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { address, fdb, link, neighbour, route, wantedState } from '../../../test/contract/kernel-states.ts';
import { planned } from '../../../test/contract/planned.ts';
import { FakeKernel } from '../../../test/fakes/fake-kernel.ts';
import { containsPrefix, type IpAddr, type IpPrefix, isIpv4, parseAddr, parsePrefix } from '../../ip/address.ts';
import { parseMac } from '../../ip/mac.ts';
import { Secret } from '../../secret.ts';
import { Actual } from '../actual.ts';
import { describeOp, type Op } from '../op.ts';
import { describeProblem } from '../problem.ts';
import {
  type ActualAddress,
  type ActualRoute,
  type ActualState,
  type Address,
  BOOT_ROUTE_PROTOCOL,
  describeRoute,
  EMPTY_WANTED_STATE,
  KERNEL_ROUTE_PROTOCOL,
  type PeerState,
  type Route,
  routeKey,
  type UnicastRoute,
  type WantedLink,
  type WantedState,
  WEFT_ROUTE_PROTOCOL,
  type WireguardKey,
} from '../state.ts';
import { Wanted } from '../wanted.ts';
import { planAll, planChanged, reconcile } from './plan.ts';

const addr = (text: string): IpAddr => parseAddr(text) ?? assert.fail(text);
const prefix = (text: string): IpPrefix => parsePrefix(text) ?? assert.fail(text);
const mac = (text: string) => parseMac(text) ?? assert.fail(text);
const never = new AbortController().signal;

const TUN: WantedLink = { kind: 'tun', name: 'flannel0', mtuBytes: 1472 };
const ADDRESS: Address = {
  link: 'flannel0',
  addr: addr('10.244.1.0'),
  prefixLength: 32,
  scope: 'global',
  prefixRoute: true,
};
const ROUTE: UnicastRoute = {
  type: 'unicast',
  dst: prefix('10.244.0.0/16'),
  dev: 'flannel0',
  via: undefined,
  onlink: false,
  scope: 'global',
  metric: undefined,
};
const WANTED: WantedState = {
  ...EMPTY_WANTED_STATE,
  links: [TUN],
  addresses: [ADDRESS],
  routes: [ROUTE],
  networks: [prefix('10.244.0.0/16')],
  staleRoutes: 'everywhere',
};

function actualRoute(change: Partial<ActualRoute>): ActualRoute {
  return {
    type: 'unicast',
    dst: prefix('10.244.0.0/16'),
    metric: 0,
    dev: 'flannel0',
    via: undefined,
    onlink: false,
    scope: 'global',
    protocol: WEFT_ROUTE_PROTOCOL,
    elaborate: false,
    ...change,
  };
}

function withTun(): FakeKernel {
  const kernel = new FakeKernel();
  kernel.addLink({ name: 'flannel0', kind: 'tun', up: false });
  return kernel;
}

async function settle(kernel: FakeKernel, wanted: WantedState): Promise<readonly Op[]> {
  const ops = reconcile(wanted, await kernel.read(wanted, never));
  const failed = (await kernel.apply(ops, never)).filter((result) => !result.ok);
  assert.deepEqual(failed, []);
  assert.deepEqual(reconcile(wanted, await kernel.read(wanted, never)), []);
  return ops;
}

const VXLAN = vxlanWanted();

function vxlanWanted(): { readonly vxlan: Extract<WantedLink, { kind: 'vxlan' }>; readonly wanted: WantedState } {
  const vxlan: Extract<WantedLink, { kind: 'vxlan' }> = {
    kind: 'vxlan',
    name: 'flannel.1',
    mtuBytes: 1450,
    mac: mac('72:4f:d0:84:69:9f'),
    settings: { vni: 1, underlay: 'eth0', local: addr('192.168.77.1'), port: undefined, learning: false, gbp: false },
  };
  const wanted: WantedState = {
    ...EMPTY_WANTED_STATE,
    links: [{ kind: 'external', name: 'eth0' }, vxlan],
    addresses: [{ ...ADDRESS, link: 'flannel.1' }],
    routes: [{ ...ROUTE, dst: prefix('10.244.2.0/24'), via: addr('10.244.2.0'), dev: 'flannel.1', onlink: true }],
    neighbours: [{ link: 'flannel.1', addr: addr('10.244.2.0'), mac: mac('72:4f:d0:84:69:00') }],
    fdb: [{ link: 'flannel.1', mac: mac('72:4f:d0:84:69:00'), dst: addr('192.168.77.2') }],
    networks: WANTED.networks,
  };
  return { vxlan, wanted };
}

/** A host that has all of it. */
async function vxlanHost(): Promise<FakeKernel> {
  const kernel = new FakeKernel();
  kernel.addLink({ name: 'eth0', kind: 'other' });
  await settle(kernel, VXLAN.wanted);
  return kernel;
}

describe('reconcile', () => {
  it('sets up a tun link, its address and its route, in this order', async () => {
    const kernel = withTun();
    const ops = await settle(kernel, WANTED);
    assert.deepEqual(ops.map(describeOp), [
      'set link flannel0 mtu 1472 up',
      'add address 10.244.1.0/32 dev flannel0',
      'add route 10.244.0.0/16 dev flannel0',
    ]);
    assert.deepEqual(kernel.routes, [actualRoute({})]);
  });

  describe('settings of links', () => {
    const sysctl = {
      link: 'flannel0',
      name: 'net/ipv6/conf/flannel0/accept_ra',
      value: '0',
      risk: 'peers can do harm',
    };
    const wanted: WantedState = { ...WANTED, sysctls: [sysctl] };

    it('are set where they differ, after the link and before its address', async () => {
      const kernel = withTun();
      kernel.sysctls.set(sysctl.name, { name: sysctl.name, value: '1', writable: true });
      const ops = await settle(kernel, wanted);
      assert.deepEqual(ops.map(describeOp).slice(0, 3), [
        'set link flannel0 mtu 1472 up',
        'set net/ipv6/conf/flannel0/accept_ra to 0',
        'add address 10.244.1.0/32 dev flannel0',
      ]);
      assert.deepEqual(kernel.sysctls.get(sysctl.name)?.value, '0');
    });

    it('are left out where this kernel does not have them, or the link is missing or not ours', async () => {
      for (const kernel of [withTun(), new FakeKernel()]) {
        const { ops } = planned(wanted, await kernel.read(wanted, never));
        assert.deepEqual(ops, planned(WANTED, await kernel.read(WANTED, never)).ops);
      }
      const kernel = withTun();
      kernel.sysctls.set(sysctl.name, { name: sysctl.name, value: '1', writable: true });
      const external: WantedState = { ...wanted, links: [{ kind: 'external', name: 'flannel0' }] };
      assert.doesNotMatch(
        planned(external, await kernel.read(external, never))
          .ops.map(describeOp)
          .join(),
        /accept_ra/,
      );
    });

    it('are a problem where they cannot be set, if something can happen', async () => {
      const kernel = withTun();
      kernel.sysctls.set(sysctl.name, { name: sysctl.name, value: '1', writable: false });
      await settle(kernel, wanted);
      const { problems } = planned(wanted, await kernel.read(wanted, never));
      assert.deepEqual(problems.map(describeProblem), [
        'net/ipv6/conf/flannel0/accept_ra is 1 and cannot be set to 0 from here (/proc/sys is read-only): peers can do harm; set it on the host: echo 0 > /proc/sys/net/ipv6/conf/flannel0/accept_ra',
      ]);
      const harmless: WantedState = { ...wanted, sysctls: [{ ...sysctl, risk: undefined }] };
      assert.deepEqual(planned(harmless, await kernel.read(harmless, never)), { ops: [], problems: [] });
    });
  });

  it('waits for a tun link that is not there, and says so', async () => {
    const { ops, problems } = planned(WANTED, await new FakeKernel().read(WANTED, never));
    assert.deepEqual(ops, []);
    assert.deepEqual(problems, [{ type: 'link-missing', link: 'flannel0' }]);
    assert.equal(describeProblem(problems[0]!), 'there is no interface flannel0');
  });

  it('does not touch a link of its name that is something else', async () => {
    const kernel = new FakeKernel();
    kernel.addLink({ name: 'flannel0', kind: 'bridge' });
    const { ops, problems } = planned(WANTED, await kernel.read(WANTED, never));
    assert.deepEqual(ops, []);
    assert.match(describeProblem(problems[0]!), /^interface flannel0 is not a tun device but a bridge; remove it/);
  });

  it('takes over the route of flanneld in place', async () => {
    const kernel = withTun();
    kernel.setLink('flannel0', { up: true });
    kernel.addForeignRoute(actualRoute({ protocol: BOOT_ROUTE_PROTOCOL }));
    const ops = await settle(kernel, WANTED);
    assert.equal(describeOp(ops.at(-1)!), 'replace route 10.244.0.0/16 dev flannel0');
    assert.deepEqual(kernel.routes, [actualRoute({})]);
  });

  it("does not touch somebody else's route with the same key, and says whose it is", async () => {
    const kernel = withTun();
    kernel.addLink({ name: 'eth1', kind: 'other' });
    const foreign = actualRoute({ dev: 'eth1', via: addr('192.168.1.1'), protocol: 4 });
    kernel.addForeignRoute(foreign);
    await settle(kernel, WANTED);
    assert.deepEqual(kernel.routes, [foreign]);
    const { problems } = planned(WANTED, await kernel.read(WANTED, never));
    assert.equal(
      describeProblem(problems[0]!),
      '10.244.0.0/16 is already routed by another program (10.244.0.0/16 via 192.168.1.1 dev eth1 proto 4), wanted: 10.244.0.0/16 dev flannel0; remove that route: ip route delete 10.244.0.0/16 via 192.168.1.1 dev eth1 proto 4',
    );
  });

  it("gives its own route up when somebody else's with the same key is put before it", async () => {
    const kernel = withTun();
    await settle(kernel, WANTED);
    kernel.addLink({ name: 'eth1', kind: 'other' });
    const foreign = actualRoute({ dev: 'eth1', via: addr('192.168.1.1'), protocol: 4 });
    kernel.addForeignRoute(foreign, 'front');
    assert.deepEqual(kernel.routes, [foreign, actualRoute({})]);
    const { problems } = planned(WANTED, await kernel.read(WANTED, never));
    assert.match(describeProblem(problems[0]!), /^10\.244\.0\.0\/16 is already routed by another program/);
    await settle(kernel, WANTED);
    assert.deepEqual(kernel.routes, [foreign]);
  });

  it('keeps its route beside one with a lower metric, and says whose that is unless it leads the same way', async () => {
    const wanted: WantedState = { ...WANTED, routes: [{ ...ROUTE, metric: 100 }] };
    const kernel = withTun();
    await settle(kernel, wanted);
    const foreign = actualRoute({ dev: 'eth0', protocol: BOOT_ROUTE_PROTOCOL });
    kernel.routes.unshift(foreign);
    const seen = planned(wanted, await kernel.read(wanted, never));
    assert.deepEqual(seen.ops, []);
    assert.deepEqual(seen.problems, [{ type: 'route-taken', route: wanted.routes[0], by: foreign }]);
    kernel.routes[0] = actualRoute({ protocol: BOOT_ROUTE_PROTOCOL });
    assert.deepEqual(planned(wanted, await kernel.read(wanted, never)).problems, []);
    kernel.routes[0] = actualRoute({ dev: 'eth0', metric: 101, protocol: BOOT_ROUTE_PROTOCOL });
    assert.deepEqual(planned(wanted, await kernel.read(wanted, never)).problems, []);
  });

  it('changes from a route of an earlier version without a metric, the new one first', async () => {
    const kernel = withTun();
    await settle(kernel, WANTED);
    const ops = await settle(kernel, { ...WANTED, routes: [{ ...ROUTE, metric: 100 }] });
    assert.deepEqual(ops.map(describeOp), [
      'add route 10.244.0.0/16 dev flannel0 metric 100',
      'delete route 10.244.0.0/16 dev flannel0',
    ]);
  });

  it('removes stale routes with its protocol number, everywhere, in its own networks, or on its own links', async () => {
    for (const staleRoutes of ['everywhere', 'own-networks', 'own-links'] as const) {
      const kernel = withTun();
      kernel.addLink({ name: 'eth0', kind: 'other' });
      const elsewhere = actualRoute({ dst: prefix('10.9.0.0/16'), dev: 'eth0' });
      kernel.addForeignRoute(elsewhere);
      kernel.addForeignRoute(actualRoute({ dst: prefix('10.244.9.0/24'), dev: 'eth0' }));
      kernel.setLink('flannel0', { up: true });
      kernel.addForeignRoute(actualRoute({ dst: prefix('10.8.0.0/16') }));
      kernel.addForeignRoute(actualRoute({ dst: prefix('10.7.0.0/16'), protocol: BOOT_ROUTE_PROTOCOL }));
      await settle(kernel, { ...WANTED, staleRoutes });
      const left = kernel.routes.map(routeKey).sort();
      assert.deepEqual(left, [
        '10.244.0.0/16 metric 0',
        ...(staleRoutes === 'own-links' ? ['10.244.9.0/24 metric 0'] : []),
        '10.7.0.0/16 metric 0',
        ...(staleRoutes === 'everywhere' ? [] : ['10.9.0.0/16 metric 0']),
      ]);
    }
  });

  describe('what flanneld has left', () => {
    const BOOT = { protocol: BOOT_ROUTE_PROTOCOL };
    const byVxlan = (dst: string, via: string, change: Partial<ActualRoute> = {}): ActualRoute =>
      actualRoute({ dst: prefix(dst), via: addr(via), dev: 'flannel.1', onlink: true, ...BOOT, ...change });
    const direct = (dst: string, via: string, change: Partial<ActualRoute> = {}): ActualRoute =>
      actualRoute({ dst: prefix(dst), via: addr(via), dev: 'eth0', ...BOOT, ...change });
    const shown = ({ routes }: FakeKernel): string[] =>
      routes.map((route) => `${describeRoute(route)} proto ${route.protocol}`);
    const wanted = '10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 241';
    /** As flanneld with vxlan leaves it: a device with an address. */
    const flannelHost = async (...routes: readonly ActualRoute[]): Promise<FakeKernel> => {
      const kernel = new FakeKernel();
      kernel.addLink({ name: 'eth0', kind: 'other' });
      await settle(kernel, { ...VXLAN.wanted, routes: [], neighbours: [], fdb: [] });
      for (const route of routes) kernel.addForeignRoute(route);
      return kernel;
    };

    it('on a device of ours goes in the very form that flanneld gives it, inside the network, and nothing else does', async () => {
      const others = [
        byVxlan('10.244.8.0/24', '10.244.2.0'),
        byVxlan('10.9.0.0/24', '10.9.0.0'),
        byVxlan('10.244.7.0/24', '10.244.7.0', { protocol: 4 }),
        byVxlan('10.244.6.0/24', '10.244.6.0', { elaborate: true }),
        direct('10.244.5.0/24', '192.168.77.5'),
      ];
      const kernel = await flannelHost(
        byVxlan('10.244.2.0/24', '10.244.2.0'),
        byVxlan('10.244.9.0/24', '10.244.9.0'),
        ...others,
      );
      const ops = await settle(kernel, VXLAN.wanted);
      assert.deepEqual(ops.slice(-2).map(describeOp), [
        'replace route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
        'delete route 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink',
      ]);
      const left = others.map((route) => `${describeRoute(route)} proto ${route.protocol}`);
      assert.deepEqual(shown(kernel), [wanted, ...left]);
    });

    it('stays on a device of somebody else’s, and on ours without networks', async () => {
      const kernel = await flannelHost(byVxlan('10.244.9.0/24', '10.244.9.0'));
      for (const state of [
        { ...VXLAN.wanted, networks: [] },
        { ...WANTED, links: [{ kind: 'external', name: 'flannel.1' }], addresses: [], routes: [] } as WantedState,
      ]) {
        const { ops } = planned(state, await kernel.read(state, never));
        assert.ok(!ops.some(({ type }) => type === 'route-delete'), ops.map(describeOp).join('; '));
      }
    });

    it('is the way to a wanted subnet no longer, whatever that way was', async () => {
      const kernel = await flannelHost(
        direct('10.244.2.0/24', '192.168.77.9'),
        direct('10.244.9.0/24', '192.168.77.9'),
      );
      const blocked = planned(VXLAN.wanted, await kernel.read(VXLAN.wanted, never));
      assert.deepEqual(
        blocked.problems.map(({ type }) => type),
        ['route-taken'],
      );
      const { dst, onlink, scope } = kernel.routes[0]!;
      const former: UnicastRoute = {
        ...{ type: 'unicast', dst, onlink, scope, metric: undefined },
        ...{ dev: 'eth0', via: addr('192.168.77.9') },
      };
      const formerRoutes = [former, { ...former, dst: prefix('10.244.9.0/24') }];
      const state = { ...VXLAN.wanted, formerRoutes };
      assert.deepEqual((await settle(kernel, state)).slice(-2).map(describeOp), [
        'replace route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
        'delete route 10.244.9.0/24 via 192.168.77.9 dev eth0',
      ]);
      assert.deepEqual(shown(kernel), [wanted]);
      kernel.addForeignRoute(direct('10.244.2.0/24', '192.168.77.9'), 'front');
      await settle(kernel, state);
      assert.deepEqual(shown(kernel), [wanted], 'put before ours');
      kernel.addForeignRoute(direct('10.244.2.0/24', '192.168.77.8'), 'front');
      assert.equal(planned(state, await kernel.read(state, never)).problems.length, 1, 'another one is no flanneld’s');
    });

    it('stays while not all peers are known, with what else an earlier run has left', async () => {
      const kernel = await vxlanHost();
      kernel.addForeignRoute(byVxlan('10.244.9.0/24', '10.244.9.0'));
      kernel.addLink({ name: 'flannel0', kind: 'tun' });
      const bare: WantedState = {
        ...{ ...VXLAN.wanted, routes: [], neighbours: [], fdb: [] },
        absentLinks: [{ name: 'flannel0', kind: 'tun' }],
      };
      const partial = { ...bare, isPartial: true };
      const following = Wanted.of(partial);
      const actual = new Actual(await kernel.read(partial, never));
      assert.deepEqual(planAll(following, actual).ops, []);
      following.forgetChanges();
      following.setHost(bare);
      assert.ok(following.hasChanges());
      const ops = [
        'delete link flannel0',
        'delete neighbour 10.244.2.0 dev flannel.1',
        'delete fdb 72:4f:d0:84:69:00 dst 192.168.77.2 dev flannel.1',
        'delete route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
        'delete route 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink',
      ];
      assert.deepEqual(planChanged(following, actual).ops.map(describeOp), ops);
      following.forgetChanges();
      assert.ok(!following.hasChanges());
    });
  });

  it('replaces an address of an earlier subnet without losing the routes', async () => {
    const kernel = withTun();
    await settle(kernel, WANTED);
    const ops = await settle(kernel, { ...WANTED, addresses: [{ ...ADDRESS, addr: addr('10.244.7.0') }] });
    assert.deepEqual(ops.map(describeOp), [
      'add address 10.244.7.0/32 dev flannel0',
      'delete address 10.244.1.0/32 dev flannel0',
    ]);
  });

  it('puts the routes back when the address had to go before the new one could come', async () => {
    const kernel = withTun();
    const wide = { ...ADDRESS, prefixLength: 24, prefixRoute: false };
    await settle(kernel, { ...WANTED, addresses: [{ ...wide, addr: addr('10.244.1.9') }] });
    const ops = await settle(kernel, { ...WANTED, addresses: [wide] });
    assert.deepEqual(ops.map(describeOp), [
      'delete address 10.244.1.9/24 dev flannel0',
      'add address 10.244.1.0/24 dev flannel0',
      'replace route 10.244.0.0/16 dev flannel0',
    ]);
  });

  it('leaves addresses outside the flannel network alone, and link-local ones', async () => {
    const kernel = withTun();
    kernel.setLink('flannel0', { up: true });
    for (const text of ['192.168.5.1', 'fe80::1', '10.244.1.77']) {
      kernel.byHand({ type: 'address-add', address: { ...ADDRESS, addr: addr(text) } });
    }
    await settle(kernel, WANTED);
    assert.deepEqual(
      kernel.addresses.map((address) => address.addr),
      [addr('192.168.5.1'), addr('fe80::1'), ADDRESS.addr],
    );
  });

  it("is content with the kernel's own connected route", async () => {
    const kernel = withTun();
    const ops = await settle(kernel, { ...WANTED, addresses: [{ ...ADDRESS, prefixLength: 16 }] });
    assert.equal(ops.filter((op) => op.type === 'route-add').length, 0);
    assert.deepEqual(
      kernel.routes.map((route) => route.protocol),
      [KERNEL_ROUTE_PROTOCOL],
    );
    kernel.deleteRoutes(() => true);
    assert.deepEqual(
      (await settle(kernel, { ...WANTED, addresses: [{ ...ADDRESS, prefixLength: 16 }] })).map(describeOp),
      ['add route 10.244.0.0/16 dev flannel0'],
    );
  });

  it('ignores a second wanted route with the same key', async () => {
    const kernel = withTun();
    kernel.addLink({ name: 'eth0', kind: 'other' });
    const wanted = { ...WANTED, routes: [ROUTE, { ...ROUTE, dev: 'eth0' }] };
    await settle(kernel, wanted);
    assert.deepEqual(
      planned(wanted, await kernel.read(wanted, never)).problems.map((problem) => problem.type),
      ['route-twice'],
    );
  });

  it('makes a vxlan link anew when its settings do not suit', async () => {
    const kernel = await vxlanHost();
    const { vxlan, wanted } = VXLAN;
    const ops = await settle(kernel, {
      ...wanted,
      links: [wanted.links[0]!, { ...vxlan, settings: { ...vxlan.settings, local: addr('192.168.77.9') } }],
    });
    assert.deepEqual(ops.map(describeOp), [
      'delete link flannel.1',
      'add link flannel.1 (vxlan)',
      'add address 10.244.1.0/32 dev flannel.1',
      'set neighbour 10.244.2.0 lladdr 72:4f:d0:84:69:00 dev flannel.1',
      'set fdb 72:4f:d0:84:69:00 dst 192.168.77.2 dev flannel.1',
      'add route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
    ]);
  });
});

describe('a link of ours that somebody has renamed', () => {
  const setting = [
    'add address 10.244.1.0/32 dev flannel.1',
    'set neighbour 10.244.2.0 lladdr 72:4f:d0:84:69:00 dev flannel.1',
    'set fdb 72:4f:d0:84:69:00 dst 192.168.77.2 dev flannel.1',
    'add route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink',
  ];
  const back = ['set link old down', 'rename link old to flannel.1', 'set link flannel.1 up'];
  const rename = (kernel: FakeKernel, name: string): void =>
    void kernel.byHand({ type: 'link-rename', name, to: 'old' });

  it('gets its name back, also where another link has it now', async () => {
    const kernel = await vxlanHost();
    rename(kernel, 'flannel.1');
    assert.deepEqual((await settle(kernel, VXLAN.wanted)).map(describeOp), [...back, ...setting]);
    rename(kernel, 'flannel.1');
    kernel.addLink({ name: 'flannel.1', kind: 'other' });
    const ops = await settle(kernel, VXLAN.wanted);
    assert.deepEqual(ops.map(describeOp), ['delete link flannel.1', ...back, ...setting]);
    assert.equal(kernel.links.has('old'), false);
  });

  it('makes way for the one that is wanted, where it does not suit any more', async () => {
    const kernel = await vxlanHost();
    rename(kernel, 'flannel.1');
    const { vxlan, wanted } = VXLAN;
    const moved = { ...vxlan, settings: { ...vxlan.settings, local: addr('192.168.77.9') } };
    const ops = await settle(kernel, { ...wanted, links: [wanted.links[0]!, moved] });
    assert.deepEqual(ops.map(describeOp), ['delete link old', 'add link flannel.1 (vxlan)', ...setting]);
  });

  it('is one that was there before, or has an address of ours: another of that kind is left alone', async () => {
    const kernel = await vxlanHost();
    rename(kernel, 'flannel.1');
    for (const address of kernel.addresses.filter(({ link }) => link === 'old'))
      kernel.byHand({ type: 'address-delete', address });
    const read = await kernel.read(VXLAN.wanted, never);
    const { ops: known } = planned(VXLAN.wanted, read);
    assert.deepEqual(known.map(describeOp), [...back, ...setting]);
    const strangers = read.links.map(({ wasOwn, ...link }) => link);
    const { ops } = planned(VXLAN.wanted, { ...read, links: strangers });
    assert.ok(!ops.some((op) => op.type === 'link-rename' || op.type === 'link-delete'));
  });

  it('is known whatever its kind: ipip and wireguard by their addresses, tun by its alias', async () => {
    const settings = { privateKey: new Secret('x'), publicKey: 'y' as WireguardKey, listenPort: 51_820 };
    const kinds: readonly WantedLink[] = [
      { kind: 'ipip', name: 'flannel0', mtuBytes: 1480, settings: { local: addr('192.168.77.1') } },
      { kind: 'wireguard', name: 'flannel0', mtuBytes: 1420, settings },
    ];
    for (const link of kinds) {
      const kernel = new FakeKernel();
      await settle(kernel, { ...WANTED, links: [link] });
      rename(kernel, 'flannel0');
      const ops = (await settle(kernel, { ...WANTED, links: [link] })).map(describeOp);
      assert.ok(ops.includes('rename link old to flannel0'), ops.join('; '));
      assert.deepEqual([...kernel.links.keys()], ['flannel0']);
    }
    const kernel = new FakeKernel();
    kernel.addLink({ name: 'flannel0', kind: 'tun' });
    kernel.addLink({ name: 'tun7', kind: 'tun' });
    const wanted: WantedState = {
      ...WANTED,
      links: [{ kind: 'tun', name: 'flannel0', mtuBytes: 1472, alias: 'ours' }],
    };
    await settle(kernel, wanted);
    rename(kernel, 'flannel0');
    await settle(kernel, wanted);
    assert.deepEqual([...kernel.links.keys()].sort(), ['flannel0', 'tun7']);
  });
});

describe('reconcile on arbitrary kernels', () => {
  /** What others, or an earlier weft, may have done before. */
  const history = fc.array(
    fc.oneof(
      address.map((a) => (kernel: FakeKernel) => void kernel.byHand({ type: 'address-add', address: a })),
      fc
        .tuple(
          route,
          fc.constantFrom(KERNEL_ROUTE_PROTOCOL, BOOT_ROUTE_PROTOCOL, 4, WEFT_ROUTE_PROTOCOL, WEFT_ROUTE_PROTOCOL),
          fc.boolean(),
          fc.constantFrom('front', 'back') as fc.Arbitrary<'front' | 'back'>,
        )
        .map(([r, protocol, elaborate, where]) => (kernel: FakeKernel) => {
          if (r.type === 'unicast' && kernel.links.get(r.dev)?.up !== true) return;
          const { metric, ...rest } = r;
          kernel.addForeignRoute(
            actualRoute({
              dev: undefined,
              ...rest,
              metric: metric || (typeof r.dst.addr === 'number' ? 0 : 1024),
              protocol,
              elaborate,
            }),
            where,
          );
        }),
      fc.tuple(link, fc.boolean()).map(([name, up]) => (kernel: FakeKernel) => {
        if (kernel.links.has(name)) kernel.setLink(name, { up });
      }),
      neighbour.map((n) => (kernel: FakeKernel) => void kernel.byHand({ type: 'neighbour-replace', neighbour: n })),
      fdb.map((entry) => (kernel: FakeKernel) => {
        if (!kernel.links.has(entry.link)) return;
        // `bridge fdb append`: several hosts for one address.
        kernel.byHand({ type: 'fdb-delete', entry });
        kernel.fdb.push(entry);
      }),
      wantedState.map((state) => (kernel: FakeKernel) => {
        for (const wanted of state.links) {
          if (wanted.kind === 'vxlan' || wanted.kind === 'bridge') kernel.byHand({ type: 'link-add', link: wanted });
        }
      }),
    ),
    { maxLength: 12 },
  );

  it('reaches the wanted state, almost always in one pass, and touches nothing of others', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({ tun: fc.boolean(), external: fc.boolean() }),
        history,
        wantedState,
        async (exists, actions, wanted) => {
          const kernel = new FakeKernel();
          if (exists.tun) kernel.addLink({ name: 'flannel0', kind: 'tun' });
          if (exists.external) kernel.addLink({ name: 'eth0', kind: 'other' });
          for (const action of actions) action(kernel);
          const before = await kernel.read(wanted, never);

          let state = before;
          let next = planned(wanted, state);
          // Duplicate routes may take a pass each. A route by others may go with an address, and make room for ours.
          const duplicates = before.routes.length - new Set(before.routes.map(routeKey)).size;
          const extra = duplicates + (next.ops.some((op) => op.type === 'address-delete') ? 1 : 0);
          for (let pass = 0; next.ops.length > 0; pass++) {
            assert(pass <= extra, next.ops.map(describeOp).join('; '));
            checkHarmless(next.ops, state, wanted);
            const failed = (await kernel.apply(next.ops, never)).filter((result) => !result.ok);
            assert.deepEqual(failed, []);
            const foreseen = new Actual(state);
            const isForeseen = foreseen.follow(next.ops);
            state = await kernel.read(wanted, never);
            if (isForeseen) assert.deepEqual(contents(foreseen), contents(new Actual(state)));
            next = planned(wanted, state);
          }
          checkWanted(state, wanted, next.problems);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  /** The order among different keys says nothing. */
  function contents({ routes, neighbours, fdb }: Actual): unknown {
    const sorted = (map: ReadonlyMap<string, unknown>) => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
    return [sorted(routes), sorted(neighbours), sorted(fdb)];
  }

  function checkHarmless(ops: readonly Op[], before: ActualState, wanted: WantedState): void {
    for (const op of ops) {
      if (op.type === 'link-delete') assert.equal(op.name, 'flannel.1');
      if (op.type === 'link-set') assert.notEqual(op.name, 'eth0');
      if (op.type === 'route-delete') assert.equal(op.route.protocol, WEFT_ROUTE_PROTOCOL);
      if (op.type === 'route-replace') {
        const remade = ops.some((other) => other.type === 'link-delete') ? 'flannel.1' : undefined;
        const first = before.routes.find(
          (other) => routeKey(other) === routeKey(op.route) && (other.dev === undefined || other.dev !== remade),
        );
        assert(first !== undefined);
        if (first.protocol !== WEFT_ROUTE_PROTOCOL) {
          assert.equal(first.protocol, BOOT_ROUTE_PROTOCOL);
          assert(sameWay(op.route, first));
        }
      }
      if (op.type === 'address-delete') {
        const { link: name, addr: gone } = op.address;
        assert(wanted.addresses.some((other) => other.link === name && isIpv4(other.addr) === isIpv4(gone)));
        if (name === 'eth0') assert(wanted.addresses.some((other) => other.link === name && other.addr === gone));
      }
    }
  }

  function sameWay(a: Route, b: ActualRoute): boolean {
    if (a.type !== b.type || b.elaborate) return false;
    return a.type === 'blackhole' || (a.dev === b.dev && a.via === b.via && a.onlink === b.onlink);
  }

  function checkWanted(after: ActualState, wanted: WantedState, problems: readonly { type: string }[]): void {
    const links = new Map(after.links.map((found) => [found.name, found]));
    const has = (list: readonly ActualAddress[], a: Address) =>
      list.some((b) => a.link === b.link && a.addr === b.addr && a.prefixLength === b.prefixLength);
    for (const a of wanted.addresses) assert.equal(has(after.addresses, a), links.has(a.link));
    const taken = new Set(
      problems.flatMap((problem) => ('route' in problem ? [problem.route as Route] : [])).map((r) => routeKey(r)),
    );
    for (const r of wanted.routes) {
      if (taken.has(routeKey(r))) continue;
      const found = after.routes.find((other) => routeKey(other) === routeKey(r));
      if (r.type === 'unicast' && links.get(r.dev)?.up !== true) assert.notEqual(found?.protocol, WEFT_ROUTE_PROTOCOL);
      else assert(found !== undefined && (sameWay(r, found) || found.protocol === KERNEL_ROUTE_PROTOCOL));
    }
    const wantedKeys = new Set(wanted.routes.map(routeKey));
    for (const r of after.routes) {
      const inNetwork = wanted.networks.some((network) => containsPrefix(network, r.dst));
      const own = (r.dev !== undefined && r.dev !== 'eth0') || (wanted.staleRoutes === 'own-networks' && inNetwork);
      if (r.protocol === WEFT_ROUTE_PROTOCOL && (wanted.staleRoutes === 'everywhere' || own)) {
        assert(wantedKeys.has(routeKey(r)), routeKey(r));
      }
    }
    if (links.get('flannel.1')?.up === true) {
      assert.equal(after.neighbours.length, wanted.neighbours.length);
      assert.equal(after.fdb.length, wanted.fdb.length);
    }
  }
});

describe('links that must not be there', () => {
  it('go, with what the kernel has on them left to it; one of another kind stays', async () => {
    const kernel = new FakeKernel();
    kernel.addLink({ name: 'flannel0', kind: 'tun' });
    kernel.addLink({ name: 'flannel.1', kind: 'bridge' });
    kernel.routes = [actualRoute({ dev: 'flannel0' })];
    const wanted: WantedState = {
      ...EMPTY_WANTED_STATE,
      absentLinks: [
        { name: 'flannel0', kind: 'tun' },
        { name: 'flannel.1', kind: 'vxlan' },
        { name: 'flannel.ipip', kind: 'ipip' },
      ],
      staleRoutes: 'everywhere',
    };
    const ops = reconcile(wanted, await kernel.read(wanted, never));
    assert.deepEqual(ops.map(describeOp), ['delete link flannel0']);
    await kernel.apply(ops, never);
    assert.deepEqual(reconcile(wanted, await kernel.read(wanted, never)), []);
  });
});

describe('planChanged()', () => {
  const peerPart: fc.Arbitrary<PeerState> = fc.record({
    routes: fc.array(route, { maxLength: 2 }),
    neighbours: fc.array(neighbour, { maxLength: 2 }),
    fdb: fc.array(fdb, { maxLength: 2 }),
  });
  const change = fc.record({
    peer: fc.constantFrom('a', 'b', 'c'),
    part: fc.option(peerPart, { nil: undefined }),
  });

  it('leads to what planning everything anew would, change by change', async () => {
    await fc.assert(
      fc.asyncProperty(wantedState, fc.array(change, { maxLength: 6 }), async (host, changes) => {
        const kernel = new FakeKernel();
        kernel.addLink({ name: 'eth0', kind: 'other' });
        kernel.addLink({ name: 'flannel0', kind: 'tun' });
        const wanted = Wanted.of(host);
        let actual = new Actual(await kernel.read(host, never));
        for (let pass = 0; pass < 4; pass++) {
          await kernel.apply(planAll(wanted, actual).ops, never);
          actual = new Actual(await kernel.read(host, never));
        }
        wanted.forgetChanges();
        const problems = new Map(planAll(wanted, actual).routeProblems);
        for (const { peer, part } of changes) {
          wanted.setPeer(peer, part);
          const plan = planChanged(wanted, actual);
          const keys = plan.routeKeys ?? problems.keys();
          for (const key of keys) problems.delete(key);
          for (const [key, problem] of plan.routeProblems) problems.set(key, problem);
          wanted.forgetChanges();
          const results = await kernel.apply(plan.ops, never);
          assert.deepEqual(
            results.filter(({ ok }) => !ok),
            [],
          );
          if (!actual.follow(plan.ops)) actual = new Actual(await kernel.read(host, never));
          const whole = planAll(wanted, new Actual(await kernel.read(host, never)));
          assert.deepEqual(whole.ops.map(describeOp), []);
          assert.deepEqual(new Map(whole.routeProblems), problems);
        }
      }),
      { numRuns: 1_000 },
    );
  });

  it('looks at nothing but what has changed', () => {
    const wanted = Wanted.of(WANTED);
    const many = Array.from({ length: 200 }, (_, i): Route => ({ ...ROUTE, dst: prefix(`10.9.${i}.0/24`) }));
    for (const [i, other] of many.entries()) wanted.setPeer(`peer ${i}`, { routes: [other], neighbours: [], fdb: [] });
    wanted.forgetChanges();
    wanted.setPeer('peer 7', undefined);
    wanted.setPeer('new', { routes: [{ ...ROUTE, dst: prefix('10.10.0.0/24') }], neighbours: [], fdb: [] });
    assert.deepEqual([...wanted.changed.routes].sort(), ['10.10.0.0/24 metric 0', '10.9.7.0/24 metric 0']);
    wanted.setPeer('peer 8', { routes: [many[8]!], neighbours: [], fdb: [] });
    assert.equal(wanted.changed.routes.size, 2);
  });
});
