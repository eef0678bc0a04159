import * as v from 'valibot';
import { type AgentEvent, EVENT_KINDS, type EventKind, SEVERITIES, type Severity } from '../events/event.ts';
import { PATH_FAULTS } from '../probe/diagnose.ts';
import { PEER_PATHS, type PeerPath } from './peer-path.ts';

/**
 * What the agent's API answers, as schemas: the types of TypeScript and the OpenAPI document (openapi.ts) come from here. The
 * contract of /api/v1 grows and never changes: fields may be added, none is renamed, removed or given another meaning, and
 * what is not known is absent. Times are milliseconds since the epoch (`…AtMs`), sizes bytes.
 *
 * The agent itself only needs the types: this module is loaded when somebody asks for the document.
 */

/** One of texts that a later version may add to: a reader must take any other for something that it does not know. */
function openSet<const T extends string>(known: readonly T[], description: string): v.GenericSchema<T> {
  const text = v.pipe(v.string(), v.description(`${description} One of: ${known.join(', ')}; later versions may add.`));
  return text as unknown as v.GenericSchema<T>;
}

const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const bytes = v.pipe(v.number(), v.integer(), v.minValue(0), v.description('Bytes.'));
const timeMs = v.pipe(v.number(), v.minValue(0), v.description('Milliseconds since the epoch.'));
const prefix = v.pipe(v.string(), v.description('CIDR.'));
const address = v.pipe(v.string(), v.description('IP address.'));

export const PARTS = [
  'interface',
  'lease',
  'forwarder',
  'kernel',
  'key-exchange',
  'rules',
  'subnet-env',
  'cni-conf',
] as const;

const drops = v.pipe(v.record(v.string(), count), v.description('Packets that were refused, by reason.'));

export const TrafficSchema = v.object({
  packets: count,
  bytes: v.pipe(bytes, v.description('Of the inner packets, IP header included.')),
  drops,
});
export type Traffic = v.InferOutput<typeof TrafficSchema>;

export const ProbeSchema = v.pipe(
  v.object({
    measuredAtMs: timeMs,
    rttMs: v.optional(
      v.pipe(v.number(), v.description('Round trip through the overlay; absent when nothing came back.')),
    ),
    lossRatio: v.optional(
      v.pipe(v.number(), v.minValue(0), v.maxValue(1), v.description('Of the last probes, 0 to 1.')),
    ),
    pathMtuBytes: v.optional(v.pipe(count, v.description('Longest packet that went through in one piece.'))),
    problem: v.optional(
      v.pipe(v.string(), v.description('What the probes that failed have in common, in one sentence.')),
    ),
    fault: v.optional(openSet(PATH_FAULTS, 'What that problem is called, as in the metric weft_probe_fault.')),
    remedy: v.optional(v.pipe(v.string(), v.description('What to do about the problem.'))),
    lastAnswerAtMs: v.optional(v.pipe(timeMs, v.description('When something last came back through the overlay.'))),
    family: v.optional(openSet(['IPv4', 'IPv6'], 'Of the packets in the overlay.')),
  }),
  v.description('What background probes found last; absent where there are none.'),
);
export type Probe = v.InferOutput<typeof ProbeSchema>;

export const PeerSchema = v.object({
  id: v.pipe(v.string(), v.description('Its subnets, joined by &: the same as long as it has them.')),
  subnets: v.array(prefix),
  publicAddresses: v.array(address),
  holder: v.optional(v.pipe(v.string(), v.description('Name of its Node, where the store knows names.'))),
  backendType: v.pipe(
    v.string(),
    v.description(
      'As it publishes it; where it publishes none, that of the agent’s host if this publishes none either, else udp.',
    ),
  ),
  path: openSet(Object.keys(PEER_PATHS) as PeerPath[], 'How packets reach it.'),
  reason: v.optional(
    v.pipe(v.string(), v.description('Why it is skipped, reached in one family only, or has no tunnel.')),
  ),
  device: v.optional(v.pipe(v.string(), v.description('Link that the route to it leads to.'))),
  tx: v.optional(v.pipe(TrafficSchema, v.description('To the peer; absent where the kernel counts no single peer.'))),
  rx: v.optional(v.pipe(TrafficSchema, v.description('From the peer.'))),
  tunnel: v.optional(
    v.pipe(
      v.object({
        sentBytes: bytes,
        receivedBytes: bytes,
        lastHandshakeAtMs: v.optional(
          v.pipe(
            timeMs,
            v.description('With WireGuard; absent: there was none yet. The latest, with a tunnel a family.'),
          ),
        ),
      }),
      v.description('Of its WireGuard or IPsec tunnels, as of the last look at them; at most 30 s old with WireGuard.'),
    ),
  ),
  lastSeenAtMs: v.optional(
    v.pipe(timeMs, v.description('When something of it was last seen to have arrived; within seconds.')),
  ),
  probe: v.optional(v.pipe(ProbeSchema, v.description('Of the family that fares worse, where two are measured.'))),
  probes: v.optional(
    v.pipe(
      v.array(ProbeSchema),
      v.description('Of a peer with subnets of both families: each family that has been measured.'),
    ),
  ),
});
export type Peer = v.InferOutput<typeof PeerSchema>;

