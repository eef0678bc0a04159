import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { runChecks } from './check.ts';
import type { HostLink } from './host.ts';
import { type OverlayFacts, type OverlayHost, overlayChecks } from './overlay-checks.ts';

const signal = new AbortController().signal;
const SUBNET_ENV =
  'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
const PATHS = {
  ...{ subnetFile: '/run/flannel/subnet.env', netConfigPath: '', healthzPort: 8081 },
  ...{ cniBinDir: '', cniConfDir: '', cniConfTemplate: '' },
};
const FACTS: OverlayFacts = {
  ...{ external: 'eth0', externalAddresses: { ipv4: '192.168.77.1', ipv6: undefined }, nowMs: () => 100_000 },
  peers: [{ id: '10.244.8.0/24', address: '10.244.8.0', device: 'flannel0' }],
};
const LINKS: readonly HostLink[] = [
  { name: 'eth0', mtuBytes: 1_500, up: true, addresses: ['192.168.77.1/24'] },
  { name: 'flannel0', mtuBytes: 1_472, up: true, addresses: ['10.244.7.0/32'] },
  { name: 'cni0', mtuBytes: 1_472, up: true, addresses: ['10.244.7.1/24'] },
];
const link = (name: string, change: Partial<HostLink>): HostLink[] =>
  LINKS.map((one) => (one.name === name ? { ...one, ...change } : one));

const ENV_OF_BOTH = `${SUBNET_ENV}FLANNEL_IPV6_NETWORK=fd10::/48\nFLANNEL_IPV6_SUBNET=fd10:0:0:7::1/64\n`;

interface State extends Omit<Partial<OverlayHost>, 'links' | 'agent'> {
  readonly answers?: Readonly<Record<string, unknown>>;
  readonly links?: readonly HostLink[];
  readonly off?: string;
  readonly env?: string;
  readonly external?: OverlayFacts['externalAddresses'];
}

/** Names and states of what is wrong on a host on which all is well apart from `state`. */
async function wrong({ answers, links = LINKS, off, env = SUBNET_ENV, external, ...state }: State): Promise<string[]> {
  const all: Readonly<Record<string, unknown>> = {
    '/readiness': { ready: true, parts: [{ part: 'kernel' }] },
    '/self': { store: { name: 'etcd /x', isReachable: true } },
    '/events': { events: [] },
    '/leases': { leases: [{ subnets: ['10.244.8.0/24'], publicAddresses: ['192.168.77.2'], status: 'peer' }] },
    ...answers,
  };
  const host: OverlayHost = {
    readText: async (path) => (path === PATHS.subnetFile ? env : path.includes(`/${off}/`) ? '0\n' : '1\n'),
    links: async () => links,
    agent: async <T>(path: string) => all[path] as T | undefined,
    kernelDifference: async () => [],
    devicesTo: async (addresses) => addresses.map(() => 'flannel0'),
    ...state,
  };
  const facts = external === undefined ? FACTS : { ...FACTS, externalAddresses: external };
  const results = await runChecks(overlayChecks(host, PATHS, facts), 5_000, signal);
  return results.flatMap((result) => {
    if (result.status === 'ok') return [];
    return [
      `${result.status} ${result.name}${result.where === undefined ? '' : ` at ${result.where}`}: ${result.found}`,
    ];
  });
}

