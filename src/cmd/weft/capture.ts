import { type FileHandle, lstat, open } from 'node:fs/promises';
import { Command, InvalidArgumentError } from 'commander';
import { backendKind } from '../../backend/registry.ts';
import { InOrder } from '../../capture/in-order.ts';
import { parsePacketFilter } from '../../capture/packet-filter.ts';
import {
  interfaceDescription,
  interfaceStatistics,
  type NamedAddress,
  nameResolution,
  packetBlock,
  sectionHeader,
} from '../../capture/pcapng.ts';
import { type CapturePeer, type CaptureRole, Selection } from '../../capture/selection.ts';
import { networksOf } from '../../config/network-config.ts';
import { gatewayOf, type HostView, prefixesOfPeer, readHostView } from '../../diagnosis/host-view.ts';
import { hasErrno } from '../../errno.ts';
import { describeError, WeftError } from '../../errors.ts';
import { openExclusive } from '../../exclusive-file.ts';
import { formatAddr } from '../../ip/address.ts';
import { present } from '../../ip/family.ts';
import type { Lease } from '../../lease/lease.ts';
import { POLLIN } from '../../linux/constants.ts';
import { addressOf, pollAsync } from '../../linux/ffi.ts';
import { hasXdp, readHostNetwork } from '../../linux/interfaces.ts';
import {
  openPacketSocket,
  type PacketSocket,
  type SniffedFrame,
  type SniffedTraffic,
} from '../../linux/packet-socket.ts';
import { printable } from '../../printable.ts';
import { type StopSignal, untilStopped } from '../stop-signal.ts';
import { VERSION } from '../version.ts';
import { realHost } from './doctor-host.ts';
import { secondsOf } from './option-values.ts';
import { requireRoot } from './test-host.ts';
import { wantedKernel } from './wanted-kernel.ts';

const BRIDGE = 'cni0';
/** libpcap's own limit, and more than a packet has. */
const MAX_SNAP_BYTES = 262_144;
/** Headers of a tunnel's packet, both its own and those inside. */
const MIN_SNAP_BYTES = 128;
/** How long a stop waits at most for a device without traffic. */
const POLL_MS = 100;
/** Frames of one device per turn: the order of a file's packets is that of their times within a turn. */
const PER_TURN = 512;

interface CaptureFlags {
  readonly output: string;
  readonly for?: number;
  readonly count?: number;
  readonly snaplen: number;
  readonly force?: true;
  readonly subnetFile: string;
}

/**
 * `weft capture`: packets of the overlay on its inner and outer side in one file, until a signal, `--for` or `--count` ends it.
 *
 * @throws WeftError WEFT_NOT_ROOT, WEFT_NOT_READY, WEFT_USAGE, WEFT_SOCKET_FAILED, WEFT_OUTPUT_UNWRITABLE
 */
export function captureCommand(): Command {
  return new Command('capture')
    .summary('write packets of the overlay, inside and outside the tunnel, to a pcapng file')
    .description(
      "Capture on the overlay's device, on cni0 and on the external interface (there only tunnel packets) at the same time. Write one pcapng file for Wireshark, with the names of interfaces and peers. FILTER is applied to the inner packet: [src|dst] host ADDRESS, net CIDR, port NUMBER, peer NAME, tcp, udp, icmp, combined with and, or, not. Needs root. The agent need not be running.",
    )
    .argument('[filter...]', 'which packets (default: all of the overlay)')
    .requiredOption('-o, --output <file>', 'the file to write; - is standard output')
    .option('--for <seconds>', 'stop after this many seconds', secondsOf)
    .option('--count <n>', 'stop after this many packets, counted over all interfaces', countOf)
    .option(
      '--snaplen <bytes>',
      `bytes kept of each packet, ${MIN_SNAP_BYTES} to ${MAX_SNAP_BYTES}`,
      snapOf,
      MAX_SNAP_BYTES,
    )
    .option('--force', 'overwrite the file if there is one')
    .option('--subnet-file <file>', "the agent's --subnet-file", '/run/flannel/subnet.env')
    .action((words: readonly string[], flags: CaptureFlags) => capture(words.join(' '), flags));
}

function countOf(text: string): number {
  const count = /^\d{1,12}$/.test(text) ? Number(text) : 0;
  if (count < 1) throw new InvalidArgumentError('want 1 or more');
  return count;
}

function snapOf(text: string): number {
  const bytes = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (bytes < MIN_SNAP_BYTES || bytes > MAX_SNAP_BYTES)
    throw new InvalidArgumentError(`want ${MIN_SNAP_BYTES} to ${MAX_SNAP_BYTES}`);
  return bytes;
}

interface Tap {
  readonly device: string;
  readonly role: CaptureRole;
  readonly socket: PacketSocket;
  packets: number;
}