const mtuBytes = v.optional(v.pipe(count, v.description('Longest packet of a container.')));
/** What a list of hosts shows of each. */
const brief = {
  startedAtMs: timeMs,
  ready: v.boolean(),
  reason: v.optional(v.pipe(v.string(), v.description('Why not ready.'))),
  backendType: v.optional(v.pipe(v.string(), v.description('Absent before the network configuration is known.'))),
  lease: v.optional(
    v.object({
      subnets: v.array(prefix),
      publicAddresses: v.array(address),
      expiresAtMs: v.optional(v.pipe(timeMs, v.description('Absent: it never ends.'))),
      isHeld: v.pipe(v.boolean(), v.description('False: remembered from an earlier run, while the store is away.')),
    }),
  ),
  external: v.optional(
    v.object({
      ...{ name: v.string(), addresses: v.array(address), mtuBytes: count },
      isUp: v.optional(v.pipe(v.boolean(), v.description('Administratively.'))),
    }),
  ),
  newestEventId: v.optional(v.pipe(count, v.description('Of /events; 0 before the first.'))),
};

export const PeersSchema = v.object({
  atMs: timeMs,
  total: v.pipe(count, v.description('Peers there are; `peers` may hold fewer with `limit`.')),
  peers: v.array(PeerSchema),
  self: v.pipe(
    v.object({ ...brief, dataPath: v.object({ mtuBytes }) }),
    v.description('Of the host that says this, as in /self.'),
  ),
});
export type Peers = v.InferOutput<typeof PeersSchema>;

export const SelfSchema = v.object({
  apiVersion: v.literal('v1'),
  atMs: timeMs,
  host: v.pipe(v.string(), v.description('Host name.')),
  node: v.optional(v.pipe(v.string(), v.description('Name of the Node, with Kubernetes.'))),
  version: v.string(),
  pid: count,
  networks: v.array(prefix),
  ...brief,
  store: v.object({
    manager: v.pipe(v.string(), v.description('kube, etcd or local.')),
    name: v.string(),
    isReachable: v.boolean(),
    failure: v.optional(v.pipe(v.string(), v.description('What went wrong last, while it does not answer.'))),
    errors: count,
    unreadableEntries: count,
    lastAnswerAtMs: v.optional(timeMs),
    isConfigOutdated: v.pipe(
      v.boolean(),
      v.description('The network configuration has changed since the agent started; a restart applies the change.'),
    ),
  }),
  dataPath: v.object({
    /** As of a peer with this host's own backend. */
    kind: openSet(['forwarder', 'kernel', 'others'], 'Who carries packets.'),
    isRunning: v.boolean(),
    failure: v.optional(v.string()),
    mtuBytes,
    restarts: count,
    fastPath: v.optional(
      v.object({
        isOpen: v.boolean(),
        obstacle: v.optional(v.string()),
        text: v.string(),
        peersAlone: v.pipe(
          count,
          v.description('Peers whose agent is away and whose host carries packets all the same.'),
        ),
      }),
    ),
    forwardingOff: v.optional(
      v.pipe(
        v.array(v.string()),
        v.description('Settings of the kernel, as sysctl names them, that keep containers from hosts beyond this one.'),
      ),
    ),
    queueDrops: v.pipe(
      v.record(v.string(), count),
      v.description(
        'Packets that the kernel dropped at the devices of the overlay (device) and at the agent’s socket (socket).',
      ),
    ),
    hostDrops: v.optional(
      v.pipe(
        v.record(v.string(), count),
        v.description(
          'IPv4 packets that the kernel of this host dropped outside the agent, of all programs, by reason.',
        ),
      ),
    ),
    hostDrops6: v.optional(v.pipe(v.record(v.string(), count), v.description('The same of IPv6 packets.'))),
    nobody: v.optional(
      v.pipe(
        v.object({ tx: TrafficSchema, rx: TrafficSchema }),
        v.description('What belongs to no peer: no route, unknown source.'),
      ),
    ),
  }),
  totals: v.optional(
    v.pipe(v.object({ tx: TrafficSchema, rx: TrafficSchema }), v.description('All peers together, as far as counted.')),
  ),
  peers: v.object({ total: count, skipped: count, refusedEntries: count }),
  process: v.object({
    cpuSeconds: v.pipe(v.number(), v.minValue(0), v.description('User and system time since the start.')),
    rssBytes: bytes,
    heapBytes: bytes,
  }),
  droppedLogLines: count,
});
export type Self = v.InferOutput<typeof SelfSchema>;