describe('the checks of the overlay', () => {
  it('find nothing wrong on a host on which all is well, or that has no containers yet', async () => {
    assert.deepEqual(await wrong({}), []);
    assert.deepEqual(await wrong({ links: LINKS.slice(0, 2) }), []);
  });

  const refused = (subnet: string, reason: string) => ({
    ...{ subnets: [subnet], publicAddresses: ['192.168.77.9'], status: 'refused' },
    reason: `Refusing the lease ${subnet} of 192.168.77.9 [${reason}]`,
  });
  const event = (atMs: number, kind: string) => ({ atMs, kind, subject: '', text: 'Put back: route' });
  const cases: readonly [string, State, RegExp][] = [
    ['no agent', { answers: { '/readiness': undefined } }, /^fail agent: no agent runs here$/],
    [
      'an agent that is not ready',
      { answers: { '/readiness': { ready: false, parts: [{ part: 'kernel', failure: 'EPERM' }] } } },
      /^fail agent: kernel: EPERM$/,
    ],
    [
      'a store that is away',
      { answers: { '/self': { store: { name: 'etcd /x', isReachable: false } } } },
      /^warn store: etcd \/x does not answer/,
    ],
    [
      'why it is away',
      { answers: { '/self': { store: { name: 'etcd /x', isReachable: false, failure: 'ECONNREFUSED' } } } },
      /^warn store: etcd \/x does not answer.*\(ECONNREFUSED\)$/,
    ],
    [
      'the host whose entry is refused',
      { answers: { '/leases': { leases: [refused('10.99.1.0/24', 'outside-network')] } } },
      /^warn lease-entries at 10\.99\.1\.0\/24 on 192\.168\.77\.9: Refusing the lease .* \[outside-network\]$/,
    ],
    [
      'all whose entries are refused, one of them for the own subnet',
      {
        answers: {
          '/leases': { leases: [refused('10.99.1.0/24', 'outside-network'), refused('10.244.7.0/25', 'overlaps-own')] },
        },
      },
      /^fail lease-entries: .*\[outside-network\]; .*\[overlaps-own\]$/,
    ],
    [
      'what was put back lately',
      { answers: { '/events': { events: [event(1, 'kernel-repaired'), event(90_000, 'rules-repaired')] } } },
      /^warn repairs: Put back: route$/,
    ],
    ['an interface that is gone', { links: LINKS.slice(1) }, /^fail external-interface: there is no eth0$/],
    ['an interface that is down', { links: link('eth0', { up: false }) }, /^fail external-interface: eth0 is down$/],
    [
      'an interface without its address',
      { links: link('eth0', { addresses: [] }) },
      /^fail external-interface: eth0 has no IPv4 address, and peers send to 192\.168\.77\.1$/,
    ],
    [
      'an interface without its address of IPv6',
      { external: { ipv4: '192.168.77.1', ipv6: 'fd00::1' } },
      /^fail external-interface: eth0 has no IPv6 address, and peers send to fd00::1$/,
    ],
    [
      'an interface with other addresses, of both families',
      {
        external: { ipv4: '192.168.77.1', ipv6: 'fd00::1' },
        links: link('eth0', { addresses: ['192.168.77.9/24', 'fd00::9/64', 'fd00::8/64'] }),
      },
      /^fail external-interface: eth0 has 192\.168\.77\.9\/24, and peers send to 192\.168\.77\.1; eth0 has fd00::9\/64, fd00::8\/64, and peers send to fd00::1$/,
    ],
    [
      'kernel state that differs',
      { kernelDifference: async () => ['lacks: route', 'b', 'c', 'd', 'e'] },
      /^fail kernel-state: .*lacks: route; b; c; d; and 1 more$/,
    ],
    [
      'a route of somebody else',
      { devicesTo: async () => ['eth0'] },
      /^fail routes-in-use: 10\.244\.8\.0\/24: eth0, not flannel0$/,
    ],
    ['a bridge that is down', { links: link('cni0', { up: false }) }, /^fail bridge: cni0 is down/],
    [
      'a bridge of another subnet',
      { links: link('cni0', { addresses: ['10.9.0.1/24'] }) },
      /^fail bridge: cni0 has 10\.9\.0\.1\/24, and subnet\.env needs 10\.244\.7\.1\/24$/,
    ],
    [
      'a bridge that has lost its address of IPv6, as by being set down',
      { env: ENV_OF_BOTH },
      /^fail bridge: cni0 has no IPv6 address, and subnet\.env needs fd10:0:0:7::1\/64$/,
    ],
    [
      'a bridge of another subnet of IPv6, where there is no IPv4',
      {
        env: ENV_OF_BOTH.replace(/FLANNEL_(NETWORK|SUBNET)=.*\n/g, ''),
        links: link('cni0', { addresses: ['fd10:0:0:3::1/64'] }),
      },
      /^fail bridge: cni0 has fd10:0:0:3::1\/64, and subnet\.env needs fd10:0:0:7::1\/64$/,
    ],
    [
      'a bridge with too long an MTU',
      { links: link('cni0', { mtuBytes: 1_500 }) },
      /^warn bridge: the MTU of cni0 is 1500, and the overlay takes 1472/,
    ],
    ['a device that forwards nothing', { off: 'flannel0' }, /^fail forwarding: off: flannel0$/],
    [
      'IPv6 that is not forwarded',
      {
        ...{ off: 'all', env: ENV_OF_BOTH },
        links: link('cni0', { addresses: ['10.244.7.1/24', 'fd10:0:0:7::1/64'] }),
      },
      /^fail forwarding: net\.ipv6\.conf\.all\.forwarding is 0/,
    ],
  ];
  it('name the clock beside the store that is away, where its certificate is not valid by it', async () => {
    const failure = 'reading from etcd at https://x: Last error: certificate is not yet valid';
    const self = { atMs: 1_000, store: { name: 'etcd /x', isReachable: false, failure } };
    const [store, clock, ...more] = await wrong({ answers: { '/self': self } });
    assert.match(store!, /^warn store: etcd/);
    assert.match(clock!, /^warn clock: this host’s clock says 1970-01-01T00:00:01\.000Z, and the certificate/);
    assert.deepEqual(more, []);
  });

  for (const [what, state, expected] of cases) {
    it(`name ${what}, and that alone`, async () => {
      const found = await wrong(state);
      assert.equal(found.length, 1, found.join('\n'));
      assert.match(found[0]!, expected);
    });
  }

  it('say that an agent hangs which does not answer', async () => {
    const agent = async () => {
      throw new Error('the agent does not answer within 3 s');
    };
    const found = await wrong({ answers: {}, ...({ agent } as object) });
    assert.match(found[0]!, /^fail agent: the agent does not answer within 3 s$/);
  });
});
