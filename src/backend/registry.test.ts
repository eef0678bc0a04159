import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseNetConf } from '../config/net-conf.ts';
import { parseAddr } from '../ip/address.ts';
import { parsePrefix4 } from '../ip/prefix.ts';
import {
  backendKind,
  backendOfLease,
  configuredBackend,
  linksLeftBehind,
  linksOfFormerBackend,
  ownLinksCalled,
} from './registry.ts';

const configured = (backend: object) =>
  configuredBackend(
    parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', Backend: backend }), {
      ...{ source: 'test', validation: 'kube', backends: backendKind },
    }),
  );

describe('Backend.Type', () => {
  it('that nobody knows is refused with flannel’s words and what there is', () => {
    assert.throws(() => configured({ Type: 'Carrier-Pigeon' }), {
      code: 'WEFT_BACKEND_UNKNOWN',
      message: 'Error fetching backend: unknown backend type: carrier-pigeon',
      hint: /^weft supports: vxlan, host-gw, .*extension.*tencent-vpc$/,
    });
  });
});

it('a lease that names no backend is of this host’s own, if that has no name there, else of udp', () => {
  const name = (backendType: string, own: string | undefined) =>
    backendOfLease({ backendType }, own === undefined ? undefined : { backend: { type: own } });
  assert.deepEqual(
    [name('', 'alloc'), name('', 'udp'), name('', 'vxlan'), name('', undefined), name('vxlan', 'alloc')],
    ['alloc', 'udp', 'udp', 'udp', 'vxlan'],
  );
});

describe('links of the configuration before', () => {
  const config = (backend: object, families: object = { EnableIPv6: true, IPv6Network: 'fd10::/48' }) =>
    parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', ...families, Backend: backend }), {
      ...{ source: 'test', validation: 'kube', backends: backendKind },
    });
  const left = (before: ReturnType<typeof config>, now: ReturnType<typeof config>): string[] =>
    linksOfFormerBackend(before, configuredBackend(now), now, ['flannel0']).map(({ name }) => name);

  it('go when the backend is another one, or names its devices otherwise', () => {
    assert.deepEqual(left(config({ Type: 'udp' }), config({ Type: 'vxlan' })), ['flannel0']);
    assert.deepEqual(left(config({ Type: 'vxlan', VNI: 7 }), config({ Type: 'vxlan' })), ['flannel.7', 'flannel-v6.7']);
    assert.deepEqual(left(config({ Type: 'vxlan' }), config({ Type: 'vxlan' })), []);
  });

  it('go when the network does without their family', () => {
    const without6 = (type: string) => config({ Type: type }, {});
    const without4 = (type: string) =>
      config({ Type: type }, { EnableIPv4: false, EnableIPv6: true, IPv6Network: 'fd10::/48' });
    assert.deepEqual(left(config({ Type: 'vxlan' }), without6('vxlan')), ['flannel-v6.1']);
    assert.deepEqual(left(config({ Type: 'wireguard' }), without6('wireguard')), ['flannel-wg-v6']);
    assert.deepEqual(left(config({ Type: 'wireguard' }), without4('wireguard')), ['flannel-wg']);
    assert.deepEqual(left(config({ Type: 'udp' }), without6('udp')), []);
    assert.deepEqual(left(config({ Type: 'wireguard', Mode: 'auto' }), without6('wireguard')), []);
  });
});

describe('links that an agent with an unknown configuration has left', () => {
  const networks = [parsePrefix4('10.244.0.0/16')!];
  const link = (name: string, ...addresses: readonly string[]) => ({
    name,
    addresses: addresses.map((text) => {
      const [address = '', length] = text.split('/');
      return { addr: parseAddr(address)!, prefixLength: Number(length) };
    }),
  });
  const left = (backend: object, ...links: readonly ReturnType<typeof link>[]): string[] => {
    const network = parseNetConf(JSON.stringify({ Network: '10.244.0.0/16', Backend: backend }), {
      ...{ source: 'test', validation: 'kube', backends: backendKind },
    });
    return linksLeftBehind(links, networks, configuredBackend(network), network).map(
      ({ name, kind }) => `${name} ${kind}`,
    );
  };

  it('are known by the names of any backend, whatever its VNI', () => {
    const names = ['flannel.1', 'flannel.42', 'flannel-v6.7', 'flannel.ipip', 'flannel-wg', 'flannel-wg-v6'];
    const links = names.map((name) => link(name, '10.244.1.0/32'));
    assert.deepEqual(left({ Type: 'udp' }, ...links), [
      ...['flannel.1 vxlan', 'flannel.42 vxlan', 'flannel-v6.7 vxlan'],
      ...['flannel.ipip ipip', 'flannel-wg wireguard', 'flannel-wg-v6 wireguard'],
    ]);
    assert.deepEqual(left({ Type: 'vxlan' }, ...links.slice(0, 2)), ['flannel.42 vxlan']);
    assert.deepEqual(left({ Type: 'wireguard' }, ...links.slice(3)), ['flannel.ipip ipip', 'flannel-wg-v6 wireguard']);
  });

  it('are none where others carry the packets: their devices may have these names', () => {
    const links = [link('flannel.1', '10.244.1.0/32'), link('flannel-wg', '10.244.1.0/32')];
    for (const Type of ['extension', 'alloc', 'tencent-vpc']) assert.deepEqual(left({ Type }, ...links), [], Type);
  });

  it('are not those of another network, of another name, or a TUN device, which its alias tells', () => {
    const others = [
      link('flannel.1', '10.9.1.0/32'),
      link('flannel.2'),
      link('flannel.3', '10.244.1.1/24'),
      link('flannel.x', '10.244.1.0/32'),
      link('flannel0', '10.244.1.0/32'),
      link('cni0', '10.244.1.1/24'),
      link('vxlan.calico', '10.244.1.0/32'),
    ];
    assert.deepEqual(left({ Type: 'udp' }, ...others), []);
  });
});

describe('links of agents, by their names alone', () => {
  it('are those of every backend, whatever its VNI, and TUN devices that somebody knows', () => {
    const names = ['lo', 'flannel.1', 'flannel.4096', 'flannel-v6.2', 'flannel-wg', 'flannel0', 'flannel.x', 'vxlan7'];
    assert.deepEqual(
      ownLinksCalled(names, ['flannel0']).map(({ name, kind }) => `${name} ${kind}`),
      ['flannel.1 vxlan', 'flannel.4096 vxlan', 'flannel-v6.2 vxlan', 'flannel-wg wireguard', 'flannel0 tun'],
    );
    assert.deepEqual(ownLinksCalled(['flannel0', 'tun0'], []), []);
  });
});
