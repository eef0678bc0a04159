import type { PathResult } from '../probe/probe-path.ts';
import type { DirectionFigures, MetricsSnapshot, PacketFigures } from './snapshot.ts';

/** One value of a metric; `labels` has exactly the keys that its definition names. */
export interface Sample {
  readonly value: number;
  readonly labels: Readonly<Record<string, string>>;
}

export interface MetricDefinition {
  readonly name: string;
  readonly type: 'counter' | 'gauge';
  readonly help: string;
  readonly labels: readonly string[];
  /** Pure; yields nothing when the snapshot has no such part. */
  readonly read: (snapshot: MetricsSnapshot) => Iterable<Sample>;
}

interface Declaration<L extends string> {
  readonly help: string;
  readonly labels?: readonly L[];
  readonly read: (snapshot: MetricsSnapshot) => Iterable<readonly [value: number, labels: Readonly<Record<L, string>>]>;
}

function define<L extends string>(
  type: MetricDefinition['type'],
  name: string,
  { help, labels = [], read }: Declaration<L>,
): MetricDefinition {
  return {
    name,
    type,
    help,
    labels,
    *read(snapshot) {
      for (const [value, values] of read(snapshot)) yield { value, labels: values };
    },
  };
}

/** A metric without labels; `undefined` leaves it out. */
function single(
  type: MetricDefinition['type'],
  name: string,
  help: string,
  value: (snapshot: MetricsSnapshot) => number | boolean | undefined,
): MetricDefinition {
  return define<never>(type, name, {
    help,
    *read(snapshot) {
      const read = value(snapshot);
      if (read !== undefined) yield [Number(read), {}];
    },
  });
}

/** A metric with one label whose values are the keys of a record. */
function byKey<L extends string>(
  type: MetricDefinition['type'],
  name: string,
  label: L,
  help: string,
  record: (snapshot: MetricsSnapshot) => Readonly<Partial<Record<string, number>>> | undefined,
): MetricDefinition {
  return define<L>(type, name, {
    help,
    labels: [label],
    *read(snapshot) {
      for (const [key, value] of Object.entries(record(snapshot) ?? {})) {
        yield [value ?? 0, { [label]: key } as Record<L, string>];
      }
    },
  });
}

const DIRECTIONS = ['tx', 'rx'] as const;

/** Name of the peer in series about packets that belong to none. */
const NOBODY = 'none';

function* eachDirection(snapshot: MetricsSnapshot): Iterable<{
  readonly peer: string;
  readonly direction: 'tx' | 'rx';
  readonly figures: PacketFigures;
}> {
  const { forwarder } = snapshot;
  if (forwarder === undefined) return;
  const nobody: DirectionFigures & { peer: string } = { peer: NOBODY, ...forwarder.nobody };
  for (const parties of [[nobody], forwarder.peers]) {
    for (const party of parties) {
      for (const direction of DIRECTIONS) yield { peer: party.peer, direction, figures: party[direction] };
    }
  }
}

/**
 * Peers that nothing was exchanged with have no series: a node of a large cluster talks to few of the others, and a
 * series for each of 5,000 would cost more memory than the rest of the agent.
 */
function packetMetric(name: string, help: string, value: (figures: PacketFigures) => number): MetricDefinition {
  return define('counter', name, {
    help,
    labels: ['peer', 'direction'],
    *read(snapshot) {
      for (const { peer, direction, figures } of eachDirection(snapshot)) {
        if (figures.packets > 0) yield [value(figures), { peer, direction }];
      }
    },
  });
}

