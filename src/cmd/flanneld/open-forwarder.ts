import type { SourceCheck } from '../../dataplane/source-check.ts';
import { Forwarder, type ForwarderEvent } from '../../dataplane/supervisor.ts';
import type { Ipv4Addr } from '../../ip/ipv4.ts';
import { createStopEvent } from '../../linux/dataplane-io.ts';
import { close } from '../../linux/ffi.ts';
import { openTunDevice } from '../../linux/tun-device.ts';
import { openRawIpSocket, openUdpSocket } from '../../linux/udp-socket.ts';
import { forwarderWorkerUrl } from './forwarder-worker-url.ts';

export interface ForwarderUnderlay {
  readonly tunName: string;
  readonly listenAddress: Ipv4Addr;
  readonly listenPort: number;
}

export interface HostForwarderOptions {
  /** Names and addresses as they are wanted when something is opened: they may change while the forwarder lives. */
  readonly underlay: () => ForwarderUnderlay;
  /** Whether the TUN device outlives the process. */
  readonly persistent: boolean;
  readonly sourceCheck: SourceCheck;
  readonly onEvent: (event: ForwarderEvent) => void;
  readonly onNotice: (text: string) => void;
}

const SOCKET_BUFFER_BYTES = 8 * 1024 * 1024;

/** The forwarder on this host's TUN driver and sockets. */
export function hostForwarder(options: HostForwarderOptions): Forwarder {
  return new Forwarder({
    workerUrl: forwarderWorkerUrl(),
    sourceCheck: options.sourceCheck,
    onEvent: options.onEvent,
    open: () => {
      const { tunName, listenAddress, listenPort } = options.underlay();
      using stack = new DisposableStack();
      const socket = stack.use(
        openUdpSocket({ address: listenAddress, port: listenPort, bufferBytes: SOCKET_BUFFER_BYTES }),
      );
      const tun = stack.use(openTunDevice({ name: tunName, onNotice: options.onNotice }));
      const stop = stack.use(createStopEvent());
      const icmpFd = openRawIpSocket();
      if (icmpFd < 0) options.onNotice('no raw socket (CAP_NET_RAW is missing): senders get no ICMP errors');
      else stack.defer(() => void close(icmpFd));
      const held = stack.move();
      return {
        tunFd: tun.fd,
        udpSegmentation: tun.udpSegmentation,
        socketFd: socket.fd,
        icmpFd,
        stopFd: stop.fd,
        signalStop: () => stop.signal(),
        started: () => tun.setPersistent(options.persistent),
        [Symbol.dispose]: () => held.dispose(),
      };
    },
  });
}
