/**
 * The way of one packet from an application to another on the next host, step by step, for each way that a host can send it.
 * The steps are those of src/lab/walk-probe.ts and src/lab/overlay.ts; here they are known without a capture, so that they
 * can be shown where nothing has been captured. Pure.
 */

export type Layer = 'user' | 'kernel' | 'physical';

export interface Header {
  readonly name: 'Ethernet' | 'IP' | 'UDP' | 'VXLAN' | 'WireGuard' | 'ESP' | 'data' | 'trailer';
  readonly bytes: number;
  /** Put around the container's packet by the overlay. */
  readonly isOuter: boolean;
}

export interface FlowHop {
  /** Of the picture: short. */
  readonly place: string;
  readonly layer: Layer;
  /** `from`, `wire` or `to`: which part of the picture it is in. */
  readonly side: 'from' | 'wire' | 'to';
  /** In a container's namespace or the host's. */
  readonly isContainer: boolean;
  /** What happens here, in a sentence. */
  readonly what: string;
  readonly headers: readonly Header[];
  /** Microseconds since the packet was first seen, where it was captured. */
  readonly atUs?: number;
  /** Addresses and the like, as they were captured. */
  readonly seen?: readonly string[];
}

export const FLOW_KINDS = [
  'forwarder',
  'fast-path',
  'vxlan',
  'direct',
  'ipip',
  'wireguard',
  'ipsec',
  'native',
] as const;
export type FlowKind = (typeof FLOW_KINDS)[number];

export interface Flow {
  readonly kind: FlowKind;
  readonly title: string;
  /** Blue is the way of containers, red that of an ordinary socket, as in the well-known picture of udp mode. */
  readonly colour: 'tun' | 'native';
  readonly hops: readonly FlowHop[];
  /** Of a capture; absent where the steps are only known. */
  readonly durationUs?: number;
}

export const FLOW_TITLES: Readonly<Record<FlowKind, string>> = {
  forwarder: 'udp, user space',
  'fast-path': 'udp, fast path',
  vxlan: 'vxlan',
  direct: 'host-gw',
  ipip: 'ipip',
  wireguard: 'wireguard',
  ipsec: 'ipsec',
  native: 'native socket',
};

const ETHERNET = 14;
const IP = 20;
const UDP = 8;
const VXLAN = 8;
/** Type, receiver and counter of a transport message (drivers/net/wireguard/messages.h). */
const WIREGUARD = 16;
/** What is encrypted is filled up to a multiple of 16 bytes; then comes Poly1305's tag. */
const WIREGUARD_TRAILER = 2 + 16;
/** SPI and sequence number (RFC 4303), and the explicit part of GCM's nonce (RFC 4106). */
const ESP = 8 + 8;
/** Pad length and next header, which need no padding here, and the check value of aes128gcm16. */
const ESP_TRAILER = 2 + 16;
/** Of a short message. */
const DATA = 18;

const data: Header = { name: 'data', bytes: DATA, isOuter: false };
const header = (name: Header['name'], bytes: number): Header => ({ name, bytes, isOuter: false });
const outer = (name: Header['name'], bytes: number): Header => ({ name, bytes, isOuter: true });
const packet = [header('IP', IP), header('UDP', UDP), data];
const framed = [header('Ethernet', ETHERNET), ...packet];
const inUdp = [outer('IP', IP), outer('UDP', UDP), ...packet];
const inUdpFramed = [outer('Ethernet', ETHERNET), ...inUdp];
const inVxlan = [
  outer('Ethernet', ETHERNET),
  outer('IP', IP),
  outer('UDP', UDP),
  outer('VXLAN', VXLAN),
  outer('Ethernet', ETHERNET),
  ...packet,
];
const inIp = [outer('Ethernet', ETHERNET), outer('IP', IP), ...packet];
const inWireguard = [
  outer('Ethernet', ETHERNET),
  outer('IP', IP),
  outer('UDP', UDP),
  outer('WireGuard', WIREGUARD),
  ...packet,
  outer('trailer', WIREGUARD_TRAILER),
];
const inEsp = [
  outer('Ethernet', ETHERNET),
  outer('IP', IP),
  outer('ESP', ESP),
  ...packet,
  outer('trailer', ESP_TRAILER),
];

