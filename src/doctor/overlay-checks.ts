import { describeError } from '../errors.ts';
import type { PerFamily } from '../ip/family.ts';
import { describeForwardingOff, forwardingOff, forwardingRemedy } from '../trafficmngr/ip-forwarding.ts';
import { type Check, type Finding, fail, ok, warn } from './check.ts';
import { clockDoubt } from './clock-doubt.ts';
import { familiesHere, gatewaysOf, lackedAddresses, NOTHING_TO_COMPARE, named, readSubnetEnv } from './facts.ts';
import type { DoctorHost, DoctorPaths, HostLink } from './host.ts';

const BRIDGE = 'cni0';
/** What was put back so lately is worth a word. */
const LATELY_MS = 60_000;
/** Of the first question to an agent. Who waits for a cause must have it within ten seconds, and a hung agent answers neither. */
const FIRST_ANSWER_MS = 1_500;

export type AgentEndpoint = '/readiness' | '/self' | '/events' | '/leases';

/** What `weft test` asks beyond what the doctor's checks see. */
export interface OverlayHost extends Pick<DoctorHost, 'readText' | 'links'> {
  /** Of the agent's API; `undefined` when nobody listens. @throws when it does not answer in time. */
  readonly agent: <T>(endpoint: AgentEndpoint, signal: AbortSignal) => Promise<T | undefined>;
  /** What would have to be done to the kernel so that it is as the leases on file want it, and what is in the way; a line each. */
  readonly kernelDifference: (signal: AbortSignal) => Promise<readonly string[]>;
  /** Where the kernel sends packets to each of these addresses: a device, or what it says instead. */
  readonly devicesTo: (addresses: readonly string[], signal: AbortSignal) => Promise<readonly string[]>;
}

/** What the leases on file say of this host and its peers. */
export interface OverlayFacts {
  readonly external: string;
  /** That peers send to: of the external interface, or another one that leads to it (--public-ip). */
  readonly externalAddresses: PerFamily<string | undefined>;
  /** An address in each peer's subnet, and the device that should lead there. */
  readonly peers: readonly { readonly id: string; readonly address: string; readonly device: string }[];
  readonly nowMs: () => number;
}

interface EventsAnswer {
  readonly events: readonly {
    readonly atMs: number;
    readonly kind: string;
    readonly text: string;
    readonly subject: string;
  }[];
}
interface ReadinessAnswer {
  readonly ready: boolean;
  readonly waitingFor?: string;
  readonly parts: readonly { readonly part: string; readonly failure?: string }[];
}
interface SelfAnswer {
  readonly atMs: number;
  readonly store: { readonly name: string; readonly isReachable: boolean; readonly failure?: string };
}
interface LeasesAnswer {
  readonly leases: readonly {
    readonly subnets: readonly string[];
    readonly publicAddresses: readonly string[];
    readonly status: string;
    readonly reason?: string;
  }[];
}

