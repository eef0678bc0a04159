/** What a device's driver can do, by the ioctls of ethtool(8) and netdevice(7). */

import { type Ipv4Addr, ipv4Of } from '../ip/ipv4.ts';
import {
  AF_INET,
  ENODEV,
  EOPNOTSUPP,
  IFNAMSIZ,
  IFREQ_BYTES,
  SIOCETHTOOL,
  SIOCGIFADDR,
  SIOCGIFHWADDR,
  SIOCGIFINDEX,
  SIOCGIFMTU,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
} from './constants.ts';
import { addressOf, close, ioctl, socket } from './ffi.ts';

/** linux/ethtool.h */
const ETHTOOL_GDRVINFO = 0x03;
const ETHTOOL_GSSET_INFO = 0x37;
const ETHTOOL_GSTRINGS = 0x1b;
const ETHTOOL_GFEATURES = 0x3a;
const ETHTOOL_SFEATURES = 0x3b;
const ETH_SS_FEATURES = 4;
const ETH_GSTRING_LEN = 32;
/** `struct ethtool_get_features_block`: available, requested, active, never_changed; 32 features each. */
const FEATURE_BLOCK_BYTES = 16;
const FEATURE_BLOCK_ACTIVE = 8;
/** net/if_arp.h */
const ARPHRD_ETHER = 1;
const MAC_BYTES = 6;
/** `struct ethtool_drvinfo`, and its field `driver`. */
const DRIVER_INFO_BYTES = 196;
const DRIVER_OFFSET = 4;
const DRIVER_BYTES = 32;

export interface DeviceFacts {
  readonly index: number;
  readonly isEthernet: boolean;
  /** Six bytes; meaningless where it is no Ethernet device. */
  readonly macAddress: readonly number[];
  readonly mtuBytes: number;
  /** As `ethtool -i` names it; empty where the kernel does not say. */
  readonly driver: string;
  /** Features in force, by the names `ethtool -k` has for them below its own headings, such as `tx-tcp-segmentation`. */
  readonly features: ReadonlySet<string>;
}

/** Of the device of that name in this network namespace; −errno when there is none or it does not say. */
export function readDeviceFacts(name: string): DeviceFacts | number {
  return withDevice(name, (request, ask, askEthtool) => {
    let result = ask(SIOCGIFINDEX);
    if (result < 0) return result;
    const index = request.getInt32(IFNAMSIZ, true);
    result = ask(SIOCGIFHWADDR);
    if (result < 0) return result;
    const isEthernet = request.getUint16(IFNAMSIZ, true) === ARPHRD_ETHER;
    const macAddress = Array.from({ length: MAC_BYTES }, (_, byte) => request.getUint8(IFNAMSIZ + 2 + byte));
    result = ask(SIOCGIFMTU);
    if (result < 0) return result;
    const mtuBytes = request.getInt32(IFNAMSIZ, true);
    const driver = readDriver(askEthtool);
    const features = readFeatures(askEthtool);
    return typeof features === 'number' ? features : { index, isEthernet, macAddress, mtuBytes, driver, features };
  });
}

/** Its number alone, as {@link readDeviceFacts} has it. */
export function readDeviceIndex(name: string): number {
  return withDevice(name, (request, ask) => {
    const result = ask(SIOCGIFINDEX);
    return result < 0 ? result : request.getInt32(IFNAMSIZ, true);
  });
}

/** The first IPv4 address of the device of that name in this network namespace; −errno when it has none, or is not there. */
export function readDeviceAddress(name: string): Ipv4Addr | number {
  return withDevice(name, (request, ask) => {
    const result = ask(SIOCGIFADDR);
    // In a struct sockaddr_in.
    return result < 0 ? result : ipv4Of(request.getUint32(IFNAMSIZ + 4));
  });
}

