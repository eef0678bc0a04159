import { networkInterfaces } from 'node:os';
import { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { inboundProgram } from '../../dataplane/fast-path/inbound-program.ts';
import {
  COUNTER_KEY_BYTES,
  COUNTER_VALUE_BYTES,
  ENDPOINT_KEY_BYTES,
  ENDPOINT_VALUE_BYTES,
  SUBNET_KEY_BYTES,
  SUBNET_VALUE_BYTES,
} from '../../dataplane/fast-path/layout.ts';
import { markingProgram } from '../../dataplane/fast-path/marking-program.ts';
import { type OutboundProgramOptions, outboundProgram } from '../../dataplane/fast-path/outbound-program.ts';
import { MAX_PEERS } from '../../dataplane/supervisor.ts';
import { WeftError } from '../../errors.ts';
import { formatIpv4, type Ipv4Addr } from '../../ip/ipv4.ts';
import { attachTcx, createBpfMap, loadClassifier } from '../../linux/bpf.ts';
import { type DeviceFacts, readDeviceFacts } from '../../linux/ethtool.ts';
import { errnoName } from '../../linux/ffi.ts';
import type { ForwarderUnderlay } from './forwarder-underlay.ts';

const maxEntries = MAX_PEERS + 1;

/** The maps of the fast path in this host's kernel. @throws WeftError WEFT_FAST_PATH when it has no BPF for us. */
export function createFastPathTables(): FastPathTables {
  using stack = new DisposableStack();
  const map = (...[kind, name, keyBytes, valueBytes]: ['hash' | 'lpm-trie', string, number, number]) =>
    stack.use(createBpfMap({ kind, name, keyBytes, valueBytes, maxEntries }));
  const tables = new FastPathTables({
    subnets: map('lpm-trie', 'weft_subnets', SUBNET_KEY_BYTES, SUBNET_VALUE_BYTES),
    endpoints: map('hash', 'weft_endpoints', ENDPOINT_KEY_BYTES, ENDPOINT_VALUE_BYTES),
    counters: map('hash', 'weft_counters', COUNTER_KEY_BYTES, COUNTER_VALUE_BYTES),
  });
  stack.move();
  return tables;
}

export interface AttachedFastPath extends Disposable {
  /** What it does here, for the log. */
  readonly description: string;
}

/**
 * Opens the fast path between the TUN device and the device that has the underlay's address, until disposed.
 * @throws WeftError WEFT_FAST_PATH; packets then go on through the forwarder.
 */
export function attachFastPath(
  { maps }: FastPathTables,
  { tunName, listenAddress, listenPort }: ForwarderUnderlay,
): AttachedFastPath {
  const underlayName = deviceWith(listenAddress);
  const tun = factsOf(tunName);
  const underlay = factsOf(underlayName);
  if (!underlay.isEthernet) throw new WeftError('WEFT_FAST_PATH', `${underlayName} is not an Ethernet device`);
  const common = { maps, ownAddress: listenAddress, ownPort: listenPort, tunIndex: tun.index };
  const segmentation = segmentationOf(underlay.features);
  using stack = new DisposableStack();
  const outbound = stack.use(
    loadClassifier('weft_out', outboundProgram({ ...common, underlayIndex: underlay.index, segmentation })),
  );
  stack.use(attachTcx(outbound, tun.index, 'egress'));
  if (segmentation === 'beyond') {
    const inbound = stack.use(loadClassifier('weft_in', inboundProgram(common)));
    stack.use(attachTcx(inbound, underlay.index, 'ingress'));
    const marking = stack.use(loadClassifier('weft_mark', markingProgram(common)));
    stack.use(attachTcx(marking, underlay.index, 'egress'));
  }
  const held = stack.move();
  const description =
    segmentation === 'host'
      ? `on the way out through ${underlayName}, whose super-packets this host cuts`
      : `through ${underlayName}, to peers that super-packets reach in one piece`;
  return { description, [Symbol.dispose]: () => held.dispose() };
}

/** What leaves a device without TSO and checksum offload is complete: cut and summed by this host's kernel. */
function segmentationOf(features: ReadonlySet<string>): OutboundProgramOptions['segmentation'] {
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