/** The host's part of the overlay, compared with the leases that the agent has left on file: the agent need not run. */
export function overlayChecks(host: OverlayHost, paths: DoctorPaths, facts: OverlayFacts): Check[] {
  const REPAIRED: ReadonlySet<string> = new Set(['kernel-repaired', 'rules-repaired']);
  return [
    {
      name: 'agent',
      looksAt: 'whether the agent answers, and its state',
      run: async (signal) => {
        const asked = (within: AbortSignal): Promise<ReadinessAnswer | undefined> =>
          host.agent<ReadinessAnswer>('/readiness', within);
        // Twice: on a busy host an answer may be late once.
        const answer = await asked(AbortSignal.any([signal, AbortSignal.timeout(FIRST_ANSWER_MS)]))
          .catch(() => asked(signal))
          .catch((error: unknown) => {
            signal.throwIfAborted();
            return describeError(error);
          });
        if (typeof answer === 'string')
          return fail(answer, 'The agent hangs, or the host is overloaded. See its log, and restart it.');
        if (answer === undefined)
          return fail(
            'no agent runs here',
            'Start it. Until then packets from other hosts are dropped, at once or after a short time.',
          );
        const failing = answer.parts.flatMap(({ part, failure }) =>
          failure === undefined ? [] : [`${part}: ${failure}`],
        );
        if (answer.ready && failing.length === 0) return ok('it is ready');
        return fail(
          failing.join('; ') || (answer.waitingFor ?? 'it is not ready'),
          'See weft status and the log of the agent.',
        );
      },
    },
    {
      name: 'store',
      looksAt: 'whether the agent reaches its lease store',
      run: async (signal) => {
        const answer = await host.agent<SelfAnswer>('/self', signal);
        if (answer === undefined) return ok('no agent answers (see agent)');
        const { name, isReachable, failure } = answer.store;
        return isReachable
          ? ok(name)
          : warn(
              `${name} does not answer: packets still flow with the last known state, but this host does not learn of changes${failure === undefined ? '' : ` (${failure})`}`,
              'Check that the store runs, and that this host can reach it.',
            );
      },
    },
    {
      name: 'clock',
      looksAt: 'whether the store’s certificate is valid according to this host’s clock',
      run: async (signal) => {
        const answer = await host.agent<SelfAnswer>('/self', signal);
        const doubt = answer && clockDoubt(answer.store.failure, answer.atMs);
        return doubt === undefined ? ok('no sign of a wrong clock') : warn(doubt.cause, doubt.remedy);
      },
    },
    {
      name: 'lease-entries',
      looksAt: 'entries of the lease store that the agent rejects',
      run: async (signal) => {
        const answer = await host.agent<LeasesAnswer>('/leases', signal);
        const refused = (answer?.leases ?? []).filter(({ status }) => status === 'refused');
        const [first, ...others] = refused;
        return first === undefined ? ok('none') : refusedFinding(first, others);
      },
    },
    {
      name: 'repairs',
      looksAt: 'what the agent has restored within the last minute',
      run: async (signal) => {
        const answer = await host.agent<EventsAnswer>('/events', signal);
        const since = facts.nowMs() - LATELY_MS;
        const lately = (answer?.events ?? []).filter(({ atMs, kind }) => atMs >= since && REPAIRED.has(kind));
        if (lately.length === 0) return ok('nothing');
        return warn(
          named(lately.map(({ text }) => text)),
          'Another program is changing what the agent manages. Look for another agent, a script or a network manager.',
        );
      },
    },
    {
      name: 'external-interface',
      looksAt: `${facts.external}, the interface to the other hosts`,
      run: async (signal) => {
        const link = (await host.links(signal)).find(({ name }) => name === facts.external);
        if (link === undefined)
          return fail(
            `there is no ${facts.external}`,
            'Give the agent another interface (--iface), or bring this one back.',
          );
        if (!link.up) return fail(`${facts.external} is down`, `ip link set ${facts.external} up`);
        const lacked = lackedAddresses(link, facts.externalAddresses);
        return lacked.length === 0
          ? ok(link.addresses.join(', '))
          : fail(
              lacked.map(({ text, address }) => `${text}, and peers send to ${address}`).join('; '),
              'Restore the address. A running agent publishes a new one by itself.',
            );
      },
    },
    {
      name: 'kernel-state',
      looksAt: 'devices, addresses, routes and tunnel entries, compared with the leases',
      run: async (signal) => {
        const difference = await host.kernelDifference(signal);
        return difference.length === 0
          ? ok('as the leases require')
          : fail(
              `not as the leases require: ${named(difference)}`,
              'A running agent repairs this by itself; otherwise start it. If the agent says that something is in the way, remove that by hand.',
            );
      },
    },
    {
      name: 'routes-in-use',
      looksAt: 'where the kernel sends packets to each peer',
      run: async (signal) => {
        const devices = await host.devicesTo(
          facts.peers.map(({ address }) => address),
          signal,
        );
        const astray = facts.peers.flatMap(({ id, device }, i) =>
          devices[i] === device ? [] : [`${id}: ${devices[i]}, not ${device}`],
        );
        return astray.length === 0
          ? ok('each through the backend’s device')
          : fail(
              named(astray),
              'Another program has set a more specific or preferred route, or a rule. See ip rule and ip route show table all.',
            );
      },
    },
    {
      name: 'bridge',
      looksAt: `${BRIDGE}, the bridge of this host’s containers`,
      run: async (signal) => {
        const [env, links] = [await readSubnetEnv(host, paths), await host.links(signal)];
        const bridge = links.find(({ name }) => name === BRIDGE);
        if (bridge === undefined) return ok('no container has run here yet');
        if (!bridge.up)
          return fail(`${BRIDGE} is down: containers of this host have no network`, `ip link set ${BRIDGE} up`);
        if (env === undefined) return ok(NOTHING_TO_COMPARE);
        return bridgeFinding(bridge, env.mtuBytes, gatewaysOf(env));
      },
    },
    {
      name: 'forwarding',
      looksAt: 'whether each device on the packets’ path forwards them',
      run: async (signal) => {
        const names = new Set((await host.links(signal)).map(({ name }) => name));
        const devices = [facts.external, BRIDGE, ...facts.peers.map(({ device }) => device)].filter((name) =>
          names.has(name),
        );
        const families = await familiesHere(host, paths);
        const off: string[] = [];
        for (const name of families.some(({ version }) => version === 4) ? new Set(devices) : []) {
          const value = await host.readText(`/proc/sys/net/ipv4/conf/${name}/forwarding`);
          if (value?.trim() === '0') off.push(name);
        }
        if (off.length > 0) {
          return fail(
            `off: ${off.join(', ')}`,
            `sysctl -w net.ipv4.conf.${off[0]}.forwarding=1, or net.ipv4.ip_forward=1 for all.`,
          );
        }
        // Of IPv6 there is one setting for all devices.
        const ipv6 = families.filter(({ version }) => version === 6);
        const none = await forwardingOff(ipv6, (path) => host.readText(path));
        return none.length === 0
          ? ok([...new Set(devices)].join(', '))
          : fail(describeForwardingOff(none), forwardingRemedy(none));
      },
    },
  ];
}

