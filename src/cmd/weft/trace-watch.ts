import { setTimeout as sleep } from 'node:timers/promises';
import { decodeIp, unwrap } from '../../capture/decode.ts';
import { carriedBy, flowOf } from '../../capture/flow.ts';
import { parsePacketFilter } from '../../capture/packet-filter.ts';
import { type HostView, prefixesOfPeer } from '../../diagnosis/host-view.ts';
import { type HeaderText, headersOf } from '../../diagnosis/trace.ts';
import { containsAddr } from '../../ip/address.ts';
import { present } from '../../ip/family.ts';
import { ICMP } from '../../ip/icmp.ts';
import { openDropWatch } from '../../linux/drop-watch.ts';
import {
  devicesOf,
  localAddressesOf,
  type NetworkNamespace,
  namespaceAt,
  networkNamespaces,
  OWN_NAMESPACE,
} from '../../linux/network-namespaces.ts';
import { openPacketSocket } from '../../linux/packet-socket.ts';
import { printable } from '../../printable.ts';
import { wrapped } from '../../wrapped.ts';
import type { StopSignal } from '../stop-signal.ts';

const TURN_MS = 50;
const PER_TURN = 4_096;
const SNAP_BYTES = 256;

export interface WatchFlags {
  readonly for?: number;
  readonly json?: true;
}

/** One line of JSON, or two lines of text, for each packet. */
interface Watched {
  readonly atMs: number;
  readonly place: string;
  readonly device: string;
  /** Of a drop. */
  readonly reason?: string;
  readonly function?: string;
  /** Of a packet that passes. */
  readonly direction?: 'in' | 'out';
  readonly packet: HeaderText;
  readonly inner?: HeaderText;
}

/** Of this host and its containers, until a signal or `--for` ends it. @throws WeftError WEFT_TRACE_UNAVAILABLE */
export async function watchDrops(view: HostView, flags: WatchFlags, stopped: StopSignal): Promise<void> {
  using watch = openDropWatch();
  const names = namesOf(view);
  process.stderr.write(`weft trace: watching drops in ${names.size} network namespaces\n`);
  await turns(flags, stopped, () => {
    for (const drop of watch.take()) {
      const name = names.get(drop.namespace);
      const packet = name === undefined ? undefined : decodeIp(drop.bytes);
      if (name === undefined || packet === undefined) continue;
      const { transport } = packet;
      // Each reply to a raw socket's echo looks so: the program has its own copy.
      const isReply =
        transport.kind === 'icmp' && transport.type === ICMP[packet.ip.family].reply && drop.reason === 'NO_SOCKET';
      if (isReply || drop.reason === 'OTHERHOST' || drop.reason === 'SOCKET_FILTER') continue;
      const inner = unwrap(packet)?.packet;
      print(flags, {
        ...{ atMs: Number(drop.timeNs / 1_000_000n), place: name, device: drop.device, reason: drop.reason },
        ...(drop.place !== undefined && { function: drop.place }),
        ...{ packet: headersOf(packet), ...(inner && { inner: headersOf(inner) }) },
      });
    }
  });
}

/** Packets that the filter matches, at each device of this host. @throws WeftError WEFT_USAGE, WEFT_SOCKET_FAILED */
export async function watchLive(view: HostView, text: string, flags: WatchFlags, stopped: StopSignal): Promise<void> {
  const filter = text === '' ? () => true : parsePacketFilter(text, (word) => prefixesOfPeer(view, word));
  const own = namespaceAt(OWN_NAMESPACE, 'host');
  using tap = openPacketSocket({ device: 'all devices', ifIndex: 0, snapBytes: SNAP_BYTES });
  process.stderr.write('weft trace: watching packets on all devices of this host\n');
  let devices = devicesOf(own);
  await turns(flags, stopped, () => {
    for (const { linkType, bytes, ifIndex, timeNs, direction } of tap.receive(PER_TURN)) {
      const outer = linkType === 'unsupported' ? undefined : flowOf(linkType, bytes);
      if (outer === undefined) continue;
      const carried = carriedBy(outer);
      if (!filter(carried ?? outer)) continue;
      if (!devices.has(ifIndex)) devices = devicesOf(own);
      print(flags, {
        ...{ atMs: Number(timeNs / 1_000_000n), place: 'host', device: devices.get(ifIndex) ?? `device ${ifIndex}` },
        ...{ direction: direction === 'inbound' ? 'in' : 'out', packet: headersOf(outer.packet) },
        ...(carried && { inner: headersOf(carried.packet) }),
      });
    }
  });
  const { dropped } = tap.statistics();
  if (dropped > 0) process.stderr.write(`weft trace: ${dropped} frames arrived too fast and were skipped\n`);
}

async function turns({ for: seconds }: WatchFlags, stopped: StopSignal, turn: () => void): Promise<void> {
  const endMs = performance.now() + (seconds ?? Number.POSITIVE_INFINITY) * 1_000;
  for (let isLast = false; !isLast; ) {
    isLast = stopped.signal.aborted || performance.now() >= endMs;
    turn();
    if (!isLast) await sleep(TURN_MS, undefined, { signal: stopped.signal }).catch(() => {});
  }
}

function print({ json }: WatchFlags, watched: Watched): void {
  process.stdout.write(json ? `${JSON.stringify(watched)}\n` : renderWatched(watched));
}

/** Pure. Whoever rules a container has named its devices. */
export function renderWatched(watched: Watched): string {
  const { atMs, place, device, reason, direction, packet, inner } = watched;
  const time = new Date(atMs).toISOString().slice(11, 23);
  const where = [place === 'host' ? '' : place, device, direction ?? ''].filter((one) => one !== '').join(' ');
  const why =
    reason === undefined ? '' : ` ${reason}${watched.function === undefined ? '' : ` in ${watched.function}`}`;
  const lines = [
    ...wrapped(`${time} ${printable(where)}${why}`, '  '),
    ...wrapped(`  ${packet.text}`, '    '),
    ...(inner === undefined ? [] : wrapped(`  [${inner.text}]`, '    ')),
  ];
  return `${lines.join('\n')}\n`;
}

/** This host's own namespace, and those with an address of its subnet. */
function namesOf({ known: { own } }: HostView): ReadonlyMap<number, string> {
  const host = namespaceAt(OWN_NAMESPACE, 'host');
  const subnets = present(own.subnets);
  const isOurs = (namespace: NetworkNamespace): boolean =>
    localAddressesOf(namespace).some((addr) => subnets.some((subnet) => containsAddr(subnet, addr)));
  const containers = networkNamespaces().filter((one) => one.inode !== host.inode && isOurs(one));
  return new Map([host, ...containers].map(({ inode, name }) => [inode, name]));
}
