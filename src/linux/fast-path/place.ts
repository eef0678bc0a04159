import { createHash } from 'node:crypto';
import { networkInterfaces } from 'node:os';
import type { FastPathInMode } from '../../dataplane/fast-path/mode.ts';
import type { ProgramOptions } from '../../dataplane/fast-path/skb-program.ts';
import type { ForwarderUnderlay } from '../../dataplane/forwarder-underlay.ts';
import { WeftError } from '../../errors.ts';
import { formatAddr, type IpAddr, isIpv4, parseAddr } from '../../ip/address.ts';
import { type DeviceFacts, readDeviceAddress, readDeviceFacts, readDeviceIndex } from '../ethtool.ts';
import { errnoName } from '../ffi.ts';

/** What the programs are made for. */
export interface Place extends Omit<ProgramOptions, 'maps' | 'destinationCheck' | 'takesCut'> {
  readonly underlayName: string;
  readonly wayIn: WayIn;
}

/** Whether XDP is to take what peers send, or why it is not although somebody might want it. */
export type WayIn =
  | { readonly type: 'xdp'; readonly ownMac: readonly number[] }
  | { readonly type: 'tcx'; readonly obstacle: string | undefined };

/**
 * Drivers with native XDP for which no price but a moment's reset at the start is known; see ADR 20. None that hands on the card's sum of the
 * whole frame (CHECKSUM_COMPLETE) for what XDP has shortened, as nfp does.
 */
const XDP_DRIVERS: ReadonlySet<string> = new Set([
  ...['bnxt_en', 'i40e', 'ice', 'igb', 'igc', 'ixgbe', 'mlx4_en', 'mlx5_core'],
  ...['mvneta', 'mvpp2', 'qede', 'sfc'],
]);
/** What a page holds beside the headroom of XDP and what the kernel keeps behind the packet; drivers refuse a larger MTU. */
const XDP_MAX_MTU = 3_400;
/** A card, or a virtual machine's host, that joins datagrams leaves nothing whole to take headers off. */
const JOINING_FEATURES = ['rx-lro', 'rx-gro-hw'];

/** What the facts about the underlay's device allow; whether another program has it shows when the kernel is asked. */
export function wayInOf(
  { driver, features, mtuBytes, macAddress }: Pick<DeviceFacts, 'driver' | 'features' | 'mtuBytes' | 'macAddress'>,
  name: string,
  mode: FastPathInMode,
): WayIn {
  const not = (obstacle?: string): WayIn => ({ type: 'tcx', obstacle });
  if (mode === 'off' || (mode === 'auto' && !XDP_DRIVERS.has(driver))) return not();
  if (mtuBytes > XDP_MAX_MTU) return not(`the MTU of ${name} is ${mtuBytes}, and XDP takes ${XDP_MAX_MTU} at most`);
  const joining = JOINING_FEATURES.filter((feature) => features.has(feature));
  if (joining.length > 0) return not(`${name} has ${joining.join(' and ')} on (ethtool -K ${name} ${joining[0]} off)`);
  return { type: 'xdp', ownMac: macAddress };
}

/**
 * Where the programs would be, as the devices are now.
 * @param nameBefore of the device that the underlay's address was on.
 * @throws WeftError WEFT_FAST_PATH when there is no place for them.
 */
export function surveyPlace(
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

/** For the log, behind a verb. @param refusal of XDP, by the kernel. */
export function describePlace(place: Place, refusal: string | undefined): string {
  return `${describeDevice(place)}${describeWayIn(place, refusal)}`;
}

function describeDevice({ segmentation, underlayName }: Place): string {
  return segmentation === 'host'
    ? `outbound through ${underlayName}, where this host segments super-packets`
    : `through ${underlayName}, to peers that receive super-packets in one piece`;
}

function describeWayIn({ wayIn, underlayName }: Place, refusal: string | undefined): string {
  const obstacle = wayIn.type === 'xdp' ? refusal : wayIn.obstacle;
  if (obstacle !== undefined) return `, without XDP on the way in: ${obstacle}`;
  return wayIn.type === 'xdp' ? `, and XDP takes what ${underlayName} receives from peers` : '';
}

/** The same for the same place, to be compared. JSON, of addresses of either family. */
export function placeText(place: Place): string {
  return JSON.stringify(place, (_key, part: unknown) => (typeof part === 'bigint' ? `${part}` : part));
}

/** By which the programs' maps know the place where they were filled. */
export function placeNumber(place: Place): bigint {
  return createHash('sha256').update(placeText(place)).digest().readBigUInt64LE();
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