export const LeaseSchema = v.object({
  subnets: v.array(prefix),
  publicAddresses: v.array(address),
  holder: v.optional(v.string()),
  backendType: v.string(),
  expiresAtMs: v.optional(timeMs),
  since: v.optional(v.pipe(v.number(), v.description('When the entry came to be, as its store counts.'))),
  status: openSet(['own', 'peer', 'refused'], 'What this host makes of it.'),
  reason: v.optional(v.pipe(v.string(), v.description('Why it is refused.'))),
});
export type LeaseEntry = v.InferOutput<typeof LeaseSchema>;

export const LeasesSchema = v.object({ atMs: timeMs, leases: v.array(LeaseSchema) });
export type Leases = v.InferOutput<typeof LeasesSchema>;

export const StateEntrySchema = v.object({
  type: openSet(
    ['link', 'address', 'sysctl', 'neighbour', 'fdb', 'wireguard-peer', 'ipsec-policy', 'route'],
    'What it is.',
  ),
  key: v.pipe(v.string(), v.description('What the kernel tells entries of that type apart by.')),
  wanted: v.optional(v.pipe(v.string(), v.description('Absent: it is not wanted.'))),
  actual: v.optional(v.pipe(v.string(), v.description('Absent: the kernel does not have it.'))),
  status: openSet(
    ['same', 'missing', 'different', 'unwanted'],
    'Texts that differ may still be the same where no more is wanted.',
  ),
});

export const StateSchema = v.object({
  atMs: timeMs,
  isConverged: v.pipe(v.boolean(), v.description('The kernel has all that is wanted.')),
  failure: v.optional(v.string()),
  entries: v.array(StateEntrySchema),
  omitted: v.pipe(count, v.description('Entries beyond `limit`; those that differ come first.')),
  difference: v.pipe(v.array(v.string()), v.description('What would be done to the kernel now, in order.')),
  problems: v.pipe(v.array(v.string()), v.description('What stands in the way.')),
  runs: count,
  repairs: v.pipe(
    v.record(v.string(), count),
    v.description('Changes that restored what another program had changed, since the start, by operation.'),
  ),
});
export type State = v.InferOutput<typeof StateSchema>;

export const RulesSchema = v.object({
  atMs: timeMs,
  manager: v.optional(
    v.pipe(v.string(), v.description('iptables or nftables; absent before the configuration is known.')),
  ),
  lines: v.pipe(v.array(v.string()), v.description('What the kernel has of them, as their tool prints it.')),
  failure: v.optional(v.string()),
  checks: count,
  failures: count,
  repairs: v.record(v.string(), count),
  lastCheckedAtMs: v.optional(timeMs),
});
export type Rules = v.InferOutput<typeof RulesSchema>;

export const ReadinessSchema = v.object({
  atMs: timeMs,
  ready: v.boolean(),
  waitingFor: v.optional(v.pipe(v.string(), v.description('What the start waits for.'))),
  parts: v.array(
    v.object({
      part: openSet(PARTS, 'As in the metric weft_failure.'),
      failure: v.optional(v.pipe(v.string(), v.description('Absent: all is well.'))),
      remedy: v.optional(v.pipe(v.string(), v.description('What to do about the failure.'))),
    }),
  ),
});
export type ReadinessAnswer = v.InferOutput<typeof ReadinessSchema>;

