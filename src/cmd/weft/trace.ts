import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { backendKind } from '../../backend/registry.ts';
import { gatewayOf, type HostView, type PeerView, peerOf, readHostView } from '../../diagnosis/host-view.ts';
import { type LegacyCount, legacyCounts, ruleOfCopies } from '../../diagnosis/legacy-rules.ts';
import { type DroppingRule, droppingRule, plainTarget, ruleMatch, ruleTargetOf } from '../../diagnosis/rule-trace.ts';
import {
  hopsOf,
  isHome,
  judgeTrace,
  netfilterDropOf,
  type TraceDrop,
  type TraceFacts,
  type TracePlace,
  type TraceSighting,
  type TraceVerdict,
} from '../../diagnosis/trace.ts';
import { matchFrame, matchIp, type TraceIdentity } from '../../diagnosis/trace-match.ts';
import { THIS_HOST } from '../../diagnosis/verdict.ts';
import { describeError, WeftError } from '../../errors.ts';
import { containsAddr, formatAddr, type IpAddr, type IpFamily, parseAddr, versionOf } from '../../ip/address.ts';
import { present } from '../../ip/family.ts';
import { type DropWatch, openDropWatch } from '../../linux/drop-watch.ts';
import { errnoName } from '../../linux/ffi.ts';
import { readLegacyTables } from '../../linux/legacy-tables.ts';
import {
  devicesOf,
  insideNamespace,
  localAddressesOf,
  type NetworkNamespace,
  namespaceAt,
  networkNamespaces,
  OWN_NAMESPACE,
} from '../../linux/network-namespaces.ts';
import { openPacketSocket, type PacketSocket, type SniffedTraffic } from '../../linux/packet-socket.ts';
import { traceRules } from '../../linux/rule-trace.ts';
import { openTracePacket, type TracePacket, type TraceProtocol } from '../../linux/trace-packet.ts';
import { untilStopped } from '../stop-signal.ts';
import { type TargetFlags, withTarget } from './agent-target.ts';
import { realHost } from './doctor-host.ts';
import { secondsOf } from './option-values.ts';
import { requireRoot } from './test-host.ts';
import { agentsOf, COPIES, countsArrivals, countsOf, proveByCopies } from './trace-agents.ts';
import { renderTrace, type TraceReport } from './trace-report.ts';
import { watchDrops, watchLive } from './trace-watch.ts';
import { wantedKernel } from './wanted-kernel.ts';

export interface TraceFlags extends TargetFlags {
  readonly subnetFile: string;
  readonly size: number;
  readonly wait: number;
  readonly drops?: true;
  readonly live?: true;
  readonly for?: number;
}

/** Headers of a tunnel's packet, and of what it carries. */
const SNAP_BYTES = 256;
const TURN_MS = 10;
/** What else is told of a packet after its end was seen: captures, records of drops. */
const SETTLE_MS = 150;
const PER_TURN = 4_096;
const DEFAULT_BYTES = 84;

/**
 * `weft trace`: one packet and each hop of it, or the hop where it was lost and why. Exit code 0: it arrived and was answered (a
 * datagram: it arrived); 1: it did not; 2: wrong usage.
 *
 * @throws WeftError WEFT_NOT_ROOT, WEFT_NOT_READY, WEFT_USAGE, WEFT_SOCKET_FAILED, WEFT_TRACE_UNAVAILABLE, WEFT_API_…
 */
export function traceCommand(): Command {
  const command = new Command('trace')
    .summary('send one packet and show each hop, or where and why it was dropped')
    .description(
      'Send one packet from FROM to TO and show each hop with headers and time, or the hop where it was dropped and why. FROM is the word host, the address of a container on this host, a network namespace or a process. TO is an address in a peer’s subnet, or a peer (subnet, address or node). The protocol follows: icmp (default), tcp PORT or udp PORT. With --drops, show packets that this host drops. With --live, show packets that match a filter (see weft capture), at each device. Needs root. --socket, --host, --cluster and --node select the agent of the far host.',
    )
    .argument('[words...]', 'FROM TO [icmp | tcp PORT | udp PORT], or the filter of --live')
    .option(
      '--size <bytes>',
      'length of the IP packet, for icmp and udp; it is never fragmented',
      sizeOf,
      DEFAULT_BYTES,
    )
    .option('--wait <seconds>', 'how long to wait for the answer', secondsOf, 2)
    .option('--drops', 'watch what this host drops, until Ctrl-C')
    .option('--live', 'watch packets at each device of this host, until Ctrl-C')
    .option('--for <seconds>', 'with --drops and --live: stop after this many seconds', secondsOf)
    .option('--subnet-file <file>', "--subnet-file of this host's agent", '/run/flannel/subnet.env')
    .action((words: readonly string[], flags: TraceFlags) => traceOrWatch(words, flags));
  return withTarget(command);
}

