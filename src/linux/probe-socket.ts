import { WeftError } from '../errors.ts';
import { type IpAddr, type IpFamily, versionOf } from '../ip/address.ts';
import { ICMP } from '../ip/icmp.ts';
import { ipv4Of } from '../ip/ipv4.ts';
import { ipv6At } from '../ip/ipv6.ts';
import type { Arrival, ProbeIo, ProbeRequest, Sent } from '../probe/ports.ts';
import { echoRequest, type ProbeIdentity, readProbeMessage } from '../probe/probe-packet.ts';
import { clockOffset } from './clock-offset.ts';
import {
  AF_INET,
  AF_INET6,
  BPF_JUMP_EQUAL,
  BPF_LD_BYTE_INDIRECT,
  BPF_LD_HALF_INDIRECT,
  BPF_LD_WORD_INDIRECT,
  BPF_LDX_HEADER_LENGTH,
  BPF_LDX_IMMEDIATE,
  BPF_RETURN,
  CLOCK_REALTIME,
  EHOSTUNREACH,
  EINVAL,
  EMSGSIZE,
  ENETUNREACH,
  EPERM,
  IP_PMTUDISC_DONT,
  IP_PMTUDISC_PROBE,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IPV6,
  IPV6_DONTFRAG,
  MSG_DONTWAIT,
  SO_NO_CHECK,
  SO_TIMESTAMPNS,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_RAW,
  SOL_SOCKET,
} from './constants.ts';
import { addressOf, clockGettime, close, errnoName, recvmsg, sendto, socket } from './ffi.ts';
import { MessageHeader } from './message-header.ts';
import { attachSocketFilter, type FilterInstruction } from './socket-filter.ts';
import { STAMP_CONTROL_BYTES, stampNsOf } from './socket-stamp.ts';
import { boundPort, setIntOption, setPathMtuDiscovery, sockaddrOf } from './udp-socket.ts';

/** Longer messages are cut: what is read of them is at their start. */
const BUFFER_BYTES = 2_048;
/** Of one socket: messages of others that were not filtered out must not hold up the agent. */
const MOST_PER_TURN = 256;
/** Answers to older datagrams are not waited for. */
const KEPT_PORTS = 1_024;

const UDP_PAYLOAD = new TextEncoder().encode('weft-probe: whether datagrams with a checksum arrive');

/** What an errno of {@link ProbeIo.send} says of the way. */
export function describeSendErrno(errno: number): 'no-route' | 'not-permitted' | 'too-long' | 'other' {
  switch (-errno) {
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EINVAL: // a blackhole route
      return 'no-route';
    case EPERM:
      return 'not-permitted';
    case EMSGSIZE:
      return 'too-long';
    default:
      return 'other';
  }
}

/**
 * Raw ICMP sockets with filters that only let answers to this process's probes, probes of other agents and ICMP errors through.
 * Times are those of `performance.now()`; arrivals have the kernel's, so that who receives late measures well.
 *
 * @param families IPv6 is left out where the kernel has none.
 * @throws WeftError WEFT_SOCKET_FAILED; needs CAP_NET_RAW.
 */
export function openProbeSocket(families: readonly IpFamily[] = [4, 6]): ProbeIo {
  return new ProbeSocket(families);
}

class ProbeSocket implements ProbeIo {
  readonly #identity: ProbeIdentity;
  /** By which echo requests leave, and their answers come. */
  readonly #raw = new Map<IpFamily, number>();
  /** By which the rest comes, which anybody can send: where that is too much for its queue, no answer is lost. */
  readonly #rest = new Map<IpFamily, number>();
  readonly #udpPorts = new Set<number>();
  readonly #name = shared(28);
  readonly #buffer = shared(BUFFER_BYTES);
  readonly #message = new MessageHeader({ text: this.#buffer, name: this.#name, controlBytes: STAMP_CONTROL_BYTES });
  readonly #outgoing = shared(65_536);
  readonly #clock = shared(16);

