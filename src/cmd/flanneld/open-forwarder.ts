import type { ForwarderWish } from '../../agent/ports.ts';
import { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { Forwarder } from '../../dataplane/supervisor.ts';
import { versionOf } from '../../ip/address.ts';
import { EAFNOSUPPORT, EPERM } from '../../linux/constants.ts';
import { createStopEvent } from '../../linux/dataplane-io.ts';
import { HostFastPath, withoutFastPath } from '../../linux/fast-path/host-fast-path.ts';
import { endFastPath, type KeptTables, keptTables } from '../../linux/fast-path/kept-tables.ts';
import { signSender } from '../../linux/fast-path/sign-sender.ts';
import { close, errnoName } from '../../linux/ffi.ts';
import { followLocalAddresses } from '../../linux/local-addresses.ts';
import type { PacketDescriptors } from '../../linux/packet-descriptors.ts';
import { readSocketDrops } from '../../linux/queue-drops.ts';
import type { TunHolder } from '../../linux/tun-holder.ts';
import { openRawIpSocket, openUdpSocket } from '../../linux/udp-socket.ts';
import { ticker } from '../../ticker.ts';
import { forwarderWorkerUrl } from './forwarder-worker-url.ts';

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

/** Without one, that of an earlier agent must not go on. */
function openFastPath({
  fastPath,
  fastPathRoot,
  underlay,
  onFastPath,
  onNotice,
}: ForwarderWish): KeptTables | undefined {
  try {
    if (fastPath === 'auto') {
      const { tunName, listenAddress } = underlay();
      return keptTables(fastPathRoot, tunName, versionOf(listenAddress));
    }
  } catch (error) {
    onFastPath(withoutFastPath(error));
  }
  const problem = fastPathRoot === undefined ? undefined : endFastPath(fastPathRoot, underlay().tunName);
  if (problem !== undefined) onNotice(problem);
  return undefined;
}
