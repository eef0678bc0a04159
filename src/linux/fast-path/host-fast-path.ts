import { isDeepStrictEqual } from 'node:util';
import type { DestinationCheck } from '../../dataplane/destination-check.ts';
import type { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { Heartbeat } from '../../dataplane/fast-path/heartbeat.ts';
import { Introduction } from '../../dataplane/fast-path/introduction.ts';
import type { FastPathInMode, FastPathState } from '../../dataplane/fast-path/mode.ts';
import type { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { SignExchange } from '../../dataplane/fast-path/sign-exchange.ts';
import type { ForwarderUnderlay } from '../../dataplane/forwarder-underlay.ts';
import { describeError } from '../../errors.ts';
import { formatAddr, isIpv4 } from '../../ip/address.ts';
import { ticker } from '../../ticker.ts';
import { unguessable } from '../../unguessable.ts';
import {
  NETLINK_ROUTE,
  NETLINK_XFRM,
  RTMGRP_IPV4_IFADDR,
  RTMGRP_IPV6_IFADDR,
  RTMGRP_LINK,
  XFRMGRP_EXPIRE,
  XFRMGRP_POLICY,
} from '../constants.ts';
import { errnoName } from '../ffi.ts';
import { KernelChanges } from '../kernel-changes.ts';
import { IpMonitor } from '../link-monitor.ts';
import { readTextIfThere } from '../read-text.ts';
import { readXfrmPolicies } from '../xfrm.ts';
import type { FastPathKeeping } from './kept-tables.ts';
import { describePlace, type Place, placeNumber, placeText, surveyPlace } from './place.ts';
import { type AttachedPrograms, areKeptByOthers, attachPrograms, endKept } from './programs.ts';
import type { SendSign } from './sign-sender.ts';

/** How soon a device that was made anew, or whose offloads somebody switched, is noticed. */
const LOOK_MS = 1_000;
/** The kernel tells of all that is looked at; who does not believe it looks after so long. */
const LOOK_IN_ANY_CASE_MS = 30_000;

/** How often the agent says that it is there, and looks which grants that are in use are to be renewed. */
const BEAT_MS = 500;
const RENEWALS_AT_ONCE = 1_024;
const INTRODUCTION_LOOK_MS = 20;

/** Longer than a restart: then somebody should look. */
const ALONE_COUNTS_AFTER_NS = 60_000_000_000n;

/** CLOCK_MONOTONIC, as that of the programs. */
const monotonicNow = (): bigint => process.hrtime.bigint();

export interface FastPathParts {
  readonly tables: FastPathTables;
  readonly keeping: FastPathKeeping;
  /** Between which device and which socket the forwarder carries packets now. */
  readonly underlay: () => ForwarderUnderlay;
  /** What is asked of packets that come from peers. */
  readonly destinationCheck: DestinationCheck;
  /** Whether XDP is to meet them. */
  readonly fastPathIn: FastPathInMode;
  /** What the packet workers have to tell. */
  readonly signals: readonly SignalQueue[];
  /** Sends a sign to a peer by the forwarder's socket, or without a checksum; false when it may not. */
  readonly send: SendSign;
  /** Told at once, and whenever something has changed. */
  readonly onState: (state: FastPathState) => void;
  /** For whoever reads the log. */
  readonly onNotice: (text: string) => void;
}

/**
 * Opens the fast path and keeps it open, until disposed: on the devices there are, as their features say. What keeps it closed
 * keeps no packet back, they go through the forwarder. What the kernel refused is tried again when something has changed.
 *
 * Where it is kept, programs go on when this is disposed, with what they know, and those of an agent before this one are taken over:
 * packets miss nothing, and the agent counts as there once it has told them its own peers.
 */
export class HostFastPath implements Disposable {
  readonly #parts: FastPathParts;
  readonly #running = new DisposableStack();
  #opened: { readonly place: Place; readonly number: bigint; readonly attached: AttachedPrograms } | undefined;
  /** Devices, their features and addresses, and IPsec policies. */
  readonly #changes = new KernelChanges([
    { protocol: NETLINK_ROUTE, groups: RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR },
    { protocol: NETLINK_XFRM, groups: XFRMGRP_POLICY | XFRMGRP_EXPIRE },
  ]);
  /** What the last look was at, when, and what it has found, as text. */
  #lookedAt: ForwarderUnderlay | undefined;
  #lookedAtMs = 0;
  #seen = '';
  #exchange: SignExchange | undefined;
  #introducing: NodeJS.Timeout | undefined;
  readonly #heartbeat: Heartbeat;
  /** Peers that have gone on without an agent for long, as last told. */
  #alone = '';

  constructor(parts: FastPathParts) {
    this.#parts = parts;
    this.#heartbeat = new Heartbeat(parts.tables);
    this.#look();
    const watching = new AbortController();
    this.#running.defer(() => watching.abort());
    void watchIpsec(() => this.#look(), parts.onNotice, watching.signal);
    this.#running.use(this.#changes);
    this.#running.use(ticker.every(LOOK_MS, () => this.#lookIfChanged()));
    this.#running.use(ticker.every(BEAT_MS, () => this.#renew()));
    for (const queue of parts.signals) this.#running.use(queue.read((signal) => this.#exchange?.take(signal)));
  }

  [Symbol.dispose](): void {
    this.#running.dispose();
    if (this.#parts.keeping.directory === undefined) this.#close();
    else this.#leave();
  }

  #lookIfChanged(): void {
    const hasChanged = this.#changes.take();
    const now = this.#parts.underlay();
    // Whether a host forwards IPv6 is told in other ways.
    const isToldOf = isIpv4(now.listenAddress) && isDeepStrictEqual(now, this.#lookedAt);
    const isLongAgo = performance.now() - this.#lookedAtMs > LOOK_IN_ANY_CASE_MS;
    if (hasChanged || !isToldOf || isLongAgo) this.#look();
  }

  #look(): void {
    const { underlay, fastPathIn, onState } = this.#parts;
    const between = underlay();
    this.#lookedAt = between;
    this.#lookedAtMs = performance.now();
    const nameBefore = this.#opened?.place.underlayName;
    const found = ipsecObstacle() ?? forwardingObstacle(between) ?? survey(between, fastPathIn, nameBefore);
    const now = 'isOpen' in found ? JSON.stringify(found) : placeText(found);
    if (now === this.#seen) return;
    this.#seen = now;
    // What is there at first is another agent's, to be taken over.
    if (this.#opened !== undefined || 'isOpen' in found) this.#close();
    if ('isOpen' in found) onState(found);
    else if (this.#isToBeIntroduced(found)) this.#introduce(found);
    else onState(this.#open(found));
  }

  /** Where peers must have answered before they are sent to, and send what needs a program here. */
  #isToBeIntroduced(place: Place): boolean {
    const { tables, keeping } = this.#parts;
    if (keeping.directory === undefined || (place.segmentation === 'host' && isIpv4(place.ownAddress))) return false;
    return tables.agent().place !== placeNumber(place) && areKeptByOthers(keeping.directory, tables.layout);
  }

  /** The programs that are there go on until the peers know this agent. */
  #introduce(place: Place): void {
    const { tables, onState } = this.#parts;
    this.#detach();
    tables.forget();
    // What is granted from here on counts for this place.
    tables.beat(monotonicNow(), placeNumber(place));
    const exchange = this.#exchangeFor(place);
    this.#exchange = exchange;
    const introduction = new Introduction({ tables, exchange, now: monotonicNow });
    this.#introducing = setInterval(() => {
      if (!introduction.isOver()) return;
      // Peers learn the new tags when they ask the next time, and their answers hold for longer than until then.
      for (const [address, { sendUntil }] of tables.held(monotonicNow())) tables.hears(address, sendUntil);
      onState(this.#open(place));
    }, INTRODUCTION_LOOK_MS);
  }

  #open(place: Place): FastPathState {
    const { tables, keeping, destinationCheck } = this.#parts;
    clearInterval(this.#introducing);
    try {
      const attached = attachPrograms(tables, place, destinationCheck, keeping.directory);
      // Tags that an exchange has given out are of no use without what was granted with them.
      if (!attached.isTakenOver) this.#exchange = undefined;
      this.#opened = { place, number: placeNumber(place), attached };
      // One that was made meanwhile had nobody to tell.
      const obstacle = ipsecObstacle();
      if (obstacle !== undefined) {
        this.#close();
        return obstacle;
      }
      this.#beat();
      const where = `${describePlace(place, attached.refusal)}${describeKeeping(keeping)}`;
      return stateOf(0, `Packets take the fast path in the kernel ${where}`);
    } catch (error) {
      this.#close();
      return withoutFastPath(error);
    }
  }

  #detach(): void {
    clearInterval(this.#introducing);
    this.#opened?.attached[Symbol.dispose]();
    this.#opened = undefined;
    this.#exchange = undefined;
  }

  #close(): void {
    const { tables, keeping } = this.#parts;
    this.#exchange?.end();
    this.#detach();
    if (keeping.directory !== undefined) endKept(keeping.directory, tables.layout);
  }

  /** The programs go on. */
  #leave(): void {
    if (this.#opened !== undefined) this.#heartbeat.end(monotonicNow(), this.#opened.number);
    this.#detach();
  }

  /** Tells the programs that there is an agent, once they know its peers. */
  #beat(): void {
    const { tables } = this.#parts;
    if (this.#opened === undefined || !tables.isPublished) return;
    if (this.#exchange === undefined) {
      this.#exchange = this.#exchangeFor(this.#opened.place);
      for (const [address, grant] of tables.held(monotonicNow())) this.#exchange.resume(address, grant);
    }
    this.#heartbeat.beat(monotonicNow(), this.#opened.number);
  }

  #exchangeFor({ ownAddress, segmentation, carriesIpv6 }: Place): SignExchange {
    const { tables, send } = this.#parts;
    return new SignExchange({
      now: monotonicNow,
      randomBytes: unguessable,
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
      hasPrograms: () => this.#opened !== undefined,
      takesCut: () => this.#opened?.attached.takesCut === true,
    });
  }

  #renew(): void {
    this.#beat();
    for (const address of this.#parts.tables.takeAwaiting(RENEWALS_AT_ONCE)) this.#exchange?.renew(address);
    this.#exchange?.tick();
    this.#tellOfAlone();
  }

  #tellOfAlone(): void {
    const peers = (this.#opened && this.#exchange?.aloneFor(ALONE_COUNTS_AFTER_NS)) ?? [];
    const now = peers.map(formatAddr).sort().join(', ');
    if (now === this.#alone) return;
    this.#alone = now;
    if (this.#opened === undefined) return;
    const text =
      now === ''
        ? 'No peer carries packets without an agent any longer'
        : `Peers that have carried packets without an agent for a minute: ${now}`;
    this.#parts.onState(stateOf(peers.length, text));
  }
}

function stateOf(peersAlone: number, text: string): FastPathState {
  return { isOpen: true, obstacle: undefined, peersAlone, text };
}

/** All packets pass through the forwarder, because of what was thrown. */
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

/** The place, or why there is none. */
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

function describeKeeping({ directory, obstacle }: FastPathKeeping): string {
  if (directory !== undefined) return ', even while the agent is down';
  return obstacle === undefined ? '' : `, until the agent ends: ${obstacle}`;
}