  constructor(families: readonly IpFamily[]) {
    using stack = new DisposableStack();
    const id = 1 + Math.floor(Math.random() * 0xfffe);
    this.#identity = { id, udpPorts: this.#udpPorts };
    const add = (to: Map<IpFamily, number>, family: IpFamily, filter: Filter): void => {
      const fd = openRaw(family);
      if (family === 6 && fd < 0) return;
      opened(fd, 'a raw ICMP socket');
      stack.defer(() => void close(fd));
      setIntOption(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1);
      opened(attachSocketFilter(fd, filter), 'a socket filter');
      to.set(family, fd);
    };
    for (const family of families) {
      add(this.#raw, family, repliesTo(family, id));
      add(this.#rest, family, others(family));
    }
    this.#resources = stack.move();
  }

  readonly #resources: DisposableStack;

  send(request: ProbeRequest): Sent {
    const family = versionOf(request.to);
    const port = request.kind === 'udp' ? request.port : 0;
    const to = sockaddrOf(request.to, port);
    if (request.kind === 'udp') return this.#sendUdp(to, request.checksum);
    const fd = this.#raw.get(family) ?? -1;
    const bytes = echoRequest(family, this.#identity.id, request.sequence, request.totalBytes);
    this.#outgoing.set(bytes);
    if (request.mayFragment === true) setFragmenting(fd, family, true);
    const atMs = performance.now();
    const result = sendto(fd, addressOf(this.#outgoing), bytes.length, MSG_DONTWAIT, addressOf(to), to.length);
    if (request.mayFragment === true) setFragmenting(fd, family, false);
    return result < 0 ? { errno: result } : { atMs };
  }

  /** By a socket for this one datagram: nothing of this process listens on a port. */
  #sendUdp(to: Uint8Array, checksum: boolean): Sent {
    const fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return { errno: fd };
    if (!checksum) setIntOption(fd, SOL_SOCKET, SO_NO_CHECK, 1);
    this.#outgoing.set(UDP_PAYLOAD);
    const atMs = performance.now();
    const length = UDP_PAYLOAD.length;
    const result = sendto(fd, addressOf(this.#outgoing), length, MSG_DONTWAIT, addressOf(to), to.length);
    if (result >= 0) this.#remember(boundPort(fd));
    close(fd);
    return result < 0 ? { errno: result } : { atMs };
  }

  #remember(port: number): void {
    this.#udpPorts.delete(port);
    this.#udpPorts.add(port);
    const [oldest] = this.#udpPorts;
    if (this.#udpPorts.size > KEPT_PORTS) this.#udpPorts.delete(oldest!);
  }

  receive(): readonly Arrival[] {
    const arrivals: Arrival[] = [];
    const offsetMs = clockOffset(
      () => this.#realtimeMs(),
      () => performance.now(),
    );
    for (const [family, fd] of [...this.#raw, ...this.#rest]) {
      for (let i = 0; i < MOST_PER_TURN; i++) {
        const arrival = this.#receiveOne(family, fd, offsetMs);
        if (arrival === 'none') break;
        if (arrival !== undefined) arrivals.push(arrival);
      }
    }
    return arrivals;
  }

  [Symbol.dispose](): void {
    this.#resources[Symbol.dispose]();
  }

  #receiveOne(family: IpFamily, fd: number, offsetMs: number): Arrival | 'none' | undefined {
    this.#message.reset();
    const length = recvmsg(fd, this.#message.address, MSG_DONTWAIT);
    if (length < 0) return 'none';
    const read = readProbeMessage(family, this.#buffer.subarray(0, Math.min(length, BUFFER_BYTES)), this.#identity);
    if (read === undefined) return undefined;
    const stampedMs = stampOf(this.#message.control, this.#message.controlLength);
    const atMs = stampedMs === undefined ? performance.now() : stampedMs + offsetMs;
    return { from: addressIn(family, this.#name), atMs, message: read };
  }

  #realtimeMs(): number {
    clockGettime(CLOCK_REALTIME, addressOf(this.#clock));
    return timeOf(new DataView(this.#clock.buffer), 0);
  }
}

function openRaw(family: IpFamily): number {
  const [domain, protocol] = family === 4 ? [AF_INET, IPPROTO_ICMP] : [AF_INET6, IPPROTO_ICMPV6];
  const fd = socket(domain, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  if (fd < 0) return fd;
  setFragmenting(fd, family, false);
  return fd;
}

/** Whether what is sent from now on may leave in fragments. */
function setFragmenting(fd: number, family: IpFamily, isAllowed: boolean): void {
  setPathMtuDiscovery(fd, family, isAllowed ? IP_PMTUDISC_DONT : IP_PMTUDISC_PROBE);
  if (family === 6) setIntOption(fd, IPPROTO_IPV6, IPV6_DONTFRAG, isAllowed ? 0 : 1);
}

function opened(fd: number, what: string): number {
  if (fd >= 0) return fd;
  throw new WeftError('WEFT_SOCKET_FAILED', `failed to make ${what}: ${errnoName(fd)}`, {
    hint: 'Measuring the paths to other hosts needs CAP_NET_RAW: run this as root, or add the capability to the container.',
  });
}

/** Each raw ICMP socket is given every ICMP message of the host, and so a copy of what its filter does not keep out. */
type Filter = readonly FilterInstruction[];

/** Where the ICMP header begins: a raw socket of IPv4 has the IP header too. */
const toIcmp = (family: IpFamily): FilterInstruction =>
  family === 4 ? [BPF_LDX_HEADER_LENGTH, 0, 0, 0] : [BPF_LDX_IMMEDIATE, 0, 0, 0];
const TAKE: FilterInstruction = [BPF_RETURN, 0, 0, 0xffff_ffff];
const REFUSE: FilterInstruction = [BPF_RETURN, 0, 0, 0];

/** Echo replies with this identifier. */
function repliesTo(family: IpFamily, id: number): Filter {
  return [
    toIcmp(family),
    [BPF_LD_BYTE_INDIRECT, 0, 0, 0],
    [BPF_JUMP_EQUAL, 0, 3, ICMP[family].reply],
    [BPF_LD_HALF_INDIRECT, 0, 0, 4],
    [BPF_JUMP_EQUAL, 0, 1, id],
    TAKE,
    REFUSE,
  ];
}

/** Echo requests with the probes' payload, and all errors. */
function others(family: IpFamily): Filter {
  const [unreachable, tooBig, exceeded] = family === 4 ? [3, 3, 11] : [1, 2, 3];
  return [
    toIcmp(family),
    [BPF_LD_BYTE_INDIRECT, 0, 0, 0],
    [BPF_JUMP_EQUAL, 0, 2, ICMP[family].request],
    [BPF_LD_WORD_INDIRECT, 0, 0, 8],
    [BPF_JUMP_EQUAL, 3, 4, 0x77_65_66_74], // 'weft'
    [BPF_JUMP_EQUAL, 2, 0, unreachable],
    [BPF_JUMP_EQUAL, 1, 0, tooBig],
    [BPF_JUMP_EQUAL, 0, 1, exceeded],
    TAKE,
    REFUSE,
  ];
}

function addressIn(family: IpFamily, name: Uint8Array): IpAddr {
  const view = new DataView(name.buffer);
  if (family === 4) return ipv4Of(view.getUint32(4));
  return ipv6At(view, 8);
}

/** The time in the first control message, if it is one; milliseconds. */
function stampOf(control: Uint8Array, length: number): number | undefined {
  const stampNs = stampNsOf(control, length);
  return stampNs === undefined ? undefined : Number(stampNs) / 1e6;
}

/** `struct timespec` in milliseconds. */
function timeOf(view: DataView, at: number): number {
  return Number(view.getBigInt64(at, true)) * 1e3 + Number(view.getBigInt64(at + 8, true)) / 1e6;
}

/** Memory that does not move. */
function shared(bytes: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(bytes));
}