type LeaseAnswer = LeasesAnswer['leases'][number];

/** Who claims what this host has cuts it off from some of the others. */
function refusedFinding(first: LeaseAnswer, others: readonly LeaseAnswer[]): Finding {
  const all = [first, ...others];
  const text = named(all.map(({ subnets, reason }) => reason ?? subnets.join(' and ')));
  const remedy =
    'No packets are sent to such a host or accepted from it. Correct or delete the entry: with Kubernetes the Node and its annotations, with etcd the key. docs/METRICS.md explains the reasons.';
  const finding = (all.some(({ reason }) => reason?.includes('[overlaps-own]')) ? fail : warn)(text, remedy);
  const where = `${first.subnets.join(' and ')} on ${first.publicAddresses.join(' and ')}`;
  return others.length === 0 && finding.status !== 'ok' ? { ...finding, where } : finding;
}

function bridgeFinding(bridge: HostLink, mtuBytes: number, gateways: PerFamily<string | undefined>): Finding {
  const lacked = lackedAddresses(bridge, gateways);
  if (lacked.length > 0) {
    const commands = lacked.map(({ command }) => command).join('; ');
    return fail(
      lacked.map(({ text, address }) => `${text}, and subnet.env needs ${address}`).join('; '),
      `${commands}, or delete ${BRIDGE}: the next container creates it again.`,
    );
  }
  return bridge.mtuBytes <= mtuBytes
    ? ok(`up, MTU ${bridge.mtuBytes}`)
    : warn(
        `the MTU of ${BRIDGE} is ${bridge.mtuBytes}, and the overlay takes ${mtuBytes}: containers send packets that do not fit`,
        `ip link set ${BRIDGE} mtu ${mtuBytes}; the same for the interfaces in containers.`,
      );
}
