import { type ExternalInterface, isSkipped } from '../../backend/backend.ts';
import { configuredBackend, openBackend, publishedBackend } from '../../backend/registry.ts';
import { WIREGUARD_KEY_FILE } from '../../config/flanneld-options.ts';
import { networksOf } from '../../config/network-config.ts';
import { Actual } from '../../desired/actual.ts';
import { describeOp, type Op } from '../../desired/op.ts';
import type { OuterTraffic } from '../../desired/outer-filter.ts';
import { planAll } from '../../desired/plan/plan.ts';
import { describeProblem } from '../../desired/problem.ts';
import type { WantedState } from '../../desired/state.ts';
import { Wanted } from '../../desired/wanted.ts';
import type { HostView, PeerView } from '../../diagnosis/host-view.ts';
import { formatPrefix, prefixOf } from '../../ip/address.ts';
import { leaseKey } from '../../lease/lease.ts';
import { identityHost } from '../../linux/identity-host.ts';
import { readHostNetwork } from '../../linux/interfaces.ts';
import { iproute2Kernel } from '../../linux/iproute2.ts';
import { TunHolder } from '../../linux/tun-holder.ts';
import { peerDevices } from './peer-devices.ts';

/** The agent may be putting something right just now: what differs at two looks is told. */
const SECOND_LOOK_MS = 700;

/** What the leases on file want of the kernel, without an agent. */
export interface WantedKernel {
  /** The device that leads to a peer; `undefined` for one that the backend cannot reach, or somebody else carries to. */
  deviceTo(peer: PeerView): string | undefined;
  /** The overlay's own devices. */
  readonly devices: readonly string[];
  /** What of the external interface's traffic is the tunnel's. */
  readonly tunnel: readonly OuterTraffic[];
  /** What the kernel lacks of it, and what is in the way, a line each. */
  difference(signal: AbortSignal): Promise<readonly string[]>;
}

/** Changes nothing. @throws WeftError of the backend, for a configuration or an interface that it cannot use. */
export async function wantedKernel(view: HostView, signal: AbortSignal): Promise<WantedKernel> {
  const { config, own, peers } = view.known;
  const external = await externalOf(view, signal);
  const host = {
    ...identityHost(WIREGUARD_KEY_FILE, new TunHolder({ takeTun: () => undefined })),
    takeTun: () => true,
  };
  const past = { published: own.attrs.backendData, networks: networksOf(config) };
  const setup = await publishedBackend(configuredBackend(config), config, past, host, signal);
  const backend = openBackend(setup, config, external);
  const { kernel: state, outer } = backend.host(own);
  const devices = new Map<string, string>();
  const wanted = new Wanted();
  wanted.setHost(state);
  for (const peer of peers) {
    const part = backend.peer(own, peer);
    if (isSkipped(part)) continue;
    wanted.setPeer(leaseKey(peer), part.kernel);
    for (const [subnet, device] of peerDevices(state.routes, part)) devices.set(formatPrefix(subnet), device);
  }
  return {
    deviceTo: ({ id }) => devices.get(id),
    devices: state.links.flatMap((link) => (link.kind === 'external' ? [] : [link.name])),
    tunnel:
      outer?.traffic ?? (setup.kind.udpPorts?.(setup.config) ?? []).map((port) => ({ protocol: 'udp', port }) as const),
    async difference(signal) {
      const first = await differenceOf(wanted, state, signal);
      if (first.length === 0) return first;
      await new Promise((resolve) => setTimeout(resolve, SECOND_LOOK_MS));
      const second = new Set(await differenceOf(wanted, state, signal));
      return first.filter((line) => second.has(line));
    },
  };
}

/** It is read once. */
function nobodyListens(): void {}

async function differenceOf(wanted: Wanted, state: WantedState, signal: AbortSignal): Promise<string[]> {
  const actual = new Actual(await iproute2Kernel({ onLost: nobodyListens }).read(state, signal));
  const { ops, linkProblems, routeProblems } = planAll(wanted, actual);
  const problems = [...linkProblems, ...routeProblems.values()].map(describeProblem);
  return [...problems, ...ops.filter(isLacking).map((op) => `lacks: ${describeOp(op)}`)];
}

/**
 * What is there and not wanted may be for a peer with another backend, of which the leases on file say little. A setting that puts nobody
 * at risk cannot be set by an agent whose /proc/sys is read-only, as in Kubernetes, and it says nothing of that either.
 */
function isLacking(op: Op): boolean {
  return !op.type.endsWith('-delete') && !(op.type === 'sysctl-set' && op.sysctl.risk === undefined);
}

async function externalOf({ known: { external, own } }: HostView, signal: AbortSignal): Promise<ExternalInterface> {
  const { interfaces } = await readHostNetwork(signal);
  const present = interfaces.find(({ name }) => name === external.name);
  return {
    ...{ name: external.name, mtuBytes: present?.mtuBytes ?? 1_500 },
    addresses: external.addresses,
    publicAddresses: own.attrs.publicAddresses,
    onLink: (present?.addresses ?? []).map(({ addr, prefixLength }) => prefixOf(addr, prefixLength)),
  };
}