async function capture(filterText: string, flags: CaptureFlags): Promise<void> {
  requireRoot();
  using stopped = untilStopped();
  const view = await readHostView(realHost(), flags.subnetFile, backendKind, stopped.signal);
  const peers = view.known.peers.map(peerOf);
  const filter = filterText === '' ? undefined : parsePacketFilter(filterText, (word) => prefixesOfPeer(view, word));
  const wanted = await wantedKernel(view, stopped.signal);
  const external = view.known.external.name;
  const isDirect = wanted.tunnel.length === 0 || view.peers.some((peer) => wanted.deviceTo(peer) === external);
  const isUnwrapped = wanted.tunnel.length > 0 && (await hasXdp(external, stopped.signal));
  const networks = networksOf(view.known.config);
  const selection = new Selection({
    ...{
      peers,
      filter,
      isDirect,
      isUnwrapped,
      tunnel: wanted.tunnel,
      subnets: present(view.known.own.subnets),
      networks,
    },
  });
  using sockets = new DisposableStack();
  const { interfaces } = await readHostNetwork(stopped.signal);
  const roles: readonly (readonly [string, CaptureRole])[] = [
    ...wanted.devices.map((name) => [name, 'overlay'] as const),
    [BRIDGE, 'containers'],
    [external, 'underlay'],
  ];
  const taps = roles.flatMap(([device, role]): Tap[] => {
    const present = interfaces.find(({ name }) => name === device);
    if (present === undefined) return [];
    const inside: SniffedTraffic[] = isUnwrapped ? [{ protocol: 'networks', networks }] : [];
    const only = role === 'underlay' && !isDirect ? [...wanted.tunnel, ...inside] : undefined;
    const options = { device, ifIndex: present.index, snapBytes: flags.snaplen, only };
    return [{ device, role, socket: sockets.use(openPacketSocket(options)), packets: 0 }];
  });
  if (!taps.some(({ role }) => role === 'underlay'))
    throw new WeftError('WEFT_INTERFACE_NOT_FOUND', `cannot capture on ${external}: there is no such interface`, {
      hint: 'It is the external interface that the agent used last; weft status shows the one in use.',
    });
  await using output = await openSink(flags);
  if (isUnwrapped)
    process.stderr.write(
      `weft capture: XDP removes the tunnel’s headers from packets that ${external} receives, before they can be captured: such packets appear without them\n`,
    );
  await write(taps, selection, namesOf(view, peers), output, flags, stopped);
}

interface TakenFrame extends SniffedFrame {
  /** Number of the interface in the file, which is that of its tap. */
  readonly interfaceId: number;
}

async function write(
  taps: readonly Tap[],
  selection: Selection,
  names: readonly NamedAddress[],
  output: Sink,
  flags: CaptureFlags,
  stopped: StopSignal,
): Promise<void> {
  const head = [
    sectionHeader(`weft ${VERSION}`),
    ...taps.map(({ device, role, socket: { linkType } }) =>
      interfaceDescription({ name: device, description: role, linkType, snapBytes: flags.snaplen }),
    ),
    nameResolution(names),
  ];
  await output.put(Buffer.concat(head));
  process.stderr.write(`weft capture: on ${taps.map(({ device, role }) => `${device} (${role})`).join(', ')}\n`);
  const untilMs = performance.now() + (flags.for ?? Number.POSITIVE_INFINITY) * 1_000;
  let left = flags.count ?? Number.POSITIVE_INFINITY;
  const ready = pollOf(taps);
  const order = new InOrder<TakenFrame>();
  for (let isLast = false; !isLast && left > 0 && !output.isClosed; ) {
    // What has arrived before the end is still in the queues.
    isLast = stopped.signal.aborted || performance.now() >= untilMs;
    const turn = isLast ? Number.POSITIVE_INFINITY : PER_TURN;
    const startedNs = BigInt(Date.now()) * 1_000_000n;
    const reads = taps.map(({ socket }, interfaceId) => {
      const frames = socket.receive(turn).map((frame) => ({ ...frame, interfaceId }));
      return { frames, isCut: frames.length === turn };
    });
    const packets = order.round(startedNs, reads);
    if (isLast) packets.push(...order.rest());
    const blocks: Uint8Array[] = [];
    for (const frame of packets) {
      const tap = taps[frame.interfaceId]!;
      const chosen = left > 0 ? selection.select(tap.role, tap.socket.linkType, frame.bytes) : undefined;
      if (chosen === undefined) continue;
      left--;
      tap.packets++;
      blocks.push(blockOf(frame, chosen.comment));
    }
    if (blocks.length > 0) await output.put(Buffer.concat(blocks));
    else if (!isLast) await ready();
  }
  const atNs = BigInt(Date.now()) * 1_000_000n;
  const counts = taps.map(({ socket }) => socket.statistics());
  const statistics = counts.map(({ received, dropped }, interfaceId) =>
    interfaceStatistics({ interfaceId, atNs, received, dropped }),
  );
  await output.put(Buffer.concat(statistics));
  process.stderr.write(summaryOf(taps, counts));
}