type Step = Omit<FlowHop, 'side'>;

const onHost = (place: string, layer: Layer, headers: readonly Header[], what: string): Step => ({
  ...{ place, layer, headers, what },
  isContainer: false,
});
const inContainer = (...step: Parameters<typeof onHost>): Step => ({ ...onHost(...step), isContainer: true });

const containerOut = [
  inContainer('application', 'user', [data], 'writes a message to its socket'),
  inContainer('socket', 'kernel', packet, 'UDP and IP headers are put before it'),
  inContainer('veth', 'kernel', framed, 'leaves the container by its veth pair'),
  onHost('cni0', 'kernel', framed, 'the bridge of all containers of the host gives it to the host'),
];
const containerIn = [
  onHost('cni0', 'kernel', framed, 'the bridge knows the container by its MAC address'),
  inContainer('veth', 'kernel', framed, 'enters the container'),
  inContainer('socket', 'kernel', packet, 'IP and UDP headers are taken off'),
  inContainer('application', 'user', [data], 'reads the message'),
];
const onWire = (headers: readonly Header[], what: string): Step => onHost('wire', 'physical', headers, what);

interface Way {
  readonly colour: Flow['colour'];
  readonly from: readonly Step[];
  readonly wire: Step;
  readonly to: readonly Step[];
}

/** Between two containers. @param from from the routing of the one host on; `to` up to that of the other. */
const ofContainers = (from: readonly Step[], wire: Step, to: readonly Step[]): Way => ({
  colour: 'tun',
  from: [...containerOut, ...from],
  wire,
  to: [...to, ...containerIn],
});

interface KernelTunnel {
  /** Its device, or what takes its place. */
  readonly place: string;
  /** As the packet is between the hosts, with the frame of the network card. */
  readonly outside: readonly Header[];
  /** As it comes out at the other end. */
  readonly arrives: readonly Header[];
  readonly out: string;
  /** What the network cards of both hosts see. */
  readonly card: string;
  readonly wire: string;
  readonly back: string;
}

/** Between two containers, by a tunnel that the kernel has itself. */
const throughKernel = ({ place, outside, arrives, out, card, wire, back }: KernelTunnel): Way => {
  const atCard = onHost('eth0', 'kernel', outside, card);
  return ofContainers([onHost(place, 'kernel', outside.slice(1), out), atCard], onWire(outside, wire), [
    atCard,
    onHost(place, 'kernel', arrives, back),
  ]);
};

