import { randomBytes } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import type { FastPathState } from '../../agent/ports.ts';
import type { ForwarderUnderlay } from '../../backend/backend.ts';
import type { DestinationCheck } from '../../dataplane/destination-check.ts';
import { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { inboundProgram } from '../../dataplane/fast-path/inbound-program.ts';
import {
  AWAITING_BYTES,
  COUNTER_KEY_BYTES,
  COUNTER_VALUE_BYTES,
  ENDPOINT_KEY_BYTES,
  ENDPOINT_VALUE_BYTES,
  GRANT_KEY_BYTES,
  GRANT_VALUE_BYTES,
  OWN_KEY_BYTES,
  OWN_VALUE_BYTES,
  SUBNET_KEY_BYTES,
  SUBNET_VALUE_BYTES,
} from '../../dataplane/fast-path/layout.ts';
import { outboundProgram } from '../../dataplane/fast-path/outbound-program.ts';
import type { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { SignExchange } from '../../dataplane/fast-path/sign-exchange.ts';
import type { ProgramOptions } from '../../dataplane/fast-path/skb-program.ts';
import { MAX_PEERS } from '../../dataplane/supervisor.ts';
import { describeError, WeftError } from '../../errors.ts';
import { formatIpv4, type Ipv4Addr } from '../../ip/ipv4.ts';
import { attachTcx, createBpfMap, loadClassifier } from '../../linux/bpf.ts';
import { type DeviceFacts, readDeviceFacts } from '../../linux/ethtool.ts';
import { errnoName } from '../../linux/ffi.ts';
import { IpMonitor } from '../../linux/link-monitor.ts';
import { readXfrmPolicies } from '../../linux/xfrm.ts';

const maxEntries = MAX_PEERS + 1;

/** The maps of the fast path in this host's kernel. @throws WeftError WEFT_FAST_PATH when it has no BPF for us. */
export function createFastPathTables(): FastPathTables {
  using stack = new DisposableStack();
  const map = (kind: 'hash' | 'lpm-trie', name: string, keyBytes: number, valueBytes: number) =>
    stack.use(createBpfMap({ kind, name, keyBytes, valueBytes, maxEntries }));
  const tables = new FastPathTables({
    subnets: map('lpm-trie', 'weft_subnets', SUBNET_KEY_BYTES, SUBNET_VALUE_BYTES),
    own: map('hash', 'weft_own', OWN_KEY_BYTES, OWN_VALUE_BYTES),
    endpoints: map('hash', 'weft_endpoints', ENDPOINT_KEY_BYTES, ENDPOINT_VALUE_BYTES),
    grants: map('hash', 'weft_grants', GRANT_KEY_BYTES, GRANT_VALUE_BYTES),
    counters: map('hash', 'weft_counters', COUNTER_KEY_BYTES, COUNTER_VALUE_BYTES),
    awaiting: map('hash', 'weft_awaiting', AWAITING_BYTES, AWAITING_BYTES),
  });
  stack.move();
  return tables;
}

/** How soon grants are renewed that are in use; with the second between occasions, well before they end. */
const RENEW_MS = 250;
const RENEWALS_AT_ONCE = 1_000;

/** How soon a device that was made anew, or whose offloads somebody switched, is noticed. */
const LOOK_MS = 1_000;

/**
 * Opens the fast path and keeps it open, until disposed: on the devices there are, as their features say. What keeps it closed
 * keeps no packet back, they go through the forwarder. What the kernel refused is tried again when something has changed.
 * @param signals what the packet workers have to tell.
 * @param send sends a sign to a peer by the forwarder's socket; false when it may not.
 * @param onState told at once, and whenever something has changed.
 */
export function keepFastPathOpen(
  tables: FastPathTables,
  underlay: () => ForwarderUnderlay,
  destinationCheck: DestinationCheck,
  signals: readonly SignalQueue[],
  send: (address: Ipv4Addr, port: number, packet: Uint8Array) => boolean,
  onState: (state: FastPathState) => void,
): Disposable {
  let attached: Disposable | undefined;
  let seen = '';
  let exchange: SignExchange | undefined;
  const close = (): void => {
    exchange?.end();
    exchange = undefined;
    attached?.[Symbol.dispose]();
    attached = undefined;
  };
  const open = (place: Place): FastPathState => {
    try {
      attached = attach(tables, place, destinationCheck);
      exchange = exchangeFor(tables, place, send);
      // One that was made meanwhile had nobody to tell.
      const obstacle = ipsecObstacle();
      if (obstacle !== undefined) {
        close();
        return obstacle;
      }
      return {
        isOpen: true,
        obstacle: undefined,
        text: `Packets take the fast path in the kernel ${describePlace(place)}`,
      };
    } catch (error) {
      return withoutFastPath(error);
    }
  };
  const look = (): void => {
    const found = ipsecObstacle() ?? survey(underlay());
    const now = JSON.stringify(found);
    if (now === seen) return;
    seen = now;
    close();
    onState('isOpen' in found ? found : open(found));
  };
  look();
  const looks = setInterval(look, LOOK_MS).unref();
  const watching = new AbortController();
  void watchIpsec(look, watching.signal);
  const renewals = setInterval(() => {
    for (const address of tables.takeAwaiting(RENEWALS_AT_ONCE)) exchange?.renew(address);
    exchange?.tick();
  }, RENEW_MS).unref();
  const readings = signals.map((queue) => queue.read((signal) => exchange?.take(signal)));
  return {
    [Symbol.dispose]: () => {
      watching.abort();
      clearInterval(looks);
      clearInterval(renewals);
      for (const reading of readings) reading[Symbol.dispose]();
      close();
    },
  };
}

export function withoutFastPath(error: unknown): FastPathState {
  const text = `All packets pass through the forwarder, there is no fast path in the kernel: ${describeError(error)}`;
  return { isOpen: false, obstacle: 'unavailable', text };
}

/** The programs see packets where IPsec does not: on the way out behind it, on the way in before it. */
function withoutFastPathForIpsec(what: string): FastPathState {
  const text = `All packets pass through the forwarder: ${what}, and the fast path in the kernel would go round IPsec`;
  return { isOpen: false, obstacle: 'ipsec-policy', text };
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

/** Looks again whenever somebody changes an IPsec policy, until aborted; a kernel without IPsec has nothing to listen to. */
async function watchIpsec(look: () => void, signal: AbortSignal): Promise<void> {
  const policies = readXfrmPolicies();
  if (typeof policies !== 'number' && !policies.isSupported) return;
  for await (const _ of new IpMonitor({ about: 'ipsec-policies' }).changes(() => true, signal)) look();
}

/** What the programs are made for. */
interface Place extends Omit<ProgramOptions, 'maps' | 'destinationCheck'> {
  readonly underlayName: string;
}

/** Or why there is no place for a fast path. */
function survey(underlay: ForwarderUnderlay): Place | FastPathState {
  try {
    return surveyPlace(underlay);
  } catch (error) {
    return withoutFastPath(error);
  }
}

function surveyPlace({ tunName, listenAddress, listenPort }: ForwarderUnderlay): Place {
  const underlayName = deviceWith(listenAddress);
  const underlay = factsOf(underlayName);
  if (!underlay.isEthernet) throw new WeftError('WEFT_FAST_PATH', `${underlayName} is not an Ethernet device`);
  return {
    ownAddress: listenAddress,
    ownPort: listenPort,
    tunIndex: factsOf(tunName).index,
    underlayName,
    underlayIndex: underlay.index,
    segmentation: segmentationOf(underlay.features),
  };
}

function describePlace({ segmentation, underlayName }: Place): string {
  return segmentation === 'host'
    ? `on the way out through ${underlayName}, whose super-packets this host cuts`
    : `through ${underlayName}, to peers that super-packets reach in one piece`;
}

function attach({ maps }: FastPathTables, place: Place, destinationCheck: DestinationCheck): Disposable {
  const options = { maps, ...place, destinationCheck };
  using stack = new DisposableStack();
  const open = (name: string, code: Uint8Array, device: number, side: 'ingress' | 'egress'): void => {
    stack.use(attachTcx(stack.use(loadClassifier(name, code)), device, side));
  };
  open('weft_out', outboundProgram(options), place.tunIndex, 'egress');
  open('weft_in', inboundProgram(options), place.underlayIndex, 'ingress');
  return stack.move();
}

function exchangeFor(
  tables: FastPathTables,
  { ownAddress, segmentation }: Place,
  send: (address: Ipv4Addr, port: number, packet: Uint8Array) => boolean,
): SignExchange {
  return new SignExchange({
    // CLOCK_MONOTONIC, as that of the programs.
    now: () => process.hrtime.bigint(),
    randomBytes: (count) => Uint8Array.from(randomBytes(count)),
    ownAddress,
    segmentation,
    send: (address, packet) => {
      const port = tables.portOf(address);
      return port !== undefined && send(address, port, packet);
    },
    grant: (address, grant) => tables.grant(address, grant),
    isPeer: (address) => tables.portOf(address) !== undefined,
    observed: (address) => tables.observed(address),
  });
}

/** What leaves a device without TSO and checksum offload is complete: cut and summed by this host's kernel. */
function segmentationOf(features: ReadonlySet<string>): ProgramOptions['segmentation'] {
  const offloads = ['tx-tcp-segmentation', 'tx-checksum-ipv4', 'tx-checksum-ip-generic'];
  return offloads.some((offload) => features.has(offload)) ? 'beyond' : 'host';
}

function deviceWith(address: Ipv4Addr): string {
  const text = formatIpv4(address);
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (addresses?.some((entry) => entry.address === text)) return name;
  }
  throw new WeftError('WEFT_FAST_PATH', `no device has the address ${text}`);
}

function factsOf(name: string): DeviceFacts {
  const facts = readDeviceFacts(name);
  if (typeof facts !== 'number') return facts;
  throw new WeftError('WEFT_FAST_PATH', `failed to read the features of ${name}: ${errnoName(facts)}`);
}
