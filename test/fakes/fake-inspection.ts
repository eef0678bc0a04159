import * as v from 'valibot';
import type { Inspection } from '../../src/api/inspection.ts';
import { type Peer, PeersSchema, type Self, type Traffic } from '../../src/api/schema.ts';
import { EventRing } from '../../src/events/event-ring.ts';

const AT_MS = 1_764_374_400_000;

const traffic = (packets: number): Traffic => ({
  packets,
  bytes: packets * 1_400,
  drops: packets > 10 ? { 'too-big': 2 } : {},
});

/** An agent with three peers, for the API and its readers. */
export class FakeInspection implements Inspection {
  readonly startedAtMs: number = AT_MS;
  readonly events: EventRing = new EventRing(100);
  list: Peer[] = [
    {
      ...{ id: '10.244.2.0/24', subnets: ['10.244.2.0/24'], publicAddresses: ['192.0.2.2'], holder: 'worker-2' },
      ...{ backendType: 'udp', path: 'fast-path', device: 'flannel0', tx: traffic(12), rx: traffic(9) },
      ...{ lastSeenAtMs: AT_MS, probe: { measuredAtMs: AT_MS, rttMs: 0.4, lossRatio: 0, pathMtuBytes: 1_472 } },
    },
    {
      ...{ id: '10.244.3.0/24&fd00:3::/64', subnets: ['10.244.3.0/24', 'fd00:3::/64'], backendType: 'vxlan' },
      ...{ publicAddresses: ['192.0.2.3', '2001:db8::3'], path: 'vxlan', device: 'flannel.1' },
    },
    {
      ...{ id: '10.244.4.0/24', subnets: ['10.244.4.0/24'], publicAddresses: ['198.51.100.4'], backendType: 'host-gw' },
      ...{ path: 'skipped', reason: 'Cannot reach 10.244.4.0/24: its address is not on the link of eth0' },
    },
  ];
  own: Self = {
    ...{ apiVersion: 'v1', atMs: AT_MS, host: 'node-1', node: 'worker-1', version: '0.1.0', pid: 4_711 },
    ...{ startedAtMs: AT_MS, ready: true, backendType: 'udp', networks: ['10.244.0.0/16'] },
    lease: { subnets: ['10.244.1.0/24'], publicAddresses: ['192.0.2.1'], isHeld: true },
    external: { name: 'eth0', addresses: ['192.0.2.1'], mtuBytes: 1_500 },
    store: {
      ...{ manager: 'etcd', name: 'etcd /coreos.com/network', isReachable: true, errors: 0, unreadableEntries: 0 },
      ...{ lastAnswerAtMs: AT_MS, isConfigOutdated: false },
    },
    dataPath: {
      ...{ kind: 'forwarder', isRunning: true, mtuBytes: 1_472, restarts: 0, queueDrops: { 'tun-queue': 1 } },
      hostDrops: { 'filtered-in': 2 },
      hostDrops6: { 'filtered-out': 1 },
      fastPath: { isOpen: true, text: 'Packets take the fast path in the kernel', peersAlone: 0 },
      nobody: { tx: traffic(0), rx: traffic(0) },
    },
    totals: { tx: traffic(12), rx: traffic(9) },
    peers: { total: 3, skipped: 1, refusedEntries: 1 },
    process: { cpuSeconds: 1.5, rssBytes: 60 << 20, heapBytes: 20 << 20 },
    newestEventId: 0,
    droppedLogLines: 0,
  };
  failures: ReturnType<Inspection['readiness']>['parts'] = [{ part: 'kernel' }, { part: 'rules' }];

  self(): Self {
    return this.own;
  }

  peers(): ReturnType<Inspection['peers']> {
    const self = v.parse(PeersSchema.entries.self, this.own);
    return { atMs: AT_MS, total: this.list.length, peers: this.list, self };
  }

  leases(): ReturnType<Inspection['leases']> {
    const lease = { subnets: ['10.244.2.0/24'], publicAddresses: ['192.0.2.2'], backendType: 'udp' };
    return {
      atMs: AT_MS,
      leases: [
        { ...lease, subnets: ['10.244.1.0/24'], publicAddresses: ['192.0.2.1'], status: 'own', expiresAtMs: AT_MS },
        { ...lease, status: 'peer', holder: 'worker-2', since: 17 },
        { ...lease, status: 'refused', reason: 'Refusing the lease: its subnet lies outside the network' },
      ],
    };
  }

  readiness(): ReturnType<Inspection['readiness']> {
    return { atMs: AT_MS, ready: this.own.ready, parts: this.failures };
  }

  config(): ReturnType<Inspection['config']> {
    return { options: { subnetMgr: 'etcd' }, network: { Network: '10.244.0.0/16', Backend: { Type: 'udp' } } };
  }

  async state(limit: number): ReturnType<Inspection['state']> {
    const route = '10.244.0.0/16 dev flannel0';
    return {
      ...{ atMs: AT_MS, isConverged: false, omitted: 0, problems: [], runs: 3, repairs: { 'route-add': 1 } },
      entries: [{ type: 'route' as const, key: route, wanted: route, status: 'missing' as const }].slice(0, limit),
      difference: [`add route ${route}`],
    };
  }

  async rules(): ReturnType<Inspection['rules']> {
    const lines = ['-A FLANNEL-POSTRTG -s 10.244.0.0/16 -j MASQUERADE'];
    return { atMs: AT_MS, manager: 'iptables', lines, checks: 7, failures: 0, repairs: { missing: 1 } };
  }

  async doctor(): ReturnType<Inspection['doctor']> {
    const checks = [
      { name: 'tun-device', looksAt: '/dev/net/tun can be opened', status: 'ok' as const, found: 'yes' },
      {
        ...{ name: 'ip-forward', looksAt: '/proc/sys/net/ipv4/ip_forward', status: 'warn' as const, found: 'disabled' },
        remedy: 'Run sysctl -w net.ipv4.ip_forward=1.',
      },
    ];
    return { atMs: AT_MS, checks };
  }
}
