import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import type { FastPathState } from '../../agent/ports.ts';
import type { ForwarderUnderlay } from '../../backend/backend.ts';
import type { DestinationCheck } from '../../dataplane/destination-check.ts';
import { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { inboundProgram } from '../../dataplane/fast-path/inbound-program.ts';
import { type MapName, mapsBy, type UnderlayLayout, underlayLayout } from '../../dataplane/fast-path/layout.ts';
import type { FastPathInMode } from '../../dataplane/fast-path/mode.ts';
import { outboundProgram } from '../../dataplane/fast-path/outbound-program.ts';
import type { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { SignExchange } from '../../dataplane/fast-path/sign-exchange.ts';
import type { ProgramOptions } from '../../dataplane/fast-path/skb-program.ts';
import { xdpProgram } from '../../dataplane/fast-path/xdp-program.ts';
import { MAX_PEERS } from '../../dataplane/supervisor.ts';
import { describeError, WeftError } from '../../errors.ts';
import { formatAddr, type IpAddr, isIpv4, parseAddr } from '../../ip/address.ts';
import { attachTcx, attachXdp, createBpfMap, loadClassifier, loadXdp } from '../../linux/bpf.ts';
import { removeOthers } from '../../linux/bpf-directory.ts';
import { type DeviceFacts, readDeviceAddress, readDeviceFacts, readDeviceIndex } from '../../linux/ethtool.ts';
import { errnoName } from '../../linux/ffi.ts';
import { IpMonitor } from '../../linux/link-monitor.ts';
import { readTextIfThere } from '../../linux/read-text.ts';
import { readXfrmPolicies } from '../../linux/xfrm.ts';
import { ticker } from '../../ticker.ts';

/** How many entries a map may have: one for each peer, but for these. */
const ONE_A_PEER = MAX_PEERS + 1;
const ENTRIES: Partial<Readonly<Record<MapName, number>>> = {
  // Looking for an entry of a hash table, the kernel walks its buckets, of which there are as many as it may have entries, and this one is
  // looked at again and again. Hosts that find no room in one turn are named in a later one.
  awaiting: 1_024,
  agent: 1,
};

/** Maps of another layout are in other directories, and go when their programs have been replaced. */
const LAYOUT_PREFIX = 'layout-';
const layoutDirectory = (directory: string, { name }: UnderlayLayout): string =>
  join(directory, `${LAYOUT_PREFIX}${name}`);
const SIDES = ['out', 'in'] as const;
/** With the maps that its program knows, so that it ends with them also where an agent of another layout knows nothing of it. */
const xdpPin = (directory: string, layout: UnderlayLayout): string => join(layoutDirectory(directory, layout), 'xdp');

/**
 * The maps of the fast path in this host's kernel.
 * @param directory where they are kept, and may be already, with what an agent before this one knew.
 * @param underlay by which version of IP the hosts reach each other.
 * @throws WeftError WEFT_FAST_PATH when it has no BPF for us.
 */
export function createFastPathTables(directory: string | undefined, underlay: 4 | 6): FastPathTables {
  using stack = new DisposableStack();
  const layout = underlayLayout(underlay);
  const maps = directory === undefined ? undefined : layoutDirectory(directory, layout);
  if (maps !== undefined) mkdirSync(maps, { recursive: true, mode: 0o700 });
  const tables = new FastPathTables(
    mapsBy(layout, (each, shape) => {
      const name = `weft_${each}`;
      const options = { ...shape, name, maxEntries: ENTRIES[each] ?? ONE_A_PEER };
      return stack.use(createBpfMap(options, maps && join(maps, name)));
    }),
    underlay,
  );
  stack.move();
  return tables;
}

/** How often the agent says that it is there, and looks which grants that are in use are to be renewed. */
const BEAT_MS = 500;
const RENEWALS_AT_ONCE = 1_024;

/** Without a word of the agent for so long, the programs hold what they know; a loaded machine must not bring that about. */
const AGENT_HOLDS_NS = 1_250_000_000n;

/** Longer than a restart: then somebody should look. */
const ALONE_COUNTS_AFTER_NS = 60_000_000_000n;

/** CLOCK_MONOTONIC, as that of the programs. */
const monotonicNow = (): bigint => process.hrtime.bigint();

/** Where maps and attachments are kept while there is no agent. */
export interface FastPathKeeping {
  /** `undefined`: they end with it. */
  readonly directory: string | undefined;
  /** Why they do although they should not. */
  readonly obstacle?: string;
}

export type SendSign = (
  to: { readonly addr: IpAddr; readonly port: number },
  packet: Uint8Array,
  checksum: 'checksum' | 'no-checksum',
) => boolean;

/** What is asked of packets that come from peers, and where they are met. */
export interface InboundWish {
  readonly destinationCheck: DestinationCheck;
  readonly fastPathIn: FastPathInMode;
}

/** How soon a device that was made anew, or whose offloads somebody switched, is noticed. */
const LOOK_MS = 1_000;

/**
 * Opens the fast path and keeps it open, until disposed: on the devices there are, as their features say. What keeps it closed
 * keeps no packet back, they go through the forwarder. What the kernel refused is tried again when something has changed.
 *
 * Where it is kept, programs go on when this is disposed, with what they know, and those of an agent before this one are taken over:
 * packets miss nothing, and the agent counts as there once it has told them its own peers.
 * @param inbound what is asked of packets from peers, and whether XDP is to meet them.
 * @param signals what the packet workers have to tell.
 * @param send sends a sign to a peer by the forwarder's socket, or without a checksum; false when it may not.
 * @param onState told at once, and whenever something has changed.
 * @param onNotice for whoever reads the log.
 */
export function keepFastPathOpen(
  tables: FastPathTables,
  keeping: FastPathKeeping,
  underlay: () => ForwarderUnderlay,
  inbound: InboundWish,
  signals: readonly SignalQueue[],
  send: SendSign,
  onState: (state: FastPathState) => void,
  onNotice: (text: string) => void,
): Disposable {
  const { directory } = keeping;
  let opened: { readonly place: Place; readonly number: bigint; readonly attached: Attached } | undefined;
  let seen = '';
  let exchange: SignExchange | undefined;
  const detach = (): void => {
    opened?.attached[Symbol.dispose]();
    opened = undefined;
    exchange = undefined;
  };
  const close = (): void => {
    exchange?.end();
    detach();
    if (directory === undefined) return;
    for (const pin of [xdpPin(directory, tables.layout), ...SIDES.map((side) => join(directory, side))])
      rmSync(pin, { force: true });
  };
  let lastBeat = 0n;
  const leave = (): void => {
    // The next agent may be there already.
    const isLast = tables.agent().until === lastBeat;
    if (opened !== undefined && isLast) tables.beat(monotonicNow(), opened.number);
    detach();
  };
  const beat = (): void => {
    if (opened === undefined || !tables.isPublished) return;
    if (exchange === undefined) {
      exchange = exchangeFor(tables, opened.place, send);
      for (const [address, grant] of tables.held(monotonicNow())) exchange.resume(address, grant);
    }
    lastBeat = monotonicNow() + AGENT_HOLDS_NS;
    tables.beat(lastBeat, opened.number);
  };
  let alone = '';
  const tellOfAlone = (): void => {
    const peers = (opened && exchange?.aloneFor(ALONE_COUNTS_AFTER_NS)) ?? [];
    const now = peers.map(formatAddr).sort().join(', ');
    if (now === alone) return;
    alone = now;
    if (opened === undefined) return;
    const text =
      now === ''
        ? 'No peer carries packets without an agent any longer'
        : `Peers that have carried packets without an agent for a minute: ${now}`;
    onState({ isOpen: true, obstacle: undefined, peersAlone: peers.length, text });
  };
  const open = (place: Place): FastPathState => {
    try {
      const attached = attach(tables, place, inbound.destinationCheck, directory);
      opened = { place, number: numberOf(place), attached };
      // One that was made meanwhile had nobody to tell.
      const obstacle = ipsecObstacle();
      if (obstacle !== undefined) {
        close();
        return obstacle;
      }
      beat();
      return {
        isOpen: true,
        obstacle: undefined,
        peersAlone: 0,
        text: describeOpen(place, attached.refusal, keeping),
      };
    } catch (error) {
      close();
      return withoutFastPath(error);
    }
  };
  const look = (): void => {
    const between = underlay();
    const found =
      ipsecObstacle() ?? forwardingObstacle(between) ?? survey(between, inbound.fastPathIn, opened?.place.underlayName);
    const now = textOf(found);
    if (now === seen) return;
    seen = now;
    // What is there at first is another agent's, to be taken over.
    if (opened !== undefined || 'isOpen' in found) close();
    onState('isOpen' in found ? found : open(found));
  };
  look();
  const looks = ticker.every(LOOK_MS, look);
  const watching = new AbortController();
  void watchIpsec(look, onNotice, watching.signal);
  const beats = ticker.every(BEAT_MS, () => {
    beat();
    for (const address of tables.takeAwaiting(RENEWALS_AT_ONCE)) exchange?.renew(address);
    exchange?.tick();
    tellOfAlone();
  });
  const readings = signals.map((queue) => queue.read((signal) => exchange?.take(signal)));
  return {
    [Symbol.dispose]: () => {
      watching.abort();
      looks[Symbol.dispose]();
      beats[Symbol.dispose]();
      for (const reading of readings) reading[Symbol.dispose]();
      if (directory === undefined) close();
      else leave();
    },
  };
}

export function withoutFastPath(error: unknown): FastPathState {
  const text = `All packets pass through the forwarder, because there is no fast path in the kernel: ${describeError(error)}`;
  return { isOpen: false, obstacle: 'unavailable', peersAlone: 0, text };
}

/** The programs see packets where IPsec does not: on the way out behind it, on the way in before it. */
function withoutFastPathForIpsec(what: string): FastPathState {
  const text = `All packets pass through the forwarder: ${what}, and the fast path in the kernel would bypass IPsec`;
  return { isOpen: false, obstacle: 'ipsec-policy', peersAlone: 0, text };
}

function ipsecObstacle(): FastPathState | undefined {
  const policies = readXfrmPolicies();
  if (typeof policies === 'number') {
    return withoutFastPathForIpsec(`the kernel does not say which IPsec policies it has (${errnoName(policies)})`);
  }
  if (policies.count > 0)
    return withoutFastPathForIpsec(`this host has ${policies.count} IPsec policies (ip xfrm policy)`);
  if (policies.blocksByDefault) return withoutFastPathForIpsec('IPsec policy blocks by default on this host');
  return undefined;
}

/** The kernel gives a program no way to an IPv6 address unless the device that it asks for, loopback, forwards. */
const LOOPBACK_FORWARDS = '/proc/sys/net/ipv6/conf/lo/forwarding';

function forwardingObstacle({ listenAddress }: ForwarderUnderlay): FastPathState | undefined {
  if (isIpv4(listenAddress) || readTextIfThere(LOOPBACK_FORWARDS).trim() !== '0') return undefined;
  const text =
    'All packets pass through the forwarder: this host does not forward IPv6, and without that the kernel gives the fast path no way to ' +
    'other hosts. Run sysctl -w net.ipv6.conf.all.forwarding=1, which containers need to reach other hosts in any case';
  return { isOpen: false, obstacle: 'ipv6-forwarding', peersAlone: 0, text };
}

/** Looks again whenever somebody changes an IPsec policy, until aborted; a kernel without IPsec has nothing to listen to. */
async function watchIpsec(look: () => void, onLost: (text: string) => void, signal: AbortSignal): Promise<void> {
  const policies = readXfrmPolicies();
  if (typeof policies !== 'number' && !policies.isSupported) return;
  for await (const _ of new IpMonitor({ about: 'ipsec-policies', onLost }).changes(() => true, signal)) look();
}

/** What the programs are made for. */
interface Place extends Omit<ProgramOptions, 'maps' | 'destinationCheck'> {
  readonly underlayName: string;
  readonly wayIn: WayIn;
}

/** Whether XDP is to take what peers send, or why it is not although somebody might want it. */
type WayIn =
  | { readonly type: 'xdp'; readonly ownMac: readonly number[] }
  | { readonly type: 'tcx'; readonly obstacle: string | undefined };

/** Drivers with native XDP for which no price but a moment's reset at the start is known; see ADR 20. */
const XDP_DRIVERS: ReadonlySet<string> = new Set([
  ...['bnxt_en', 'i40e', 'ice', 'igb', 'igc', 'ixgbe', 'mlx4_en', 'mlx5_core'],
  ...['mvneta', 'mvpp2', 'nfp', 'qede', 'sfc'],
]);
/** What a page holds beside the headroom of XDP and what the kernel keeps behind the packet; drivers refuse a larger MTU. */
const XDP_MAX_MTU = 3_400;
/** A card, or a virtual machine's host, that joins datagrams leaves nothing whole to take headers off. */
const JOINING_FEATURES = ['rx-lro', 'rx-gro-hw'];

function wayInOf({ driver, features, mtuBytes, macAddress }: DeviceFacts, name: string, mode: FastPathInMode): WayIn {
  const not = (obstacle?: string): WayIn => ({ type: 'tcx', obstacle });
  if (mode === 'off' || (mode === 'auto' && !XDP_DRIVERS.has(driver))) return not();
  if (mtuBytes > XDP_MAX_MTU) return not(`the MTU of ${name} is ${mtuBytes}, and XDP takes ${XDP_MAX_MTU} at most`);
  const joining = JOINING_FEATURES.filter((feature) => features.has(feature));
  if (joining.length > 0) return not(`${name} has ${joining.join(' and ')} on (ethtool -K ${name} ${joining[0]} off)`);
  return { type: 'xdp', ownMac: macAddress };
}

/** Or why there is no place for a fast path. @param nameBefore of the device that the underlay's address was on. */
function survey(
  underlay: ForwarderUnderlay,
  fastPathIn: FastPathInMode,
  nameBefore: string | undefined,
): Place | FastPathState {
  try {
    return surveyPlace(underlay, fastPathIn, nameBefore);
  } catch (error) {
    return withoutFastPath(error);
  }
}

function surveyPlace(
  { tunName, listenAddress, listenPort, carriesIpv6 }: ForwarderUnderlay,
  fastPathIn: FastPathInMode,
  nameBefore: string | undefined,
): Place {
  const underlayName = deviceWith(listenAddress, nameBefore);
  const underlay = factsOf(underlayName);
  if (!underlay.isEthernet) throw new WeftError('WEFT_FAST_PATH', `${underlayName} is not an Ethernet device`);
  return {
    ownAddress: listenAddress,
    ownPort: listenPort,
    tunIndex: indexOf(tunName),
    underlayName,
    underlayIndex: underlay.index,
    segmentation: segmentationOf(underlay.features),
    carriesIpv6,
    wayIn: wayInOf(underlay, underlayName, fastPathIn),
  };
}

function describeOpen(place: Place, refusal: string | undefined, keeping: FastPathKeeping): string {
  const where = `${describePlace(place)}${describeWayIn(place, refusal)}${describeKeeping(keeping)}`;
  return `Packets take the fast path in the kernel ${where}`;
}

function describePlace({ segmentation, underlayName }: Place): string {
  return segmentation === 'host'
    ? `outbound through ${underlayName}, where this host segments super-packets`
    : `through ${underlayName}, to peers that receive super-packets in one piece`;
}

function describeWayIn({ wayIn, underlayName }: Place, refusal: string | undefined): string {
  const obstacle = wayIn.type === 'xdp' ? refusal : wayIn.obstacle;
  if (obstacle !== undefined) return `, without XDP on the way in: ${obstacle}`;
  return wayIn.type === 'xdp' ? `, and XDP takes what ${underlayName} receives from peers` : '';
}

function describeKeeping({ directory, obstacle }: FastPathKeeping): string {
  if (directory !== undefined) return ', also while the agent is away';
  return obstacle === undefined ? '' : `, until the agent ends: ${obstacle}`;
}

interface Attached extends Disposable {
  /** Why there is no XDP although the place has room for it. */
  readonly refusal: string | undefined;
}

/** What is known counts for the place where it was learned, and as long as the programs were there all the time. */
function attach(
  tables: FastPathTables,
  place: Place,
  destinationCheck: DestinationCheck,
  directory: string | undefined,
): Attached {
  const options = { maps: tables.maps, ...place, destinationCheck };
  if (tables.agent().place !== numberOf(place)) tables.forget();
  using stack = new DisposableStack();
  const open = (side: (typeof SIDES)[number], code: Uint8Array, device: number): boolean => {
    const program = stack.use(loadClassifier(`weft_${side}`, code));
    const tcxSide = side === 'in' ? 'ingress' : 'egress';
    return stack.use(attachTcx(program, device, tcxSide, directory && join(directory, side))).isTakenOver;
  };
  const areTakenOver = [
    open('out', outboundProgram(options), place.tunIndex),
    open('in', inboundProgram(options), place.underlayIndex),
  ];
  if (areTakenOver.includes(false)) tables.forget();
  // Last, because what it takes needs the one behind it.
  const refusal = attachWayIn(options, place.wayIn, directory && xdpPin(directory, tables.layout), stack);
  if (directory !== undefined) removeOthers(directory, LAYOUT_PREFIX, layoutDirectory(directory, tables.layout));
  const held = stack.move();
  return { refusal, [Symbol.dispose]: () => held.dispose() };
}

/** Why there is none, where the kernel refuses it: packets then take the other ways. */
function attachWayIn(
  options: ProgramOptions,
  wayIn: WayIn,
  pin: string | undefined,
  stack: DisposableStack,
): string | undefined {
  if (wayIn.type !== 'xdp') {
    if (pin !== undefined) rmSync(pin, { force: true });
    return undefined;
  }
  try {
    const program = stack.use(loadXdp('weft_xdp', xdpProgram({ ...options, ownMac: wayIn.ownMac })));
    stack.use(attachXdp(program, options.underlayIndex, pin));
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

/** JSON, of addresses of either family. */
const textOf = (value: Place | FastPathState): string =>
  JSON.stringify(value, (_key, part: unknown) => (typeof part === 'bigint' ? `${part}` : part));

function numberOf(place: Place): bigint {
  return createHash('sha256').update(textOf(place)).digest().readBigUInt64LE();
}

function exchangeFor(
  tables: FastPathTables,
  { ownAddress, segmentation, carriesIpv6 }: Place,
  send: SendSign,
): SignExchange {
  return new SignExchange({
    now: monotonicNow,
    randomBytes: (count) => Uint8Array.from(randomBytes(count)),
    ownAddress,
    segmentation,
    carriesIpv6,
    send: (addr, packet, checksum) => {
      const port = tables.portOf(addr);
      return port !== undefined && send({ addr, port }, packet, checksum);
    },
    grant: (address, grant) => tables.grant(address, grant),
    isPeer: (address) => tables.portOf(address) !== undefined,
    observed: (address) => tables.observed(address),
  });
}

/** What leaves a device without TSO and checksum offload is complete: cut and summed by this host's kernel. */
function segmentationOf(features: ReadonlySet<string>): ProgramOptions['segmentation'] {
  const offloads = [
    ...['tx-tcp-segmentation', 'tx-tcp6-segmentation'],
    ...['tx-checksum-ipv4', 'tx-checksum-ipv6', 'tx-checksum-ip-generic'],
  ];
  return offloads.some((offload) => features.has(offload)) ? 'beyond' : 'host';
}

/** @param before likely the same. */
function deviceWith(address: IpAddr, before: string | undefined): string {
  if (before !== undefined && isIpv4(address) && readDeviceAddress(before) === address) return before;
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (addresses?.some((entry) => parseAddr(entry.address) === address)) return name;
  }
  throw new WeftError('WEFT_FAST_PATH', `no device has the address ${formatAddr(address)}`);
}

function factsOf(name: string): DeviceFacts {
  const facts = readDeviceFacts(name);
  if (typeof facts !== 'number') return facts;
  throw new WeftError('WEFT_FAST_PATH', `failed to read the features of ${name}: ${errnoName(facts)}`);
}

function indexOf(name: string): number {
  const index = readDeviceIndex(name);
  if (index >= 0) return index;
  throw new WeftError('WEFT_FAST_PATH', `failed to read the index of ${name}: ${errnoName(index)}`);
}