function sizeOf(text: string): number {
  const bytes = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (bytes < DEFAULT_BYTES || bytes > 65_535) throw new InvalidArgumentError(`want ${DEFAULT_BYTES} to 65535`);
  return bytes;
}

async function traceOrWatch(words: readonly string[], flags: TraceFlags): Promise<void> {
  if (flags.drops && flags.live) throw usage('--drops and --live contradict each other');
  if (flags.drops && words.length > 0) throw usage('--drops takes no arguments: it shows all drops');
  if (flags.for !== undefined && !flags.drops && !flags.live) throw usage('--for goes with --drops or --live');
  const wanted = flags.drops || flags.live ? undefined : requestOf(words);
  requireRoot();
  using stopped = untilStopped();
  const { signal } = stopped;
  const view = await readHostView(realHost(), flags.subnetFile, backendKind, signal);
  if (flags.drops) return await watchDrops(view, flags, stopped);
  if (flags.live) return await watchLive(view, words.join(' '), flags, stopped);
  const report = await trace(view, wanted!, flags, signal);
  process.stdout.write(flags.json ? `${JSON.stringify(report)}\n` : renderTrace(report));
  process.exitCode = report.ok ? 0 : 1;
}

interface TraceRequest {
  readonly from: string;
  readonly to: string;
  readonly protocol: TraceProtocol;
}

function requestOf([from, to, kind = 'icmp', port, ...rest]: readonly string[]): TraceRequest {
  if (from === undefined || to === undefined || rest.length > 0)
    throw usage('want FROM TO [icmp | tcp PORT | udp PORT]');
  if (kind === 'icmp' && port === undefined) return { from, to, protocol: { kind } };
  const number = /^\d{1,5}$/.test(port ?? '') ? Number(port) : 0;
  if ((kind !== 'tcp' && kind !== 'udp') || number < 1 || number > 65_535)
    throw usage(`cannot read ${JSON.stringify([kind, port].join(' ').trim())}: want icmp, tcp PORT or udp PORT`);
  return { from, to, protocol: { kind, port: number } };
}

function usage(message: string): WeftError {
  return new WeftError('WEFT_USAGE', message, { hint: 'For example: weft trace host 10.244.2.3 tcp 80' });
}

interface Place extends TracePlace {
  readonly namespace: NetworkNamespace;
}

async function trace(
  view: HostView,
  request: TraceRequest,
  flags: TraceFlags,
  signal: AbortSignal,
): Promise<TraceReport> {
  const peer = peerOf(view, request.to);
  const to = targetOf(peer, request.to);
  const all = networkNamespaces().map((namespace) => ({ namespace, addresses: localAddressesOf(namespace) }));
  const own = namespaceAt(OWN_NAMESPACE, 'host');
  const source = sourceOf(view, request.from, own, all);
  const farHost = peer.underlay === undefined ? peer.id : formatAddr(peer.underlay);
  const notes: string[] = [];
  const wanted = await wantedKernel(view, signal);
  using resources = new DisposableStack();
  const only: readonly SniffedTraffic[] = [
    ...wanted.tunnel,
    { protocol: 'addresses', addresses: [to] },
    { protocol: 'icmp' },
  ];
  const watched = placesOf({ own, source, farHost, to, all, peer }).flatMap((place) =>
    watchedPlace(place, only, resources),
  );
  const places = watched.map(({ place }) => place);
  const watch = openWatch(notes);
  if (watch !== undefined) resources.use(watch);
  const agents = await agentsOf({ flags, peer, farHost, view, notes }, signal);
  const before = await countsOf(agents, signal);
  const port = request.protocol.kind === 'icmp' ? 0 : request.protocol.port;
  const open = (): OpenedPacket => {
    const packet = insideNamespace(source.path, () => resources.use(openTracePacket(to, request.protocol, flags.size)));
    return { packet, identity: { protocol: request.protocol.kind, destination: to, mark: packet.mark, port } };
  };
  const { packet, identity } = open();
  const errno = packet.send();
  const seen = await collect({ watched, drops: watch, identity, isSent: errno === 0 }, flags.wait, signal);
  const lost = watched.reduce((sum, { tap }) => sum + tap.statistics().dropped, 0);
  if (lost > 0) notes.push(`${lost} frames were skipped: hops may be missing`);
  const isFarSeen = places.some(({ host, name }) => host === farHost && name === 'host');
  const isFarAsked = before.hosts.has(farHost);
  const alone: TraceFacts = {
    ...{ protocol: request.protocol.kind, ...seen, farHost, isFarSeen, copies: 0, agentDrops: [] },
    source: places.find(({ isSource }) => isSource)!,
    sendError: errno === 0 ? undefined : errnoName(errno),
    hasFarAgentSeenMore: undefined,
  };
  let [facts, judged] = [alone, judgeTrace(alone)];
  if (judged.reason === 'unseen' && before.hosts.size > 0) {
    const sendCopy = (): void => void open().packet.send();
    const proof = await proveByCopies(agents, before, sendCopy, { farHost, waitMs: flags.wait * 1_000 }, signal);
    facts = {
      ...alone,
      copies: proof.copies,
      agentDrops: proof.drops,
      hasFarAgentSeenMore: countsArrivals(before, farHost) ? proof.hasArrived : undefined,
    };
    judged = judgeTrace(facts);
    notes.push(...proof.notes);
  }
  const rule = judged.reason === 'netfilter' ? await ruleOf(places, facts, judged, open, notes, signal) : undefined;
  const verdict = { ...judged, ...(rule && { rule }) };
  return {
    ok: verdict.outcome === 'answered' || verdict.outcome === 'delivered',
    ...{ from: request.from, to: formatAddr(to), protocol: [request.protocol.kind, port || ''].join(' ').trim() },
    ...{ farHost, far: { frames: isFarSeen, agent: isFarAsked } },
    ...{ hops: hopsOf(facts), verdict, copies: facts.copies, agentDrops: facts.agentDrops, notes },
  };
}

