import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { agentChecks } from './agent-checks.ts';
import { type Check, type CheckResult, ok, runChecks } from './check.ts';
import { cniChecks } from './cni-checks.ts';
import type { DoctorHost, DoctorPaths } from './host.ts';
import { kernelChecks } from './kernel-checks.ts';
import { subnetEnvChecks } from './subnet-env-checks.ts';
import { fastPathCheck, tunChecks } from './tun-checks.ts';

const SUBNET_ENV =
  'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n';
const ENV_OF_IPV6 =
  'FLANNEL_IPV6_NETWORK=fd10::/48\nFLANNEL_IPV6_SUBNET=fd10:0:0:7::1/64\nFLANNEL_MTU=1452\nFLANNEL_IPMASQ=true\n';
const NET_CONF_OF_IPV6 = '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"udp"}}';
const CONF = '{"name":"cbr0","weft":{"plugins":["bridge"]},"plugins":[{"type":"bridge","ipam":{"type":"host-local"}}]}';
const signal = new AbortController().signal;

let folder: string;
let paths: DoctorPaths;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'weft-doctor-'));
  paths = {
    subnetFile: '/run/flannel/subnet.env',
    netConfigPath: '/etc/kube-flannel/net-conf.json',
    cniConfTemplate: '/etc/kube-flannel/cni-conf.json',
    healthzPort: 8081,
    cniBinDir: join(folder, 'bin'),
    cniConfDir: join(folder, 'net.d'),
  };
  for (const path of [paths.cniBinDir, paths.cniConfDir]) mkdirSync(path);
  for (const name of ['bridge', 'host-local', 'loopback']) {
    writeFileSync(join(paths.cniBinDir, name), '#!/bin/sh\n', { mode: 0o755 });
  }
});
after(() => rmSync(folder, { recursive: true }));

interface HostState extends Omit<Partial<DoctorHost>, 'readText'> {
  readonly files?: Readonly<Record<string, string | undefined>>;
  /** Programs that are not installed. */
  readonly without?: readonly string[];
}

/** A host on which all is well, apart from `state`. */
function hostWith({ files, without = [], ...state }: HostState = {}): DoctorHost {
  const all: Readonly<Record<string, string | undefined>> = {
    '/proc/sys/net/bridge/bridge-nf-call-iptables': '1\n',
    '/proc/sys/net/bridge/bridge-nf-call-ip6tables': '1\n',
    '/proc/sys/net/ipv4/ip_forward': '1\n',
    '/proc/sys/net/ipv6/conf/all/forwarding': '1\n',
    '/run/flannel/subnet.env': SUBNET_ENV,
    '/etc/kube-flannel/net-conf.json': '{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}',
    [join(paths.cniConfDir, '10-flannel.conflist')]: CONF,
    ...files,
  };
  const existing = new Set([paths.cniBinDir, paths.cniConfDir]);
  for (const name of ['bridge', 'host-local', 'loopback']) existing.add(join(paths.cniBinDir, name));
  return {
    inPod: false,
    readText: async (path) => all[path],
    modifiedAt: async (path) => (existing.has(path) || all[path] !== undefined ? new Date(0) : undefined),
    openError: async () => undefined,
    hasCapability: () => true,
    fastPathObstacle: () => undefined,
    links: async () => [
      { name: 'eth0', mtuBytes: 1500, up: true, addresses: ['192.168.77.1/24'] },
      { name: 'flannel0', mtuBytes: 1472, up: true, addresses: ['10.244.7.0/32', 'fd10:0:0:7::/128'] },
      { name: 'cni0', mtuBytes: 1472, up: true, addresses: ['10.244.7.1/24', 'fd10:0:0:7::1/64'] },
    ],
    routes: async () => [
      { dst: 'default', dev: 'eth0' },
      { dst: '10.244.0.0/16', dev: 'flannel0', protocol: 241 },
      { dst: 'fd10::/48', dev: 'flannel0', protocol: 241 },
    ],
    versionOf: async ({ name }) => (without.includes(name) ? undefined : `${name} v1.8.9`),
    firewall: async () => ({ nft: [], legacy: { ipv4: undefined, ipv6: undefined } }),
    ipsecPolicies: () => 0,
    udpPortHolders: () => ['pid 7 (flanneld)'],
    get: async (_, path) => ({ status: 200, body: path === '/readyz' ? 'flanneld is ready' : '' }),
    ...state,
  };
}

