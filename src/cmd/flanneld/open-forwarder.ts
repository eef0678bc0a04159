import type { ForwarderWish } from '../../agent/ports.ts';
import type { ForwarderUnderlay } from '../../backend/backend.ts';
import type { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { UNSUMMED_SIGN_BYTES, unsummedDatagram } from '../../dataplane/fast-path/sign.ts';
import { Forwarder } from '../../dataplane/supervisor.ts';
import { describeError } from '../../errors.ts';
import { isIpv4, versionOf } from '../../ip/address.ts';
import { bpfDirectory, openBpfDirectory, removeBpfDirectory } from '../../linux/bpf-directory.ts';
import { EAFNOSUPPORT, EAGAIN, ENOBUFS, EPERM, MSG_DONTWAIT } from '../../linux/constants.ts';
import { createStopEvent } from '../../linux/dataplane-io.ts';
import { addressOf, close, errnoName, sendto } from '../../linux/ffi.ts';
import { followLocalAddresses } from '../../linux/local-addresses.ts';
import type { PacketDescriptors } from '../../linux/packet-descriptors.ts';
import { readSocketDrops } from '../../linux/queue-drops.ts';
import type { TunHolder } from '../../linux/tun-holder.ts';
import { openRawIpSocket, openUdpSocket, sockaddrOf } from '../../linux/udp-socket.ts';
import { ticker } from '../../ticker.ts';
import { createFastPathTables } from './fast-path-programs.ts';
import { forwarderWorkerUrl } from './forwarder-worker-url.ts';
import { type FastPathKeeping, HostFastPath, type SendSign, withoutFastPath } from './host-fast-path.ts';

/** How soon a refused sender is spoken of. */
const REFUSALS_MS = 2_000;
const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;

/** The forwarder on this host's TUN driver and sockets. */
export function hostForwarder(options: ForwarderWish, holder: TunHolder, descriptors: PacketDescriptors): Forwarder {
  const fastPath = openFastPath(options);
  const signals = { tx: SignalQueue.allocate(), rx: SignalQueue.allocate() };
  const forwarder = new Forwarder({
    signals: fastPath === undefined ? undefined : { tx: signals.tx.buffer, rx: signals.rx.buffer },
    workerUrl: forwarderWorkerUrl(),
    sourceCheck: options.sourceCheck,
    destinationCheck: options.destinationCheck,
    socketDrops: () => readSocketDrops(options.underlay().listenPort),
    fastPath: fastPath?.tables,
    onEvent: options.onEvent,
    open: () => {
      const { tunName, listenAddress, listenPort } = options.underlay();
      using stack = new DisposableStack();
      const socket =
        descriptors.takeSocket(listenAddress, listenPort) ??
        openUdpSocket({ address: listenAddress, port: listenPort, bufferBytes: SOCKET_BUFFER_BYTES });
      const tun = openOrClose(socket, () => holder.open({ name: tunName, onNotice: options.onNotice }));
      stack.use(descriptors.lend(tun, socket));
      const stop = stack.use(createStopEvent());
      const [icmpFd, icmp6Fd] = ([4, 6] as const).map((version) => {
        const fd = openRawIpSocket(version);
        if (fd >= 0) stack.defer(() => void close(fd));
        // A kernel without IPv6 has no packets of it either.
        else if (version === 4 || fd !== -EAFNOSUPPORT) {
          const why = fd === -EPERM ? 'CAP_NET_RAW is missing' : errnoName(fd);
          options.onNotice(`no raw socket for IPv${version} (${why}): senders get no ICMP errors`);
        }
        return fd;
      }) as [number, number];
      const running = stack.use(new DisposableStack());
      const held = stack.move();
      return {
        tunFd: tun.fd,
        udpSegmentation: tun.udpSegmentation,
        socketFd: socket.fd,
        underlay: versionOf(listenAddress),
        icmpFd,
        icmp6Fd,
        stopFd: stop.fd,
        signalStop: () => stop.signal(),
        ending: () => running.dispose(),
        started: () => {
          tun.setPersistent(options.persistent);
          if (options.destinationCheck === 'loose' || options.sourceCheck === 'loose') {
            running.use(
              followLocalAddresses(
                { ipv4: forwarder.localAddresses, ipv6: forwarder.localAddresses6 },
                options.onNotice,
              ),
            );
          }
          running.use(reportRefusals(forwarder, options.onNotice));
          if (fastPath !== undefined) {
            running.use(
              new HostFastPath({
                ...fastPath,
                ...{ underlay: options.underlay, onState: options.onFastPath, onNotice: options.onNotice },
                ...{ destinationCheck: options.destinationCheck, fastPathIn: options.fastPathIn },
                signals: [signals.tx, signals.rx],
                send: signSender(socket.fd, icmp6Fd, options.underlay()),
              }),
            );
          }
        },
        [Symbol.dispose]: () => held.dispose(),
      };
    },
  });
  return forwarder;
}

/** What `open` returns; closes the other when it fails. */
function openOrClose<T>(other: Disposable, open: () => T): T {
  using stack = new DisposableStack();
  stack.use(other);
  const opened = open();
  stack.move();
  return opened;
}

/** Says whose packets are refused, soon, and never so often that it fills a log; until disposed. */
function reportRefusals({ refusedSenders, refusals }: Forwarder, onNotice: (text: string) => void): Disposable {
  return ticker.every(REFUSALS_MS, () => {
    for (const line of refusals.add(refusedSenders.take(), performance.now())) onNotice(line);
  });
}

interface OpenFastPath {
  readonly tables: FastPathTables;
  readonly keeping: FastPathKeeping;
}

/** Without one, that of an earlier agent must not go on. */
function openFastPath({
  fastPath,
  fastPathRoot,
  underlay,
  onFastPath,
  onNotice,
}: ForwarderWish): OpenFastPath | undefined {
  try {
    if (fastPath === 'auto') {
      const { tunName, listenAddress } = underlay();
      return openTables(fastPathRoot, tunName, versionOf(listenAddress));
    }
  } catch (error) {
    onFastPath(withoutFastPath(error));
  }
  const problem = fastPathRoot === undefined ? undefined : endFastPath(fastPathRoot, underlay().tunName);
  if (problem !== undefined) onNotice(problem);
  return undefined;
}

function openTables(root: string | undefined, tunName: string, underlay: 4 | 6): OpenFastPath {
  const keeping = keepingIn(root, tunName);
  return { tables: createFastPathTables(keeping.directory, underlay), keeping };
}

function keepingIn(root: string | undefined, tunName: string): FastPathKeeping {
  if (root === undefined) return { directory: undefined };
  try {
    return { directory: openBpfDirectory(root, tunName) };
  } catch (error) {
    return { directory: undefined, obstacle: describeError(error) };
  }
}

/** Takes away what an earlier agent with that TUN device has left in the kernel to go on by itself. Returns what is in the way of that. */
export function endFastPath(root: string, tunName: string): string | undefined {
  try {
    removeBpfDirectory(bpfDirectory(root, tunName));
  } catch (error) {
    return `The fast path of an earlier agent may still be active (${root}): ${describeError(error)}`;
  }
  return undefined;
}

/** By the socket; or, without a checksum, by one that sends whole packets. */
function signSender(socketFd: number, rawFd: number, { listenAddress, listenPort }: ForwarderUnderlay): SendSign {
  // Made once: memory that does not move is dear, and signs are most of what an idle host sends.
  const outgoing = new Uint8Array(new SharedArrayBuffer(UNSUMMED_SIGN_BYTES));
  const sendBytes = (fd: number, packet: Uint8Array, name: Uint8Array): boolean => {
    outgoing.set(packet);
    const sent = sendto(fd, addressOf(outgoing), packet.length, MSG_DONTWAIT, addressOf(name), name.length);
    // A full buffer says nothing about what is allowed.
    return sent >= 0 || sent === -EAGAIN || sent === -ENOBUFS;
  };
  return (to, packet, checksum) => {
    if (checksum === 'checksum') return sendBytes(socketFd, packet, sockaddrOf(to.addr, to.port));
    if (isIpv4(to.addr) || isIpv4(listenAddress)) throw new TypeError('unreachable: datagrams of IPv4 need no proof');
    const from = { addr: listenAddress, port: listenPort };
    return sendBytes(rawFd, unsummedDatagram(from, { addr: to.addr, port: to.port }, packet), sockaddrOf(to.addr, 0));
  };
}