interface OpenedPacket {
  readonly packet: TracePacket;
  readonly identity: TraceIdentity;
}

/** Of how long a packet takes to where it was dropped. */
const RULE_MS = 2_000;
/** Between two looks at all rules, which may be many. */
const LEGACY_TURN_MS = 100;

/** By a second packet, which nftables is told to trace where the first was dropped, and by copies, which iptables-legacy counts. */
async function ruleOf(
  places: readonly Place[],
  facts: TraceFacts,
  verdict: TraceVerdict,
  open: () => OpenedPacket,
  notes: string[],
  signal: AbortSignal,
): Promise<DroppingRule | undefined> {
  const drop = netfilterDropOf(facts, verdict);
  const place = places.find((one) => (drop === undefined ? one.isSource : one === drop.place));
  // An ICMP error says that a firewall somewhere rejects it, and no more.
  if (place === undefined || (drop === undefined && facts.sendError === undefined)) return undefined;
  const { packet, identity } = open();
  const target = drop === undefined ? plainTarget(identity) : ruleTargetOf(drop.match);
  const options = {
    ...{ path: place.namespace.path, match: ruleMatch(identity, target), waitMs: RULE_MS, device: drop?.device ?? '' },
    ...{ send: () => void packet.send(), isLast: (line: string) => droppingRule(line) !== undefined },
  };
  const family = drop?.match.packet.ip.family ?? versionOf(identity.destination);
  const why: string[] = [];
  for (const find of [
    async () => (await traceRules(options, signal)).map(droppingRule).find((rule) => rule !== undefined),
    () => legacyRuleOf(place.namespace.path, family, open, signal),
  ]) {
    try {
      const rule = await find();
      if (rule !== undefined) return rule;
    } catch (error) {
      signal.throwIfAborted();
      why.push(describeError(error));
    }
  }
  notes.push(
    [
      'the rule is not known: nft monitor trace shows none that dropped a second packet, and no single one of iptables-legacy counts all copies',
      ...why,
    ].join('; '),
  );
  return undefined;
}

/** That which has counted copies of the packet: iptables-legacy has no other way to tell that does not change its rules. */
async function legacyRuleOf(
  path: string,
  family: IpFamily,
  open: () => OpenedPacket,
  signal: AbortSignal,
): Promise<DroppingRule | undefined> {
  const counts = async (): Promise<readonly LegacyCount[]> =>
    legacyCounts(family, await readLegacyTables(path, family, signal));
  const before = await counts();
  if (before.length === 0) return undefined;
  for (let i = 0; i < COPIES; i++) open().packet.send();
  const endMs = performance.now() + RULE_MS;
  for (;;) {
    await sleep(LEGACY_TURN_MS, undefined, { signal });
    const rule = ruleOfCopies(before, await counts(), COPIES);
    if (rule !== undefined || performance.now() >= endMs) return rule;
  }
}

function targetOf(peer: PeerView, word: string): IpAddr {
  const addr = parseAddr(word);
  return addr !== undefined && containsAddr(peer.subnet, addr) ? addr : peer.overlay;
}

type Known = readonly { readonly namespace: NetworkNamespace; readonly addresses: readonly IpAddr[] }[];