const checksOf = (host: DoctorHost): Check[] => [
  ...tunChecks(host, paths),
  fastPathCheck(host, 'optional'),
  ...kernelChecks(host, paths),
  ...subnetEnvChecks(host, paths),
  ...agentChecks(host, paths),
  ...cniChecks(host, paths),
];
/** What is not as it should be. */
async function complaints(state: HostState): Promise<CheckResult[]> {
  const results = await runChecks(checksOf(hostWith(state)), 5_000, signal);
  return results.filter(({ status }) => status !== 'ok');
}

describe('the doctor', () => {
  it('has no complaint about a host on which all is well, and names each check once', async () => {
    assert.deepEqual(await complaints({}), []);
    const names = checksOf(hostWith()).map(({ name }) => name);
    assert.equal(new Set(names).size, names.length);
    for (const name of names) assert.match(name, /^[a-z]+(-[a-z]+)*$/);
  });

  it('finds nothing wrong with a host without a fast path, unless one is wanted, and says why there is none', async () => {
    const host = hostWith({ fastPathObstacle: () => 'failed to make the BPF map: EPERM' });
    const [free, wanted] = await runChecks(
      [fastPathCheck(host, 'optional'), fastPathCheck(host, 'required')],
      5_000,
      signal,
    );
    assert.deepEqual([free?.status, wanted?.status], ['ok', 'fail']);
    for (const result of [free, wanted]) assert.match(result!.found, /EPERM/);
  });

  const link = (name: string, mtuBytes: number, address: string) => ({
    name,
    mtuBytes,
    up: true,
    addresses: [address],
  });
  const healthy: readonly [string, string, HostState][] = [
    [
      'vxlan',
      '{"Type":"vxlan","VNI":7}',
      {
        links: async () => [link('eth0', 1500, '192.168.77.1/24'), link('flannel.7', 1450, '10.244.7.0/32')],
        routes: async () => [
          { dst: 'default', dev: 'eth0' },
          { dst: '10.244.3.0/24', dev: 'flannel.7' },
        ],
      },
    ],
    ['host-gw', '{"Type":"host-gw"}', { links: async () => [link('eth0', 1500, '192.168.77.1/24')] }],
    ['alloc', '{"Type":"alloc"}', { links: async () => [] }],
  ];
  for (const [type, backend, state] of healthy) {
    it(`asks of a host with ${type} nothing that only another backend needs`, async () => {
      const files = {
        '/run/flannel/subnet.env': SUBNET_ENV.replace('1472', '1450'),
        '/etc/kube-flannel/net-conf.json': `{"Network":"10.244.0.0/16","Backend":${backend}}`,
      };
      const without = { openError: async () => 'ENOENT', hasCapability: (name: string) => name === 'CAP_NET_ADMIN' };
      assert.deepEqual(await complaints({ ...state, ...without, files, udpPortHolders: () => [] }), []);
    });
  }

  it('knows the backend by its device where net-conf.json is in the store', async () => {
    const files = { '/etc/kube-flannel/net-conf.json': undefined };
    const links = async () => [link('eth0', 1500, '192.168.77.1/24'), link('flannel.1', 1400, '10.244.7.0/32')];
    const found = await complaints({ files, links });
    assert.deepEqual(
      found.map(({ name, status }) => [name, status]),
      [
        ['backend-links', 'fail'],
        ['mtu', 'warn'],
      ],
    );
  });

  const conf = () => join(paths.cniConfDir, '10-flannel.conflist');
  type Case = readonly [string, () => HostState, readonly (readonly [string, string, RegExp])[]];
  const cases: readonly Case[] = [
    [
      'IPsec policies, round which the fast path would go',
      () => ({ ipsecPolicies: () => 3 }),
      [['ipsec', 'warn', /3 IPsec policies.*fast path/]],
    ],
    [
      'another firewall that drops what is forwarded',
      () => ({ firewall: async () => ({ nft: [], legacy: { ipv4: '-P FORWARD DROP\n', ipv6: undefined } }) }),
      [
        [
          'forward-drops',
          'fail',
          /FORWARD of iptables-legacy.*iptables-legacy -I FORWARD -s 10\.244\.0\.0\/16 -j ACCEPT/,
        ],
      ],
    ],
    [
      'another firewall that drops what is forwarded of IPv6',
      () => ({
        firewall: async () => ({ nft: [], legacy: { ipv4: undefined, ipv6: '-P FORWARD DROP\n' } }),
        files: {
          '/run/flannel/subnet.env': `${SUBNET_ENV}${ENV_OF_IPV6}`,
        },
      }),
      [['forward-drops', 'fail', /FORWARD of ip6tables-legacy.*ip6tables-legacy -I FORWARD -s fd10::\/48 -j ACCEPT/]],
    ],
    [
      'no TUN device, in a pod',
      () => ({ inPod: true, openError: async () => 'ENOENT' }),
      [['tun-device', 'fail', /volumes: `- \{name: dev-net, hostPath: \{path: \/dev\/net\}\}`.*mountPath: \/dev\/net/]],
    ],
    [
      'a TUN device that the container runtime does not allow',
      () => ({ inPod: true, openError: async () => 'EPERM' }),
      [['tun-device', 'fail', /runc 1\.2\.0 to 1\.2\.3.*`privileged: true`/]],
    ],
    [
      'entries of the store that are not believed',
      () => ({
        get: async (_port, path) => ({
          status: 200,
          body:
            path === '/metrics'
              ? 'weft_refused_leases{reason="outside-network"} 2\n'
              : path === '/readyz'
                ? 'flanneld is ready'
                : '',
        }),
      }),
      [['lease-entries', 'warn', /2 outside-network.*Refusing the lease/]],
    ],
    [
      'another host with the subnet of this one',
      () => ({
        get: async (_port, path) => ({
          status: 200,
          body:
            path === '/metrics'
              ? 'weft_refused_leases{reason="overlaps-own"} 1\n'
              : path === '/readyz'
                ? 'flanneld is ready'
                : '',
        }),
      }),
      [['lease-entries', 'fail', /1 overlaps-own/]],
    ],
    [
      'a network configuration that has changed since the agent started',
      () => ({
        get: async (_port, path) => ({
          status: 200,
          body:
            path === '/metrics' ? 'weft_network_config_outdated 1\n' : path === '/readyz' ? 'flanneld is ready' : '',
        }),
      }),
      [['network-config-in-use', 'warn', /has changed since the agent started.*Restart the agent/]],
    ],
    [
      'peers whose agents are gone for good',
      () => ({
        get: async (_port, path) => ({
          status: 200,
          body:
            path === '/metrics'
              ? 'weft_fast_path_peers_without_agent 2\n'
              : path === '/readyz'
                ? 'flanneld is ready'
                : '',
        }),
      }),
      [['peers-without-agent', 'warn', /^2 peers without an agent.*weft cleanup/]],
    ],
    [
      'no capabilities',
      () => ({ hasCapability: () => false }),
      [
        ['cap-net-admin', 'fail', /--cap-add NET_ADMIN/],
        ['cap-net-raw', 'warn', /NET_RAW/],
      ],
    ],
    [
      'br_netfilter not loaded',
      () => ({ files: { '/proc/sys/net/bridge/bridge-nf-call-iptables': undefined } }),
      [['br-netfilter', 'fail', /modprobe br_netfilter/]],
    ],
    [
      'kernel settings that are off',
      () => ({
        files: { '/proc/sys/net/bridge/bridge-nf-call-iptables': '0\n', '/proc/sys/net/ipv4/ip_forward': '0\n' },
      }),
      [
        ['br-netfilter', 'warn', /sysctl -w net\.bridge\.bridge-nf-call-iptables=1/],
        ['ip-forward', 'warn', /sysctl -w net\.ipv4\.ip_forward=1/],
      ],
    ],
    [
      'kernel settings of IPv6 that are off, in a network of IPv6 alone',
      () => ({
        files: {
          '/run/flannel/subnet.env': ENV_OF_IPV6,
          '/etc/kube-flannel/net-conf.json': NET_CONF_OF_IPV6,
          '/proc/sys/net/ipv4/ip_forward': '0\n',
          '/proc/sys/net/bridge/bridge-nf-call-iptables': undefined,
          '/proc/sys/net/ipv6/conf/all/forwarding': '0\n',
          '/proc/sys/net/bridge/bridge-nf-call-ip6tables': '0\n',
        },
      }),
      [
        ['br-netfilter', 'warn', /sysctl -w net\.bridge\.bridge-nf-call-ip6tables=1/],
        [
          'ip-forward',
          'warn',
          /^net\.ipv6\.conf\.all\.forwarding is 0: .* Run sysctl -w net\.ipv6\.conf\.all\.forwarding=1\./,
        ],
      ],
    ],
    [
      'a device without its address and its route, in a network of IPv6 alone',
      () => ({
        files: {
          '/run/flannel/subnet.env': ENV_OF_IPV6,
          '/etc/kube-flannel/net-conf.json': NET_CONF_OF_IPV6,
        },
        links: async () => [link('eth0', 1500, '192.168.77.1/24'), link('flannel0', 1452, '10.244.7.0/32')],
        routes: async () => [{ dst: 'default', dev: 'eth0' }],
      }),
      [
        ['backend-links', 'fail', /flannel0 does not have fd10:0:0:7::(?!\d)/],
        ['routes', 'fail', /no route to fd10::\/48 by flannel0/],
      ],
    ],
    [
      'a tunnel of IPv6 that is gone, of one for each family',
      () => ({
        files: {
          '/run/flannel/subnet.env': `${SUBNET_ENV}${ENV_OF_IPV6}`.replaceAll(/MTU=\d+/g, 'MTU=1420'),
          '/etc/kube-flannel/net-conf.json':
            '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"wireguard"}}',
        },
        links: async () => [link('eth0', 1500, '192.168.77.1/24'), link('flannel-wg', 1420, '10.244.7.0/32')],
        routes: async () => [
          { dst: 'default', dev: 'eth0' },
          { dst: '10.244.0.0/16', dev: 'flannel-wg' },
        ],
      }),
      [
        ['backend-links', 'fail', /^there is no flannel-wg-v6 /],
        ['routes', 'fail', /^no route to fd10::\/48 by flannel-wg-v6 /],
      ],
    ],
    [
      'one family that is not forwarded, of both',
      () => ({
        files: {
          '/run/flannel/subnet.env': `${SUBNET_ENV}${ENV_OF_IPV6}`,
          '/proc/sys/net/ipv6/conf/all/forwarding': '0\n',
        },
      }),
      [
        [
          'ip-forward',
          'warn',
          /^net\.ipv6\.conf\.all\.forwarding is 0: .* Run sysctl -w net\.ipv6\.conf\.all\.forwarding=1\./,
        ],
      ],
    ],
    [
      'no iptables',
      () => ({ without: ['iptables', 'iptables-restore'] }),
      [['firewall-tools', 'fail', /not installed: iptables, iptables-restore.*apt-get install iptables/]],
    ],
    [
      // Whose own ports charon has.
      'no charon, with the backend ipsec',
      () => ({
        without: ['charon'],
        udpPortHolders: (port: number) => (port === 500 ? ['pid 9 (charon)'] : ['pid 9 (charon)', 'pid 7 (socat)']),
        files: {
          '/etc/kube-flannel/net-conf.json': `{"Network":"10.244.0.0/16","Backend":{"Type":"ipsec","PSK":"${'k'.repeat(96)}"}}`,
        },
      }),
      [
        ['backend-tools', 'fail', /not installed: charon.*apt-get install strongswan-charon strongswan-swanctl/],
        ['mtu', 'warn', /1423/],
        ['udp-ports', 'fail', /^UDP 4500 is taken by pid 7 \(socat\)/],
      ],
    ],
    [
      'no wg, with the backend wireguard',
      () => ({
        without: ['wg'],
        files: {
          '/etc/kube-flannel/net-conf.json': '{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}',
        },
      }),
      [
        ['backend-tools', 'fail', /not installed: wg.*apt-get install wireguard-tools/],
        ['backend-links', 'fail', /there is no flannel-wg/],
        ['routes', 'fail', /flannel-wg/],
        // subnet.env is that of another backend.
        ['mtu', 'warn', /1420/],
      ],
    ],
    [
      'no nft, where it is needed, and no br_netfilter, where it is not',
      () => ({
        without: ['nft'],
        files: {
          '/proc/sys/net/bridge/bridge-nf-call-iptables': undefined,
          '/etc/kube-flannel/net-conf.json':
            '{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"udp"}}',
        },
      }),
      [['firewall-tools', 'fail', /apt-get install nftables/]],
    ],
    [
      'a device and routes that are not as subnet.env says',
      () => ({
        links: async () => [link('eth0', 1500, '192.168.77.1/24'), link('flannel0', 1400, '10.244.9.0/32')],
        routes: async () => [{ dst: 'default', dev: 'eth0' }],
      }),
      [
        [
          'backend-links',
          'fail',
          /MTU of flannel0 is 1400, subnet\.env says 1472; flannel0 does not have 10\.244\.7\.0/,
        ],
        ['routes', 'fail', /no route to 10\.244\.0\.0\/16 by flannel0/],
      ],
    ],
    [
      'devices of another backend: one is missing, the other is not as it should be',
      () => ({
        files: {
          '/etc/kube-flannel/net-conf.json':
            '{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"vxlan"}}',
        },
        openError: async () => 'ENOENT',
        links: async () => [
          link('eth0', 1500, '192.168.77.1/24'),
          { ...link('flannel.1', 1400, '10.244.7.0/32'), up: false },
        ],
      }),
      [
        [
          'backend-links',
          'fail',
          /flannel\.1 is down; the MTU of flannel\.1 is 1400, subnet\.env says 1472; there is no flannel-v6\.1/,
        ],
        ['mtu', 'warn', /pods use 1472, and eth0 has room for 1430/],
      ],
    ],
    [
      'pods whose packets do not fit behind the headers of IPv6, without which the network is not',
      () => ({
        files: {
          '/etc/kube-flannel/net-conf.json':
            '{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd10::/48","Backend":{"Type":"udp"}}',
          '/run/flannel/subnet.env':
            'FLANNEL_IPV6_NETWORK=fd10::/48\nFLANNEL_IPV6_SUBNET=fd10:0:0:7::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n',
        },
      }),
      [['mtu', 'warn', /pods use 1472, and eth0 has room for 1452/]],
    ],
    [
      'a backend that weft does not have',
      () => ({
        files: { '/etc/kube-flannel/net-conf.json': '{"Network":"10.244.0.0/16","Backend":{"Type":"carrier-pigeon"}}' },
      }),
      [['network-config', 'fail', /unknown backend type: carrier-pigeon.*weft supports: vxlan, /]],
    ],
    [
      'the device of another network, and that of this one',
      () => ({
        links: async () => [
          link('eth0', 1500, '192.168.77.1/24'),
          { ...link('flannel0', 1400, '10.9.7.0/32'), alias: 'weft:10.9.0.0/16' },
          { ...link('flannel1', 1300, '10.244.7.0/32'), alias: 'weft:10.244.0.0/16' },
        ],
        routes: async () => [
          { dst: 'default', dev: 'eth0' },
          { dst: '10.244.0.0/16', dev: 'flannel1' },
        ],
      }),
      [['backend-links', 'fail', /^the MTU of flannel1 is 1300, subnet\.env says 1472 /]],
    ],
    [
      'the same in networks of IPv6 alone',
      () => ({
        files: {
          '/etc/kube-flannel/net-conf.json': NET_CONF_OF_IPV6,
          '/run/flannel/subnet.env': ENV_OF_IPV6,
        },
        links: async () => [
          link('eth0', 1500, 'fd00::1/64'),
          { ...link('flannel0', 1400, 'fd09:0:0:7::/128'), alias: 'weft:fd09::/48' },
          { ...link('flannel1', 1300, 'fd10:0:0:7::/128'), alias: 'weft:fd10::/48' },
        ],
        routes: async () => [
          { dst: 'default', dev: 'eth0' },
          { dst: 'fd10::/48', dev: 'flannel1' },
        ],
      }),
      [['backend-links', 'fail', /^the MTU of flannel1 is 1300, subnet\.env says 1452 /]],
    ],
    [
      'routes of others to the pods of other nodes, beside those of its own pods, of the kernel and of other networks',
      () => ({
        routes: async () => [
          { dst: 'default', dev: 'eth0' },
          { dst: '10.244.0.0/16', dev: 'flannel0', protocol: 241 },
          { dst: '10.244.7.0/24', dev: 'cni0', protocol: 2 },
          { dst: '10.244.7.9', dev: 'veth1' },
          { dst: '10.244.5.0/24', dev: 'eth0', via: '192.168.77.5', protocol: 241 },
          { dst: '10.9.0.0/24', dev: 'eth0', via: '192.168.77.5' },
          { dst: '10.244.9.0/24', dev: 'eth0', via: '192.168.77.9' },
          { dst: '10.244.3.4', dev: 'eth1', protocol: 4 },
        ],
      }),
      [
        [
          'peer-routes',
          'warn',
          /: 10\.244\.9\.0\/24 via 192\.168\.77\.9 dev eth0 proto 3; 10\.244\.3\.4 dev eth1 proto 4 .*remove them: ip route delete 10\.244\.9\.0\/24 via 192\.168\.77\.9 dev eth0 proto 3/,
        ],
      ],
    ],
    [
      'an MTU that does not fit, and a bridge of an earlier subnet',
      () => ({
        links: async () => [
          link('eth0', 1450, '192.168.77.1/24'),
          link('flannel0', 1472, '10.244.7.0/32'),
          link('cni0', 1472, '10.244.3.1/24'),
        ],
      }),
      [
        ['mtu', 'warn', /pods use 1472, and eth0 has room for 1422/],
        ['bridge-address', 'fail', /cni0 has 10\.244\.3\.1\/24, .* needs 10\.244\.7\.1\/24.*ip link delete cni0/],
      ],
    ],
    ...(
      [
        [
          'lost, as by being set down',
          ['10.244.7.1/24'],
          [
            'warn',
            /^cni0 has no IPv6 address, .* needs fd10:0:0:7::1\/64.*ip address replace fd10:0:0:7::1\/64 dev cni0/,
          ],
        ],
        [
          'of another subnet, beside which the plugin sets the new one',
          ['10.244.7.1/24', 'fd10:0:0:3::1/64'],
          ['warn', /^cni0 has fd10:0:0:3::1\/64, .* needs fd10:0:0:7::1\/64/],
        ],
        [
          'another one in the same subnet',
          ['10.244.7.1/24', 'fd10:0:0:7::9/64'],
          ['fail', /^cni0 has fd10:0:0:7::9\/64, .* different from fd10:0:0:7::1\/64".*ip link delete cni0/],
        ],
        [
          'not its own, as that of IPv4',
          ['10.244.3.1/24', 'fd10:0:0:3::1/64'],
          ['fail', /^cni0 has 10\.244\.3\.1\/24, .* different from 10\.244\.7\.1\/24"; cni0 has fd10:0:0:3::1\/64, /],
        ],
      ] as const
    ).map(([what, addresses, [status, text]]): Case => {
      const state = (): HostState => ({
        files: { '/run/flannel/subnet.env': SUBNET_ENV + ENV_OF_IPV6.replace(/FLANNEL_MTU.*\n/, '') },
        links: async () => [
          link('eth0', 1500, '192.168.77.1/24'),
          { ...link('flannel0', 1472, '10.244.7.0/32'), addresses: ['10.244.7.0/32', 'fd10:0:0:7::/128'] },
          { ...link('cni0', 1472, ''), addresses },
        ],
      });
      return [`a bridge whose IPv6 address is ${what}`, state, [['bridge-address', status, text]]];
    }),
    [
      'an agent that could not start',
      () => ({
        files: { '/run/flannel/subnet.env': undefined, '/run/flannel/last-error': 'no podCIDR [WEFT_KUBE_NODE]\n' },
        udpPortHolders: () => [],
        get: async () => undefined,
      }),
      [
        ['last-start', 'fail', /^1970-01-01T00:00:00\.000Z no podCIDR \[WEFT_KUBE_NODE\]/],
        ['subnet-env', 'fail', /the file does not exist.*no pod can start/],
        ['health', 'warn', /no process listens on 127\.0\.0\.1:8081/],
      ],
    ],
    [
      'an agent that is not ready, and a stranger on its port',
      () => ({
        udpPortHolders: () => ['pid 9 (socat)'],
        get: async () => ({ status: 503, body: 'flanneld is not ready: waiting for a subnet lease' }),
      }),
      [
        ['udp-ports', 'fail', /UDP 8285 is taken by pid 9 \(socat\)/],
        ['health', 'fail', /503 flanneld is not ready: waiting for a subnet lease/],
      ],
    ],
    [
      'a container with a network of its own',
      () => ({
        files: {
          '/proc/sys/kernel/hostname': '0123456789ab\n',
          '/proc/self/mountinfo': `1 2 8:1 /docker/containers/0123456789ab${'0'.repeat(52)}/hosts /etc/hosts rw - ext4 a rw\n`,
        },
      }),
      [['host-network', 'warn', /^This container has its own network.*--network host/]],
    ],
    [
      'a device whose queue was full',
      () => ({
        files: {
          '/sys/class/net/flannel0/statistics/tx_packets': '9000\n',
          '/sys/class/net/flannel0/statistics/tx_dropped': '1000\n',
          '/sys/class/net/flannel0/statistics/rx_packets': '10000000\n',
          '/sys/class/net/flannel0/statistics/rx_dropped': '5\n',
        },
      }),
      [['queue-drops', 'warn', /^flannel0 tx: 1000 of 10000 Packets arrive/]],
    ],
    [
      'a device of a backend in the kernel that drops',
      () => ({
        files: {
          '/etc/kube-flannel/net-conf.json': '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}',
          '/run/flannel/subnet.env': SUBNET_ENV.replace('1472', '1450'),
          '/sys/class/net/flannel.1/statistics/tx_packets': '9000\n',
          '/sys/class/net/flannel.1/statistics/tx_dropped': '1000\n',
        },
        links: async () => [link('eth0', 1500, '192.168.77.1/24'), link('flannel.1', 1450, '10.244.7.0/32')],
        routes: async () => [
          { dst: 'default', dev: 'eth0' },
          { dst: '10.244.3.0/24', dev: 'flannel.1' },
        ],
      }),
      [['queue-drops', 'warn', /^flannel\.1 tx: 1000 of 10000 The device of the backend.*weft trace --drops/]],
    ],
    [
      'a fresh device that has dropped multicast of the kernel',
      () => ({
        files: {
          '/sys/class/net/flannel0/statistics/tx_packets': '0\n',
          '/sys/class/net/flannel0/statistics/tx_dropped': '11\n',
        },
      }),
      [],
    ],
    [
      'a sender that is refused',
      () => ({
        get: async (_port, path) => ({
          status: 200,
          body: path === '/refusals' ? 'Dropped 3 packets from 203.0.113.9\n' : '',
        }),
      }),
      [['refused-senders', 'warn', /Dropped 3 packets from 203\.0\.113\.9/]],
    ],
    [
      'a peer that the backend cannot reach',
      () => ({
        get: async (_port, path) => ({
          status: 200,
          body:
            path === '/skipped-peers'
              ? 'Cannot reach 10.244.9.0/24: its address 203.0.113.9 is not on the link.\n'
              : '',
        }),
      }),
      [['skipped-peers', 'warn', /^Cannot reach 10\.244\.9\.0\/24: .* on the link\. .*--iface/]],
    ],
    [
      'files that cannot be used',
      () => ({
        files: {
          '/run/flannel/subnet.env': 'FLANNEL_MTU=1\n',
          '/etc/kube-flannel/net-conf.json': '{"Network":"10.244.0.0"}',
          [conf()]: '{"name":"cbr0"}',
        },
      }),
      [
        ['network-config', 'fail', /Network/],
        ['subnet-env', 'fail', /is missing FLANNEL_NETWORK/],
        ['cni-plugins', 'fail', /the check failed: cannot use the CNI configuration/],
        ['cni-conf', 'fail', /plugins: want a list/],
      ],
    ],
    [
      'a misspelt key',
      () => ({ files: { '/etc/kube-flannel/net-conf.json': '{"Network":"10.244.0.0/16","Bakcend":{"Type":"udp"}}' } }),
      [['network-config', 'warn', /ignored keys: .*Bakcend/]],
    ],
    [
      'plugins that are missing',
      () => ({ files: { [conf()]: '{"name":"cbr0","plugins":[{"type":"flannel"},{"type":"my-own"}]}' } }),
      [['cni-plugins', 'fail', /bin\/flannel does not exist\. .*bin\/my-own does not exist\. .*weft install-cni/]],
    ],
    [
      'no configuration yet',
      () => ({ files: { [conf()]: undefined } }),
      [
        ['cni-plugins', 'fail', /portmap does not exist/],
        ['cni-conf', 'warn', /kubelet reports the node as not ready/],
      ],
    ],
  ];
  for (const [title, state, expected] of cases) {
    it(`says what is wrong and what to do: ${title}`, async () => {
      const found = await complaints(state());
      assert.deepEqual(
        found.map(({ name, status }) => [name, status]),
        expected.map(([name, status]) => [name, status]),
      );
      found.forEach((result, index) => {
        assert.ok(result.status !== 'ok');
        assert.match(`${result.found} ${result.remedy}`, expected[index]![2]);
      });
    });
  }

  it('looks for a program of the backend where distributions put it', async () => {
    const asked: string[] = [];
    const [tools] = (
      await complaints({
        files: {
          '/etc/kube-flannel/net-conf.json': `{"Network":"10.244.0.0/16","Backend":{"Type":"ipsec","PSK":"${'k'.repeat(96)}"}}`,
        },
        versionOf: async ({ name, folders = [] }) => {
          asked.push(...folders.map((folder) => `${folder}/${name}`));
          return 'v1';
        },
      })
    ).filter(({ name }) => name === 'backend-tools');
    assert.equal(tools, undefined);
    assert.ok(asked.includes('/usr/lib/ipsec/charon'));
  });

  it('names configurations that a runtime takes instead', async () => {
    const other = join(paths.cniConfDir, '10-containerd-net.conflist');
    writeFileSync(other, '{}');
    try {
      const [result, ...rest] = await complaints({});
      assert.deepEqual(
        [result?.name, result?.status, result?.found, rest],
        ['cni-conf-order', 'fail', '10-containerd-net.conflist', []],
      );
      assert.deepEqual(await complaints({ files: { [other]: '{"type":"multus","delegates":[]}' } }), []);
    } finally {
      rmSync(other);
    }
  });

  it('hides no result when a check throws or never ends', async () => {
    const check = (name: string, run: Check['run']): Check => ({ name, looksAt: name, run });
    const results = await runChecks(
      [
        check('throws', () => Promise.reject(new Error('no such thing'))),
        check('hangs', () => new Promise(() => {})),
        check('fine', async () => ok('as it should be')),
      ],
      50,
      signal,
    );
    assert.deepEqual(
      results.map(({ name, status, found }) => [name, status, found]),
      [
        ['throws', 'fail', 'the check failed: no such thing'],
        ['hangs', 'fail', 'the check failed: no answer within 50 ms'],
        ['fine', 'ok', 'as it should be'],
      ],
    );
    await assert.rejects(
      runChecks([check('hangs', () => new Promise(() => {}))], 5_000, AbortSignal.abort(new Error('stopped'))),
      /stopped/,
    );
  });
});
