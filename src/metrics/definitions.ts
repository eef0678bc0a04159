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

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000;
}

/** Every metric of the agent that comes from a snapshot; docs/METRICS.md lists the same (a test compares the two). */
export const METRICS: readonly MetricDefinition[] = [
  define('gauge', 'weft_build_info', {
    help: 'Always 1; the labels say what runs.',
    labels: ['version', 'node_version', 'backend', 'subnet_manager'],
    *read({ build }) {
      const { version, backend, subnetManager } = build;
      yield [1, { version, node_version: process.versions.node, backend, subnet_manager: subnetManager }];
    },
  }),
  single(
    'gauge',
    'weft_network_config_outdated',
    '1 when the network configuration has changed since the agent started: a restart applies it.',
    ({ configOutdated }) => configOutdated,
  ),
  single('gauge', 'weft_ready', '1 when /readyz answers 200.', ({ ready }) => ready),
  byKey('gauge', 'weft_failure', 'part', '1 while this part keeps the node from being ready.', ({ failures }) =>
    Object.fromEntries(Object.entries(failures).map(([part, fails]) => [part, Number(fails)])),
  ),
  single(
    'counter',
    'weft_log_dropped_lines_total',
    'Lines of the log that could not be written and were dropped.',
    ({ droppedLogLines }) => droppedLogLines,
  ),

  single('gauge', 'weft_peers', 'Leases of other hosts in force.', ({ leases }) => leases?.peers),
  single(
    'gauge',
    'weft_skipped_peers',
    'Peers that the backend cannot reach, or in one family only; weft doctor and /skipped-peers name them.',
    ({ skippedPeers }) => skippedPeers,
  ),
  byKey(
    'gauge',
    'weft_refused_leases',
    'reason',
    'Entries of the lease store that are not believed, by reason.',
    ({ leases }) => leases?.refused,
  ),
  byKey('counter', 'weft_lease_events_total', 'event', 'Changes to leases seen.', ({ leases }) => leases?.events),
  single(
    'gauge',
    'weft_lease_expiry_timestamp_seconds',
    'When this host’s own lease ends, in Unix time; absent when it never does.',
    ({ leases }) => seconds(leases?.ownExpiresAtMs),
  ),

  single('gauge', 'weft_store_reachable', '1 when the lease store answered last.', ({ store }) => store?.reachable),
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
    'When the lease store last answered, in Unix time.',
    ({ store }) => seconds(store?.lastSuccessAtMs),
  ),

  single('gauge', 'weft_forwarder_running', '1 when packets are forwarded.', ({ forwarder }) => forwarder?.running),
  single(
    'gauge',
    'weft_fast_path',
    '1 when packets may take the fast path in the kernel.',
    ({ forwarder }) => forwarder?.fastPath,
  ),
  define<'reason'>('gauge', 'weft_fast_path_obstacle', {
    help: '1 for what keeps the fast path closed although it is wanted: ipsec-policy, or unavailable; absent when nothing does.',
    labels: ['reason'],
    *read({ forwarder }) {
      const reason = forwarder?.fastPathObstacle;
      if (reason !== undefined) yield [1, { reason }];
    },
  }),
  single(
    'gauge',
    'weft_fast_path_peers_without_agent',
    'Peers that are sent to by the fast path, and whose agent has been away for more than a minute.',
    ({ forwarder }) => forwarder?.fastPathPeersAlone,
  ),
  single(
    'counter',
    'weft_forwarder_restarts_total',
    'Times the data path was opened again after it broke.',
    ({ forwarder }) => forwarder?.restarts,
  ),
  single(
    'counter',
    'weft_peer_table_writes_total',
    'Times the packet workers were given another table of peers.',
    ({ forwarder }) => forwarder?.published.times,
  ),
  single('gauge', 'weft_peer_table_write_timestamp_seconds', 'When they last were, in Unix time.', ({ forwarder }) =>
    seconds(forwarder?.published.lastAtMs),
  ),
  packetMetric('weft_packets_total', 'Packets passed to (tx) and from (rx) a peer.', ({ packets }) => packets),
  packetMetric('weft_bytes_total', 'Bytes of those packets, inner IP header included.', ({ bytes }) => bytes),
  define('counter', 'weft_dropped_packets_total', {
    help: 'Packets not passed on, by reason; peer "none" when no peer can be named.',
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
    'Packets that the kernel dropped because the queue to the packet workers was full.',
    ({ forwarder }) => forwarder?.queueDrops,
  ),
  byKey(
    'gauge',
    'weft_refused_senders',
    'reason',
    'Addresses whose packets were refused within the last ten minutes.',
    ({ forwarder }) => forwarder?.refusedSenders,
  ),
  byKey(
    'counter',
    'weft_forwarder_operations_total',
    'operation',
    'What the packet workers did, such as system calls.',
    ({ forwarder }) => forwarder?.operations,
  ),

  single('counter', 'weft_kernel_runs_total', 'Comparisons of kernel state with what is wanted.', ({ kernel }) => {
    return kernel?.runs;
  }),
  byKey(
    'counter',
    'weft_kernel_operations_total',
    'operation',
    'Changes made to links and their settings, addresses, routes and neighbours.',
    ({ kernel }) => kernel?.operations,
  ),
  byKey(
    'counter',
    'weft_kernel_repairs_total',
    'operation',
    'Those of them that put back what somebody else had changed.',
    ({ kernel }) => kernel?.repairs,
  ),
  single('counter', 'weft_kernel_failures_total', 'Changes and comparisons that failed.', ({ kernel }) => {
    return kernel?.failures;
  }),
  single('gauge', 'weft_kernel_problems', 'Parts of the wanted state that cannot be had for now.', ({ kernel }) => {
    return kernel?.problems;
  }),
  single(
    'gauge',
    'weft_kernel_converged',
    '1 when the kernel had all that is wanted at the last look.',
    ({ kernel }) => {
      return kernel?.converged;
    },
  ),

  define('gauge', 'weft_wireguard_last_handshake_timestamp_seconds', {
    help: 'When a WireGuard peer last agreed on a key, in Unix time; absent when it never did. As of the last look at the kernel.',
    labels: ['peer', 'device'],
    *read({ wireguard = [] }) {
      for (const { peer, device, lastHandshakeAtMs } of wireguard) {
        if (lastHandshakeAtMs !== undefined) yield [lastHandshakeAtMs / 1000, { peer, device }];
      }
    },
  }),
  define('counter', 'weft_wireguard_bytes_total', {
    help: 'Encrypted bytes to (tx) and from (rx) a WireGuard peer, as of the last look at the kernel.',
    labels: ['peer', 'device', 'direction'],
    *read({ wireguard = [] }) {
      for (const { peer, device, sentBytes, receivedBytes } of wireguard) {
        if (sentBytes + receivedBytes === 0) continue;
        yield [sentBytes, { peer, device, direction: 'tx' }];
        yield [receivedBytes, { peer, device, direction: 'rx' }];
      }
    },
  }),

  single('counter', 'weft_traffic_checks_total', 'Checks of the masquerade and forward rules.', ({ traffic }) => {
    return traffic?.checks;
  }),
  byKey(
    'counter',
    'weft_traffic_repairs_total',
    'problem',
    'Rules put right, by what was wrong.',
    ({ traffic }) => traffic?.repairs,
  ),
  single('counter', 'weft_traffic_failures_total', 'Checks or repairs of the rules that failed.', ({ traffic }) => {
    return traffic?.failures;
  }),
  single(
    'gauge',
    'weft_traffic_last_success_timestamp_seconds',
    'When the rules were last found or made right, in Unix time.',
    ({ traffic }) => seconds(traffic?.lastSuccessAtMs),
  ),

  define('counter', 'weft_hooks_total', {
    help: 'Commands of the backend extension that have ended, by when they are run and how they ended.',
    labels: ['hook', 'result'],
    *read({ hooks = {} }) {
      for (const [hook, { succeeded, failed }] of Object.entries(hooks)) {
        yield [succeeded, { hook, result: 'succeeded' }];
        yield [failed, { hook, result: 'failed' }];
      }
    },
  }),

  single('gauge', 'process_resident_memory_bytes', 'Resident memory of the agent.', () => process.memoryUsage.rss()),
  single('counter', 'process_cpu_seconds_total', 'CPU time of the agent, all threads.', () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  }),
  single('gauge', 'process_start_time_seconds', 'When the agent started, in Unix time.', () => {
    return performance.timeOrigin / 1000;
  }),
];