/** Of the peers that are probed now, of which there are few in any cluster (probe/watch-list.ts). */
function pathMetric(name: string, help: string, value: (path: PathResult) => number | undefined): MetricDefinition {
  return define('gauge', name, {
    help,
    labels: ['peer'],
    *read({ probes }) {
      for (const path of probes?.paths ?? []) {
        const read = value(path);
        if (read !== undefined) yield [read, { peer: path.id }];
      }
    },
  });
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

/** Every metric of the agent that comes from a snapshot; docs/METRICS.md lists the same (a test compares the two). */
export const METRICS: readonly MetricDefinition[] = [
  define('gauge', 'weft_build_info', {
    help: 'Always 1. The labels show the version, runtime, backend and subnet manager.',
    labels: ['version', 'node_version', 'backend', 'subnet_manager'],
    *read({ build }) {
      const { version, backend, subnetManager } = build;
      yield [1, { version, node_version: process.versions.node, backend, subnet_manager: subnetManager }];
    },
  }),
  single(
    'gauge',
    'weft_network_config_outdated',
    '1 if the network configuration has changed since the agent started. A restart applies the change.',
    ({ configOutdated }) => configOutdated,
  ),
  single('gauge', 'weft_ready', '1 if /readyz returns 200.', ({ ready }) => ready),
  byKey('gauge', 'weft_failure', 'part', '1 while this part prevents the node from being ready.', ({ failures }) =>
    Object.fromEntries(Object.entries(failures).map(([part, fails]) => [part, Number(fails)])),
  ),
  single(
    'counter',
    'weft_log_dropped_lines_total',
    'Log lines that could not be written and were dropped.',
    ({ droppedLogLines }) => droppedLogLines,
  ),

  single('gauge', 'weft_peers', 'Active leases of other hosts.', ({ leases }) => leases?.peers),
  single(
    'gauge',
    'weft_skipped_peers',
    'Peers that the backend cannot reach, or can reach in one address family only. weft doctor and /skipped-peers list them.',
    ({ skippedPeers }) => skippedPeers,
  ),
  byKey(
    'gauge',
    'weft_refused_leases',
    'reason',
    'Rejected entries of the lease store, by reason.',
    ({ leases }) => leases?.refused,
  ),
  byKey(
    'counter',
    'weft_lease_events_total',
    'event',
    'Lease changes received from the store.',
    ({ leases }) => leases?.events,
  ),
  single(
    'gauge',
    'weft_lease_expiry_timestamp_seconds',
    'Unix time at which this host’s lease expires; absent if it never expires.',
    ({ leases }) => seconds(leases?.ownExpiresAtMs),
  ),

  single(
    'gauge',
    'weft_store_reachable',
    '1 if the last request to the lease store succeeded.',
    ({ store }) => store?.reachable,
  ),
  single('counter', 'weft_store_errors_total', 'Failed requests to the lease store.', ({ store }) => store?.errors),
  single(
    'counter',
    'weft_store_unreadable_entries_total',
    'Lease entries that could not be read and were skipped.',
    ({ store }) => store?.unreadableEntries,
  ),
  single(
    'gauge',
    'weft_store_last_success_timestamp_seconds',
    'Unix time of the last answer from the lease store.',
    ({ store }) => seconds(store?.lastSuccessAtMs),
  ),

  single('gauge', 'weft_forwarder_running', '1 if the forwarder is running.', ({ forwarder }) => forwarder?.running),
  single(
    'gauge',
    'weft_fast_path',
    '1 if the fast path in the kernel is open.',
    ({ forwarder }) => forwarder?.fastPath,
  ),
  define<'reason'>('gauge', 'weft_fast_path_obstacle', {
    help: '1 for the reason why the fast path is enabled but closed: ipsec-policy, ipv6-forwarding or unavailable; absent if there is none.',
    labels: ['reason'],
    *read({ forwarder }) {
      const reason = forwarder?.fastPathObstacle;
      if (reason !== undefined) yield [1, { reason }];
    },
  }),
  single(
    'gauge',
    'weft_fast_path_peers_without_agent',
    'Peers that receive packets over the fast path although their agents have been down for more than a minute.',
    ({ forwarder }) => forwarder?.fastPathPeersAlone,
  ),
  single(
    'counter',
    'weft_forwarder_restarts_total',
    'Restarts of the data path after a failure.',
    ({ forwarder }) => forwarder?.restarts,
  ),
  single(
    'counter',
    'weft_peer_table_writes_total',
    'Updates of the packet workers’ peer table.',
    ({ forwarder }) => forwarder?.published.times,
  ),
  single(
    'gauge',
    'weft_peer_table_write_timestamp_seconds',
    'Unix time of the last update of the peer table.',
    ({ forwarder }) => seconds(forwarder?.published.lastAtMs),
  ),
  packetMetric('weft_packets_total', 'Packets sent to (tx) and received from (rx) a peer.', ({ packets }) => packets),
  packetMetric('weft_bytes_total', 'Bytes of those packets, including the inner IP header.', ({ bytes }) => bytes),
  define('counter', 'weft_dropped_packets_total', {
    help: 'Dropped packets, by reason. The peer is "none" if the packet belongs to no peer.',
    labels: ['peer', 'direction', 'reason'],
    *read(snapshot) {
      for (const { peer, direction, figures } of eachDirection(snapshot)) {
        for (const [reason, count] of Object.entries(figures.drops)) {
          if (count !== undefined && count > 0) yield [count, { peer, direction, reason }];
        }
      }
    },
  }),
  byKey(
    'counter',
    'weft_queue_dropped_packets_total',
    'queue',
    'Packets that the kernel dropped at the devices of the overlay (device) and at the full buffer of the agent’s socket (socket).',
    ({ queueDrops }) => queueDrops,
  ),
  define('counter', 'weft_host_dropped_packets_total', {
    help: 'Packets of all programs that the kernel of this host dropped outside the agent, by address family and reason.',
    labels: ['family', 'reason'],
    *read({ hostDrops, hostDrops6 }) {
      for (const [reason, count] of Object.entries(hostDrops ?? {})) yield [count, { family: 'ipv4', reason }];
      for (const [reason, count] of Object.entries(hostDrops6 ?? {})) yield [count, { family: 'ipv6', reason }];
    },
  }),
  byKey(
    'gauge',
    'weft_refused_senders',
    'reason',
    'Addresses whose packets were rejected in the last ten minutes.',
    ({ forwarder }) => forwarder?.refusedSenders,
  ),
  byKey(
    'counter',
    'weft_forwarder_operations_total',
    'operation',
    'Operations of the packet workers, such as system calls.',
    ({ forwarder }) => forwarder?.operations,
  ),

  single(
    'counter',
    'weft_kernel_runs_total',
    'Comparisons of the kernel state with the desired state.',
    ({ kernel }) => {
      return kernel?.runs;
    },
  ),
  byKey(
    'counter',
    'weft_kernel_operations_total',
    'operation',
    'Changes to links, their settings, addresses, routes and neighbour entries.',
    ({ kernel }) => kernel?.operations,
  ),
  byKey(
    'counter',
    'weft_kernel_repairs_total',
    'operation',
    'Changes that restored what another program had changed or removed.',
    ({ kernel }) => kernel?.repairs,
  ),
  single('counter', 'weft_kernel_failures_total', 'Failed comparisons and changes.', ({ kernel }) => {
    return kernel?.failures;
  }),
  single(
    'gauge',
    'weft_kernel_problems',
    'Parts of the desired state that currently cannot be applied.',
    ({ kernel }) => {
      return kernel?.problems;
    },
  ),
  single(
    'gauge',
    'weft_kernel_converged',
    '1 if the kernel matched the desired state at the last comparison.',
    ({ kernel }) => {
      return kernel?.converged;
    },
  ),

  define('gauge', 'weft_wireguard_last_handshake_timestamp_seconds', {
    help: 'Unix time of the last WireGuard handshake with a peer, as last read from the kernel; absent if there was none.',
    labels: ['peer', 'device'],
    *read({ wireguard = [] }) {
      for (const { peer, device, lastHandshakeAtMs } of wireguard) {
        if (lastHandshakeAtMs !== undefined) yield [lastHandshakeAtMs / 1000, { peer, device }];
      }
    },
  }),
  define('counter', 'weft_wireguard_bytes_total', {
    help: 'Encrypted bytes sent to (tx) and received from (rx) a WireGuard peer, as last read from the kernel.',
    labels: ['peer', 'device', 'direction'],
    *read({ wireguard = [] }) {
      for (const { peer, device, sentBytes, receivedBytes } of wireguard) {
        if (sentBytes + receivedBytes === 0) continue;
        yield [sentBytes, { peer, device, direction: 'tx' }];
        yield [receivedBytes, { peer, device, direction: 'rx' }];
      }
    },
  }),

  define('gauge', 'weft_ipsec_tunnel_up', {
    help: '1 if the IPsec tunnel to a peer has keys, as last read from charon, 0 if not.',
    labels: ['peer'],
    *read({ ipsec = [] }) {
      for (const { peer, isUp } of ipsec) yield [isUp ? 1 : 0, { peer }];
    },
  }),
  define('counter', 'weft_ipsec_bytes_total', {
    help: 'Bytes sent to (tx) and received from (rx) a peer through its IPsec tunnel, as last read from charon; starts at 0 again with new keys.',
    labels: ['peer', 'direction'],
    *read({ ipsec = [] }) {
      for (const { peer, sentBytes, receivedBytes } of ipsec) {
        if (sentBytes + receivedBytes === 0) continue;
        yield [sentBytes, { peer, direction: 'tx' }];
        yield [receivedBytes, { peer, direction: 'rx' }];
      }
    },
  }),

  single('counter', 'weft_traffic_checks_total', 'Checks of the firewall rules.', ({ traffic }) => {
    return traffic?.checks;
  }),
  byKey(
    'counter',
    'weft_traffic_repairs_total',
    'problem',
    'Repairs of the firewall rules, by what was wrong.',
    ({ traffic }) => traffic?.repairs,
  ),
  single(
    'counter',
    'weft_traffic_failures_total',
    'Failed checks and repairs of the firewall rules.',
    ({ traffic }) => {
      return traffic?.failures;
    },
  ),
  single(
    'gauge',
    'weft_traffic_last_success_timestamp_seconds',
    'Unix time at which the firewall rules were last correct.',
    ({ traffic }) => seconds(traffic?.lastSuccessAtMs),
  ),

  define('counter', 'weft_hooks_total', {
    help: 'Completed commands of the extension backend, by hook and result.',
    labels: ['hook', 'result'],
    *read({ hooks = {} }) {
      for (const [hook, { succeeded, failed }] of Object.entries(hooks)) {
        yield [succeeded, { hook, result: 'succeeded' }];
        yield [failed, { hook, result: 'failed' }];
      }
    },
  }),

  single('counter', 'weft_probes_total', 'Probes sent on the paths to other hosts.', ({ probes }) => probes?.sent),
  define('gauge', 'weft_probe_rtt_seconds', {
    help: 'Round-trip time through the overlay, of the latest probes: median and 99th percentile.',
    labels: ['peer', 'quantile'],
    *read({ probes }) {
      for (const { id: peer, rttMs } of probes?.paths ?? []) {
        if (rttMs === undefined) continue;
        yield [rttMs.median / 1e3, { peer, quantile: '0.5' }];
        yield [rttMs.p99 / 1e3, { peer, quantile: '0.99' }];
      }
    },
  }),
  pathMetric(
    'weft_probe_loss_ratio',
    'Share of the latest probes that were not answered, 0 to 1.',
    (path) => path.lossRatio,
  ),
  pathMetric(
    'weft_probe_path_mtu_bytes',
    'Length of the longest overlay packet that reaches the peer in one piece.',
    (path) => path.pathMtuBytes,
  ),
  define('gauge', 'weft_probe_fault', {
    help: '1 for the fault that the probes find on the path to a peer; absent without a fault.',
    labels: ['peer', 'fault'],
    *read({ probes }) {
      for (const { id: peer, diagnosis } of probes?.paths ?? []) {
        if (diagnosis !== undefined) yield [1, { peer, fault: diagnosis.fault }];
      }
    },
  }),

  single('gauge', 'process_resident_memory_bytes', 'Resident memory of the agent.', () => process.memoryUsage.rss()),
  single('counter', 'process_cpu_seconds_total', 'CPU time of the agent, over all threads.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  }),
  single('gauge', 'process_start_time_seconds', 'Unix time at which the agent started.', () => {
    return performance.timeOrigin / 1000;
  }),
];