function sourceOf(view: HostView, word: string, own: NetworkNamespace, all: Known): NetworkNamespace {
  if (word === 'host') return own;
  const addr = parseAddr(word);
  if (addr !== undefined) {
    const found = all.find(({ addresses }) => addresses.includes(addr));
    if (found === undefined)
      throw usage(`no network namespace that can be seen from here has the address ${formatAddr(addr)}`);
    // What the host has of its own subnet are the addresses of the bridge and of the overlay's device.
    return present(view.known.own.subnets).some((subnet) => addr === gatewayOf(subnet)) ? own : found.namespace;
  }
  const path = /^\d+$/.test(word) ? `/proc/${word}/ns/net` : word.startsWith('/') ? word : `/run/netns/${word}`;
  try {
    return namespaceAt(path, word);
  } catch {
    throw usage(`${JSON.stringify(word)} is not a network namespace, process or address of this host`);
  }
}

interface PlaceFacts {
  readonly own: NetworkNamespace;
  readonly source: NetworkNamespace;
  readonly farHost: string;
  readonly to: IpAddr;
  readonly all: Known;
  readonly peer: PeerView;
}

/** Where the packet may be seen: each namespace once. Another machine's are not there. */
function placesOf({ own, source, farHost, to, all, peer }: PlaceFacts): readonly Place[] {
  const places = new Map<number, Place>();
  const add = (namespace: NetworkNamespace, host: string, name: string): void => {
    if (places.has(namespace.inode)) return;
    const isTarget = all.some(
      ({ namespace: { inode }, addresses }) => inode === namespace.inode && addresses.includes(to),
    );
    places.set(namespace.inode, { namespace, host, name, isSource: namespace.inode === source.inode, isTarget });
  };
  add(own, THIS_HOST, 'host');
  add(source, THIS_HOST, source.name);
  const { underlay } = peer;
  for (const { namespace, addresses } of all) {
    if (underlay !== undefined && addresses.includes(underlay)) add(namespace, farHost, 'host');
  }
  for (const { namespace, addresses } of all) if (addresses.includes(to)) add(namespace, farHost, namespace.name);
  return [...places.values()];
}

function openWatch(notes: string[]): DropWatch | undefined {
  try {
    return openDropWatch();
  } catch (error) {
    notes.push(`${describeError(error)}: the kernel’s drops have no reason here`);
    return undefined;
  }
}

interface WatchedPlace {
  readonly place: Place;
  readonly tap: PacketSocket;
  readonly devices: ReadonlyMap<number, string>;
}

/** None where a namespace has ended since they were listed, which this host's own and that of the source have not. */
function watchedPlace(
  place: Place,
  only: readonly SniffedTraffic[],
  resources: DisposableStack,
): readonly WatchedPlace[] {
  const { namespace, isSource } = place;
  const options = { device: 'all devices', ifIndex: 0, snapBytes: SNAP_BYTES, only };
  try {
    const tap = insideNamespace(namespace.path, () => resources.use(openPacketSocket(options)));
    return [{ place, tap, devices: devicesOf(namespace) }];
  } catch (error) {
    if (
      isSource ||
      namespace.path === OWN_NAMESPACE ||
      !(error instanceof WeftError && error.code === 'WEFT_KERNEL_STATE')
    )
      throw error;
    return [];
  }
}

interface Collecting {
  readonly watched: readonly WatchedPlace[];
  readonly drops: DropWatch | undefined;
  readonly identity: TraceIdentity;
  readonly isSent: boolean;
}

async function collect(
  { watched, drops, identity, isSent }: Collecting,
  waitSeconds: number,
  signal: AbortSignal,
): Promise<{ readonly sightings: readonly TraceSighting[]; readonly kernelDrops: readonly TraceDrop[] }> {
  const sightings: TraceSighting[] = [];
  const kernelDrops: TraceDrop[] = [];
  const turn = (): void => {
    for (const { place, tap, devices } of watched) {
      for (const { linkType, bytes, ifIndex, direction, timeNs } of tap.receive(PER_TURN)) {
        const match = matchFrame(identity, linkType, bytes);
        if (match === undefined) continue;
        const device = devices.get(ifIndex) ?? `device ${ifIndex}`;
        sightings.push({
          ...{ place, device, timeNs, match },
          direction: direction === 'inbound' ? 'in' : 'out',
        });
      }
    }
    for (const drop of drops?.take() ?? []) {
      const place = watched.find(({ place: { namespace } }) => namespace.inode === drop.namespace)?.place;
      const match = place && matchIp(identity, drop.bytes);
      if (match === undefined) continue;
      const { device, reason, timeNs } = drop;
      kernelDrops.push({ place: place!, device, reason, function: drop.place, timeNs, match });
    }
  };
  const endMs = performance.now() + (isSent ? waitSeconds * 1_000 : 0);
  while (performance.now() < endMs && !sightings.some(isHome)) {
    await sleep(TURN_MS, undefined, { signal });
    turn();
  }
  await sleep(SETTLE_MS, undefined, { signal });
  turn();
  return { sightings, kernelDrops };
}