export const DOCTOR_STATUSES = ['ok', 'warn', 'fail'] as const;

export const DoctorSchema = v.object({
  atMs: timeMs,
  checks: v.array(
    v.object({
      name: v.pipe(v.string(), v.description('Of the check, as weft doctor prints it.')),
      looksAt: v.string(),
      status: openSet(
        DOCTOR_STATUSES,
        'warn: it works, with a surprise; fail: pods have no network, or will have none.',
      ),
      found: v.string(),
      remedy: v.optional(v.pipe(v.string(), v.description('What to do about it; absent when it is ok.'))),
    }),
  ),
});
export type Doctor = v.InferOutput<typeof DoctorSchema>;

export const EventSchema = v.object({
  id: v.pipe(count, v.description('Rises by one with each event of a process, from 1.')),
  atMs: timeMs,
  kind: openSet(EVENT_KINDS, 'What happened.') as v.GenericSchema<EventKind>,
  severity: v.picklist(SEVERITIES) as v.GenericSchema<Severity>,
  subject: v.pipe(v.string(), v.description('Whom or what it is about: a subnet, a device, a store.')),
  text: v.string(),
  cause: v.optional(v.string()),
  revision: v.optional(v.pipe(v.number(), v.description('The count of changes of the store, where it has one.'))),
  operations: v.optional(
    v.pipe(
      v.array(v.string()),
      v.description('What was done to the kernel, in order: at most 20 lines, and of the latest 1,000 events alone.'),
    ) as v.GenericSchema<readonly string[]>,
  ),
  moreOperations: v.optional(v.pipe(count, v.description('Operations that are not among them.'))),
}) satisfies v.GenericSchema<AgentEvent>;

export const EventsSchema = v.object({
  startedAtMs: v.pipe(timeMs, v.description('Of the process: with another one, ids begin anew.')),
  events: v.array(EventSchema),
  oldestId: v.pipe(count, v.description('Of the oldest event that is kept.')),
  newestId: v.pipe(count, v.description('0 before the first.')),
});

export const ConfigSchema = v.object({
  options: v.pipe(v.record(v.string(), v.string()), v.description('Flags as the log has them; secrets are left out.')),
  network: v.optional(v.pipe(v.unknown(), v.description('The network configuration; secrets are left out.'))),
});
export type Config = v.InferOutput<typeof ConfigSchema>;

/** Event `peers` of the stream: the first has all, later ones what has changed since. */
export const PeersChangeSchema = v.object({
  atMs: timeMs,
  isFull: v.boolean(),
  peers: v.array(PeerSchema),
  removed: v.pipe(v.array(v.string()), v.description('Ids of peers that are gone.')),
});
export type PeersChange = v.InferOutput<typeof PeersChangeSchema>;

export const ProblemSchema = v.object({ error: v.string() });

/** Every endpoint that answers with JSON; `/stream` and `/openapi.json` stand beside. */
export const ANSWERS = {
  '/self': SelfSchema,
  '/peers': PeersSchema,
  '/leases': LeasesSchema,
  '/state': StateSchema,
  '/rules': RulesSchema,
  '/readiness': ReadinessSchema,
  '/doctor': DoctorSchema,
  '/events': EventsSchema,
  '/config': ConfigSchema,
} as const;
export type Endpoint = keyof typeof ANSWERS;
export type Answer<E extends Endpoint> = v.InferOutput<(typeof ANSWERS)[E]>;

/** What an agent has answered, which may be of another version. @throws TypeError with the first thing that does not fit. */
export function parseAnswer<E extends Endpoint>(endpoint: E, answer: unknown): Answer<E> {
  return parsed(ANSWERS[endpoint] as v.GenericSchema<Answer<E>>, answer);
}

/** @throws TypeError */
export function parseEvent(event: unknown): AgentEvent {
  return parsed(EventSchema, event);
}

function parsed<T>(schema: v.GenericSchema<T>, value: unknown): T {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new TypeError(`${v.getDotPath(issue) ?? 'the answer'}: ${issue.message}`);
}