/** Turns a feature of a device off, by the name that `ethtool -k` has for it. Returns 0, or −errno. */
export function turnFeatureOff(name: string, feature: string): number {
  return withDevice(name, (_request, _ask, askEthtool) => {
    const names = readFeatureNames(askEthtool);
    if (typeof names === 'number') return names;
    const bit = names.indexOf(feature);
    if (bit < 0) return -EOPNOTSUPP;
    const blocks = Math.ceil(names.length / 32);
    const bits = new DataView(new SharedArrayBuffer(8 + blocks * 8)); // struct ethtool_sfeatures: pairs of valid, requested
    bits.setUint32(0, ETHTOOL_SFEATURES, true);
    bits.setUint32(4, blocks, true);
    bits.setUint32(8 + (bit >> 5) * 8, (1 << (bit & 31)) >>> 0, true);
    return Math.min(0, askEthtool(bits));
  });
}

function withDevice<T>(
  name: string,
  use: (request: DataView, ask: (code: number) => number, askEthtool: (data: DataView) => number) => T | number,
): T | number {
  if (name.length >= IFNAMSIZ) return -ENODEV;
  const fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return fd;
  try {
    const request = new DataView(new SharedArrayBuffer(IFREQ_BYTES));
    new Uint8Array(request.buffer).set(new TextEncoder().encode(name));
    const ask = (code: number): number => ioctl(fd, code, addressOf(request));
    return use(request, ask, (data) => {
      request.setBigUint64(IFNAMSIZ, BigInt(addressOf(data)), true);
      return ask(SIOCETHTOOL);
    });
  } finally {
    close(fd);
  }
}

function readDriver(ask: (data: DataView) => number): string {
  const info = new DataView(new SharedArrayBuffer(DRIVER_INFO_BYTES));
  info.setUint32(0, ETHTOOL_GDRVINFO, true);
  if (ask(info) < 0) return '';
  const name = Buffer.from(info.buffer).toString('latin1', DRIVER_OFFSET, DRIVER_OFFSET + DRIVER_BYTES);
  return name.slice(0, name.indexOf('\0'));
}

/** Of this host's kernel, once one of its devices has said them. */
let featureNames: readonly string[] | undefined;

/** In the kernel's order: the numbers are its own and differ between versions. */
function readFeatureNames(ask: (data: DataView) => number): readonly string[] | number {
  if (featureNames !== undefined) return featureNames;
  const info = new DataView(new SharedArrayBuffer(24)); // struct ethtool_sset_info and one u32
  info.setUint32(0, ETHTOOL_GSSET_INFO, true);
  info.setBigUint64(8, 1n << BigInt(ETH_SS_FEATURES), true);
  let result = ask(info);
  if (result < 0) return result;
  const count = info.getUint32(16, true);

  const strings = new DataView(new SharedArrayBuffer(12 + count * ETH_GSTRING_LEN)); // struct ethtool_gstrings
  strings.setUint32(0, ETHTOOL_GSTRINGS, true);
  strings.setUint32(4, ETH_SS_FEATURES, true);
  strings.setUint32(8, count, true);
  result = ask(strings);
  if (result < 0) return result;

  const text = Buffer.from(strings.buffer);
  featureNames = Array.from({ length: count }, (_, feature) => {
    const at = 12 + feature * ETH_GSTRING_LEN;
    const name = text.toString('latin1', at, at + ETH_GSTRING_LEN);
    return name.slice(0, name.indexOf('\0'));
  });
  return featureNames;
}

function readFeatures(ask: (data: DataView) => number): Set<string> | number {
  const names = readFeatureNames(ask);
  if (typeof names === 'number') return names;
  const blocks = Math.ceil(names.length / 32);
  const bits = new DataView(new SharedArrayBuffer(8 + blocks * FEATURE_BLOCK_BYTES)); // struct ethtool_gfeatures
  bits.setUint32(0, ETHTOOL_GFEATURES, true);
  bits.setUint32(4, blocks, true);
  const result = ask(bits);
  if (result < 0) return result;
  const isActive = (feature: number): boolean => {
    const block = 8 + Math.floor(feature / 32) * FEATURE_BLOCK_BYTES;
    return (bits.getUint32(block + FEATURE_BLOCK_ACTIVE, true) & (1 << (feature % 32))) !== 0;
  };
  return new Set(names.filter((_, feature) => isActive(feature)));
}
