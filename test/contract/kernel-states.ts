import fc from 'fast-check';
import type { Address, FdbEntry, Neighbour, Route, WantedLink, WantedState } from '../../src/desired/state.ts';
import { isIpv4, parseAddr, parsePrefix } from '../../src/ip/address.ts';
import { parseMac } from '../../src/ip/mac.ts';

/**
 * Small worlds of wanted kernel states in which things collide often: the tun link `flannel0`, the VXLAN link
 * `flannel.1`, the bridge `br0`, and the external link `eth0` that somebody else must make.
 */

const addr = (text: string) => parseAddr(text)!;
const prefix = (text: string) => parsePrefix(text)!;
const mac = (text: string) => parseMac(text)!;

const LINKS = ['flannel0', 'flannel.1', 'br0', 'eth0'] as const;
const V4 = ['10.244.1.0', '10.244.1.1', '10.244.2.0', '192.168.77.1'].map(addr);
const V6 = ['fd10::1', 'fd10::2', 'fe80::5'].map(addr);
/** Neither addresses of this host nor, for IPv6, reachable through another link: the kernel refuses such gateways. */
const VIA4 = ['10.244.9.9', '192.168.77.2'].map(addr);
const VIA6 = ['fd77::99', 'fe80::99'].map(addr);
const DSTS = ['10.244.0.0/16', '10.244.1.0/24', '10.244.2.0/24', '0.0.0.0/0', 'fd10::/64', 'fd10:2::/64'].map(prefix);
const MACS = ['02:00:00:00:00:01', '02:00:00:00:00:02'].map(mac);

export const link = fc.constantFrom(...LINKS);
const anyAddr = fc.constantFrom(...V4, ...V6);
export const address: fc.Arbitrary<Address> = fc
  .record({ link, addr: anyAddr, length4: fc.constantFrom(32, 24, 16), length6: fc.constantFrom(128, 64) })
  .chain(({ length4, length6, ...rest }) =>
    fc.record({
      link: fc.constant(rest.link),
      addr: fc.constant(rest.addr),
      prefixLength: fc.constant(isIpv4(rest.addr) ? length4 : length6),
      // The kernel refuses addresses of one subnet in different scopes.
      scope: fc.constant('global' as const),
      // Never one whose connected route is in the way of a route below: those come and go with their addresses.
      prefixRoute: !isIpv4(rest.addr) || rest.addr === addr('192.168.77.1') ? fc.boolean() : fc.constant(false),
    }),
  );
export const route: fc.Arbitrary<Route> = fc.constantFrom(...DSTS).chain((dst) => {
  const v4 = typeof dst.addr === 'number';
  const metric = fc.constantFrom(undefined, 0, 7);
  const unicast = fc
    .record({ dev: link, via: fc.option(fc.constantFrom(...(v4 ? VIA4 : VIA6)), { nil: undefined }) })
    .map(({ dev, via }) => ({ dev, via, onlink: via !== undefined }));
  return fc.oneof(
    {
      weight: 5,
      arbitrary: fc.tuple(unicast, metric, fc.constantFrom('global', 'link') as fc.Arbitrary<'global' | 'link'>).map(
        ([next, m, scope]): Route => ({
          type: 'unicast',
          dst,
          metric: m,
          scope: v4 && next.via === undefined ? scope : 'global',
          ...next,
        }),
      ),
    },
    { weight: 1, arbitrary: metric.map((m): Route => ({ type: 'blackhole', dst, metric: m })) },
  );
});
export const neighbour: fc.Arbitrary<Neighbour> = fc.record({
  link: fc.constant('flannel.1'),
  addr: anyAddr,
  mac: fc.constantFrom(...MACS),
});
export const fdb: fc.Arbitrary<FdbEntry> = fc.record({
  link: fc.constant('flannel.1'),
  mac: fc.constantFrom(...MACS),
  dst: fc.constantFrom(...V4),
});
const vni = fc.constantFrom(1, 2);
/** 1450 is as much as the kernel gives a VXLAN device on an uplink of 1500. */
const mtuBytes = fc.constantFrom(undefined, 1400, 1450);

export const wantedState: fc.Arbitrary<WantedState> = fc.record({
  links: fc.tuple(mtuBytes, vni, fc.constantFrom(undefined, ...MACS)).map(([mtu, id, macAddr]): WantedLink[] => [
    { kind: 'external', name: 'eth0' },
    { kind: 'tun', name: 'flannel0', mtuBytes: mtu },
    { kind: 'bridge', name: 'br0', mtuBytes: mtu },
    {
      kind: 'vxlan',
      name: 'flannel.1',
      mtuBytes: mtu,
      mac: macAddr,
      settings: {
        vni: id,
        underlay: 'eth0',
        local: addr('192.168.77.1'),
        port: undefined,
        learning: false,
        gbp: false,
      },
    },
  ]),
  addresses: fc.uniqueArray(address, {
    maxLength: 5,
    selector: (a) => `${a.link} ${a.addr} ${isIpv4(a.addr) ? a.prefixLength : ''}`,
  }),
  routes: fc.array(route, { maxLength: 6 }),
  neighbours: fc.uniqueArray(neighbour, { maxLength: 3, selector: (entry) => String(entry.addr) }),
  fdb: fc.uniqueArray(fdb, { maxLength: 2, selector: (entry) => entry.mac }),
  sysctls: fc.constant([]),
  networks: fc.constant([prefix('10.244.0.0/16')]),
  staleRoutes: fc.constantFrom('everywhere', 'own-networks', 'own-links'),
});
