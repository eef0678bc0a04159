import type { ForwarderWish } from '../../agent/ports.ts';
import type { FastPathTables } from '../../dataplane/fast-path/fast-path-tables.ts';
import { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { Forwarder } from '../../dataplane/supervisor.ts';
import type { Ipv4Addr } from '../../ip/ipv4.ts';
import { EAGAIN, ENOBUFS, EPERM, MSG_DONTWAIT } from '../../linux/constants.ts';
import { createStopEvent } from '../../linux/dataplane-io.ts';
import { addressOf, close, errnoName, sendto } from '../../linux/ffi.ts';
import { followLocalAddresses } from '../../linux/local-addresses.ts';
import { readQueueDrops } from '../../linux/queue-drops.ts';
import type { TunHolder } from '../../linux/tun-holder.ts';
import { openRawIpSocket, openUdpSocket, sockaddrIn } from '../../linux/udp-socket.ts';
import { forwarderWorkerUrl } from './forwarder-worker-url.ts';
import { createFastPathTables, keepFastPathOpen, withoutFastPath } from './host-fast-path.ts';

/** How soon a refused sender is spoken of. */
const REFUSALS_MS = 2_000;
const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;

/** The forwarder on this host's TUN driver and sockets. */
export function hostForwarder(options: ForwarderWish, holder: TunHolder): Forwarder {
  const fastPath = openFastPath(options);
  const signals = { tx: SignalQueue.allocate(), rx: SignalQueue.allocate() };
  const forwarder = new Forwarder({
    signals: fastPath === undefined ? undefined : { tx: signals.tx.buffer, rx: signals.rx.buffer },
    workerUrl: forwarderWorkerUrl(),
    sourceCheck: options.sourceCheck,
    destinationCheck: options.destinationCheck,
    queueDrops: () => {
      const { tunName, listenPort } = options.underlay();
      return readQueueDrops(tunName, listenPort);
    },
    fastPath,
    onEvent: options.onEvent,
    open: () => {
      const { tunName, listenAddress, listenPort } = options.underlay();
      using stack = new DisposableStack();
      const socket = stack.use(
        openUdpSocket({ address: listenAddress, port: listenPort, bufferBytes: SOCKET_BUFFER_BYTES }),
      );
      const tun = stack.use(holder.open({ name: tunName, onNotice: options.onNotice }));
      const stop = stack.use(createStopEvent());
      const icmpFd = openRawIpSocket();
      if (icmpFd < 0) {
        const why = icmpFd === -EPERM ? 'CAP_NET_RAW is missing' : errnoName(icmpFd);
        options.onNotice(`no raw socket (${why}): senders get no ICMP errors`);
      } else stack.defer(() => void close(icmpFd));
      const running = stack.use(new DisposableStack());
      const held = stack.move();
      return {
        tunFd: tun.fd,
        udpSegmentation: tun.udpSegmentation,
        socketFd: socket.fd,
        icmpFd,
        stopFd: stop.fd,
        signalStop: () => stop.signal(),
        started: () => {
          tun.setPersistent(options.persistent);
          if (options.destinationCheck === 'loose') {
            running.use(followLocalAddresses(forwarder.localAddresses, options.onNotice));
          }
          running.use(reportRefusals(forwarder, options.onNotice));
          if (fastPath !== undefined) {
            running.use(
              keepFastPathOpen(
                fastPath,
                options.underlay,
                options.destinationCheck,
                [signals.tx, signals.rx],
                (...sign) => sendSign(socket.fd, ...sign),
                options.onFastPath,
              ),
            );
          }
        },
        [Symbol.dispose]: () => held.dispose(),
      };
    },
  });
  return forwarder;
}

/** Says whose packets are refused, soon, and never so often that it fills a log; until disposed. */
function reportRefusals({ refusedSenders, refusals }: Forwarder, onNotice: (text: string) => void): Disposable {
  const timer = setInterval(() => {
    for (const line of refusals.add(refusedSenders.take(), performance.now())) onNotice(line);
  }, REFUSALS_MS).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function openFastPath({ fastPath, onFastPath }: ForwarderWish): FastPathTables | undefined {
  if (fastPath === 'off') return undefined;
  try {
    return createFastPathTables();
  } catch (error) {
    onFastPath(withoutFastPath(error));
    return undefined;
  }
}

function sendSign(socketFd: number, address: Ipv4Addr, port: number, packet: Uint8Array): boolean {
  const name = sockaddrIn(address, port);
  const bytes = new Uint8Array(new SharedArrayBuffer(packet.length));
  bytes.set(packet);
  const sent = sendto(socketFd, addressOf(bytes), bytes.length, MSG_DONTWAIT, addressOf(name), name.length);
  // A full buffer says nothing about what is allowed.
  return sent >= 0 || sent === -EAGAIN || sent === -ENOBUFS;
}