function blockOf(frame: TakenFrame, comment: string | undefined): Uint8Array {
  return packetBlock({ ...frame, comment: comment === undefined ? undefined : printable(comment) });
}

function summaryOf(taps: readonly Tap[], counts: readonly { readonly dropped: number }[]): string {
  const dropped = counts.reduce((sum, one) => sum + one.dropped, 0);
  const perDevice = taps.map(({ device, packets }) => `${device} ${packets}`).join(', ');
  const lines = [`${perDevice} packets; ${dropped} dropped by the kernel`];
  if (dropped > 0) lines.push('Packets came faster than they were written: give a filter, or a smaller --snaplen.');
  for (const { device, socket } of taps)
    if (socket.wasDown) lines.push(`${device} went down meanwhile: packets after that may be missing.`);
  return lines.map((line) => `weft capture: ${line}\n`).join('');
}

/** Resolves when one of them has something, and after {@link POLL_MS} at the latest. */
function pollOf(taps: readonly Tap[]): () => Promise<void> {
  const fds = new DataView(new SharedArrayBuffer(8 * taps.length));
  for (const [at, { socket }] of taps.entries()) {
    fds.setInt32(8 * at, socket.fd, true);
    fds.setInt16(8 * at + 4, POLLIN, true);
  }
  return async () => {
    await pollAsync(addressOf(fds), taps.length, POLL_MS);
  };
}

interface Sink extends AsyncDisposable {
  /** @throws WeftError WEFT_OUTPUT_UNWRITABLE */
  put(bytes: Uint8Array): Promise<void>;
  /** Whoever reads it has gone. */
  readonly isClosed: boolean;
}

async function openSink({ output, force }: CaptureFlags): Promise<Sink> {
  if (output === '-') return standardOutput();
  const unwritable = (error: unknown): WeftError => {
    const exists = hasErrno(error, 'EEXIST');
    const why = exists ? 'it exists' : describeError(error);
    return new WeftError('WEFT_OUTPUT_UNWRITABLE', `cannot write the capture to ${output}: ${why}`, {
      hint: exists ? 'Overwrite it with --force, or name another file.' : 'Name a file that you may write to, with -o.',
      cause: error,
    });
  };
  let file: FileHandle;
  try {
    // Packets may hold secrets.
    file = force === true ? await replaceFile(output) : await open(output, 'wx', 0o600);
  } catch (error) {
    throw unwritable(error);
  }
  return {
    isClosed: false,
    put: async (bytes) => {
      await file.writeFile(bytes).catch((error: unknown) => {
        throw unwritable(error);
      });
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

/** @throws Error when it is a device, a directory or a pipe: those are not removed. */
async function replaceFile(path: string): Promise<FileHandle> {
  const before = await lstat(path).catch((error: unknown) => {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  });
  if (before !== undefined && !before.isFile() && !before.isSymbolicLink()) throw new Error('it is not a file');
  return await openExclusive(path, 0o600);
}

function standardOutput(): Sink {
  const { stdout } = process;
  if (stdout.isTTY)
    throw new WeftError('WEFT_USAGE', 'cannot write a capture file to a terminal', {
      hint: 'Pipe it to a program: weft capture -o - | wireshark -k -i -',
    });
  let isClosed = false;
  stdout.on('error', () => {
    isClosed = true;
  });
  return {
    get isClosed() {
      return isClosed;
    },
    put: (bytes) =>
      new Promise((resolve) => {
        if (isClosed) resolve();
        else
          stdout.write(bytes, (error) => {
            isClosed ||= error !== undefined && error !== null;
            resolve();
          });
      }),
    [Symbol.asyncDispose]: async () => {},
  };
}

function peerOf(lease: Lease): CapturePeer {
  const addresses = present(lease.attrs.publicAddresses);
  const [first] = addresses;
  const name = lease.origin?.holder ?? (first === undefined ? 'unknown' : formatAddr(first));
  return { name: printable(name), subnets: present(lease.subnets), addresses };
}

/** Each host by its node's name, or by its address with a word before it: Wireshark shows these in place of addresses. */
function namesOf({ known: { own } }: HostView, peers: readonly CapturePeer[]): readonly NamedAddress[] {
  return [peerOf(own), ...peers].flatMap(({ name, subnets, addresses }) => {
    const label = addresses.some((addr) => formatAddr(addr) === name) ? `host-${name}` : name;
    return [
      ...addresses.map((address) => ({ address, name: label })),
      ...subnets.flatMap((subnet) => [
        { address: subnet.addr, name: `${label}-overlay` },
        { address: gatewayOf(subnet), name: `${label}-containers` },
      ]),
    ];
  });
}