const WAYS: Readonly<Record<FlowKind, Way>> = {
  forwarder: ofContainers(
    [
      onHost('flannel0', 'kernel', packet, 'the route of the overlay leads to the TUN device; TTL one less'),
      onHost('flanneld', 'user', packet, 'the agent reads it, and looks up the host that owns the address'),
      onHost('UDP socket', 'kernel', inUdp, 'the whole packet becomes the payload of a datagram to that host'),
      onHost('eth0', 'kernel', inUdpFramed, 'an ordinary datagram for the network card'),
    ],
    onWire(inUdpFramed, 'one datagram between the hosts'),
    [
      onHost('eth0', 'kernel', inUdpFramed, 'an ordinary datagram to port 8285'),
      onHost('UDP socket', 'kernel', inUdp, 'the outer headers are taken off'),
      onHost('flanneld', 'user', packet, 'the agent checks sender and destination'),
      onHost('flannel0', 'kernel', packet, 'it is written to the TUN device; TTL one less'),
    ],
  ),
  'fast-path': ofContainers(
    [
      onHost('flannel0', 'kernel', inUdp, 'an eBPF program puts the outer headers before it: no user space'),
      onHost('eth0', 'kernel', inUdpFramed, 'the same datagram that the agent would have sent'),
    ],
    onWire(inUdpFramed, 'one datagram between the hosts'),
    [
      onHost('eth0', 'kernel', inUdpFramed, 'an eBPF program checks it and takes the outer headers off'),
      onHost('flannel0', 'kernel', packet, 'appears as if it had come out of the TUN device'),
    ],
  ),
  vxlan: throughKernel({
    ...{ place: 'flannel.1', outside: inVxlan, arrives: framed },
    out: 'the kernel makes an Ethernet frame and puts VXLAN, UDP and IP before it',
    card: 'a datagram to port 8472',
    wire: 'one datagram between the hosts',
    back: 'the kernel takes IP, UDP and VXLAN off',
  }),
  direct: ofContainers(
    [onHost('eth0', 'kernel', framed, 'the route leads to the other host itself: nothing is put around it')],
    onWire(framed, 'the container’s own packet between the hosts'),
    [onHost('eth0', 'kernel', framed, 'the host forwards it to the bridge')],
  ),
  ipip: throughKernel({
    ...{ place: 'flannel.ipip', outside: inIp, arrives: packet },
    out: 'the kernel puts a second IP header before it: no UDP',
    card: 'a packet of IP protocol 4',
    wire: 'one packet between the hosts',
    back: 'the kernel takes the outer IP header off',
  }),
  wireguard: throughKernel({
    ...{ place: 'flannel-wg', outside: inWireguard, arrives: packet },
    out: 'the kernel encrypts it with the key of the host that owns the address, and puts WireGuard, UDP and IP before it',
    card: 'a datagram to port 51820',
    wire: 'one datagram between the hosts, whose payload is encrypted',
    back: 'the kernel decrypts it, and checks that its sender is in the subnet of that key',
  }),
  ipsec: throughKernel({
    ...{ place: 'IPsec', outside: inEsp, arrives: packet },
    out: 'no device: a policy of the kernel has it encrypted, and puts ESP and IP before it',
    card: 'a packet of IP protocol 50',
    wire: 'one packet between the hosts, encrypted from its ESP header on',
    back: 'the kernel decrypts it, and a policy checks that it came by this tunnel',
  }),
  native: {
    colour: 'native',
    from: [
      onHost('application', 'user', [data], 'a program of the host writes a message to its socket'),
      onHost('socket', 'kernel', packet, 'UDP and IP headers are put before it'),
      onHost('eth0', 'kernel', framed, 'leaves by the network card'),
    ],
    wire: onWire(framed, 'one datagram between the hosts'),
    to: [
      onHost('eth0', 'kernel', framed, 'arrives'),
      onHost('socket', 'kernel', packet, 'IP and UDP headers are taken off'),
      onHost('application', 'user', [data], 'reads the message'),
    ],
  },
};

/** The steps of one way. */
export function flowOf(kind: FlowKind): Flow {
  const { colour, from, wire, to } = WAYS[kind];
  return {
    ...{ kind, colour, title: FLOW_TITLES[kind] },
    hops: [
      ...from.map((step): FlowHop => ({ ...step, side: 'from' })),
      { ...wire, side: 'wire' },
      ...to.map((step): FlowHop => ({ ...step, side: 'to' })),
    ],
  };
}

export function bytesOf(headers: readonly Header[]): number {
  return headers.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** How long the packet has taken to a hop from the last one before it whose time is known. */
export function timeTo({ hops }: Flow, index: number): { readonly us: number; readonly from: string } | undefined {
  const at = hops[index]?.atUs;
  const before = hops.slice(0, index).findLast(({ atUs }) => atUs !== undefined);
  return at === undefined || before === undefined ? undefined : { us: at - before.atUs!, from: before.place };
}

/** How often it goes from the kernel to a program or back: each costs a system call and a copy. */
export function crossingsOf({ hops }: Flow): number {
  return hops.filter(({ layer }, i) => i > 0 && (layer === 'user') !== (hops[i - 1]!.layer === 'user')).length;
}

/** What the overlay adds to each packet on the wire. */
export function overheadOf({ hops }: Flow): number {
  const onWire = hops.find(({ side }) => side === 'wire')!;
  const outer = bytesOf(onWire.headers.filter(({ isOuter }) => isOuter));
  // One Ethernet header is there in any case.
  return outer === 0 ? 0 : outer - ETHERNET;
}

/** The way of a path that an agent names, where it is one of those that are drawn. */
export function flowKindOf(path: string | undefined): FlowKind | undefined {
  return FLOW_KINDS.find((kind) => kind === path);
}
