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
const header = (name: Header['name'], bytes: number, isOuter = false): Header => ({ name, bytes, isOuter });
const packet = [header('IP', IP), header('UDP', UDP), data];
const framed = [header('Ethernet', ETHERNET), ...packet];
const inUdp = [header('IP', IP, true), header('UDP', UDP, true), ...packet];
const inUdpFramed = [header('Ethernet', ETHERNET, true), ...inUdp];
const inVxlan = [
  header('Ethernet', ETHERNET, true),
  header('IP', IP, true),
  header('UDP', UDP, true),
  header('VXLAN', VXLAN, true),
  header('Ethernet', ETHERNET, true),
  ...packet,
];
const inIp = [header('Ethernet', ETHERNET, true), header('IP', IP, true), ...packet];
const inWireguard = [
  header('Ethernet', ETHERNET, true),
  header('IP', IP, true),
  header('UDP', UDP, true),
  header('WireGuard', WIREGUARD, true),
  ...packet,
  header('trailer', WIREGUARD_TRAILER, true),
];
const inEsp = [
  header('Ethernet', ETHERNET, true),
  header('IP', IP, true),
  header('ESP', ESP, true),
  ...packet,
  header('trailer', ESP_TRAILER, true),
];

type Draft = Omit<FlowHop, 'side'>;

const hop = (place: string, layer: Layer, headers: readonly Header[], what: string, isContainer = false): Draft => ({
  place,
  layer,
  headers,
  what,
  isContainer,
});

const containerOut = [
  hop('application', 'user', [data], 'writes a message to its socket', true),
  hop('socket', 'kernel', packet, 'UDP and IP headers are put before it', true),
  hop('veth', 'kernel', framed, 'leaves the container by its veth pair', true),
  hop('cni0', 'kernel', framed, 'the bridge of all containers of the host gives it to the host'),
];
const containerIn = [
  hop('cni0', 'kernel', framed, 'the bridge knows the container by its MAC address'),
  hop('veth', 'kernel', framed, 'enters the container', true),
  hop('socket', 'kernel', packet, 'IP and UDP headers are taken off', true),
  hop('application', 'user', [data], 'reads the message', true),
];
const wire = hop('wire', 'physical', inUdpFramed, 'one datagram between the hosts');

/** The steps of one way. */
export function flowOf(kind: FlowKind): Flow {
  const title = FLOW_TITLES[kind];
  const flow = (colour: Flow['colour'], out: readonly Draft[], middle: Draft, back: readonly Draft[]): Flow => ({
    kind,
    title,
    colour,
    hops: [
      ...out.map((one): FlowHop => ({ ...one, side: 'from' })),
      { ...middle, side: 'wire' },
      ...back.map((one): FlowHop => ({ ...one, side: 'to' })),
    ],
  });
  switch (kind) {
    case 'forwarder':
      return flow(
        'tun',
        [
          ...containerOut,
          hop('flannel0', 'kernel', packet, 'the route of the overlay leads to the TUN device; TTL one less'),
          hop('flanneld', 'user', packet, 'the agent reads it, and looks up the host that owns the address'),
          hop('UDP socket', 'kernel', inUdp, 'the whole packet becomes the payload of a datagram to that host'),
          hop('eth0', 'kernel', inUdpFramed, 'an ordinary datagram for the network card'),
        ],
        wire,
        [
          hop('eth0', 'kernel', inUdpFramed, 'an ordinary datagram to port 8285'),
          hop('UDP socket', 'kernel', inUdp, 'the outer headers are taken off'),
          hop('flanneld', 'user', packet, 'the agent checks sender and destination'),
          hop('flannel0', 'kernel', packet, 'it is written to the TUN device; TTL one less'),
          ...containerIn,
        ],
      );
    case 'fast-path':
      return flow(
        'tun',
        [
          ...containerOut,
          hop('flannel0', 'kernel', inUdp, 'an eBPF program puts the outer headers before it: no user space'),
          hop('eth0', 'kernel', inUdpFramed, 'the same datagram that the agent would have sent'),
        ],
        wire,
        [
          hop('eth0', 'kernel', inUdpFramed, 'an eBPF program checks it and takes the outer headers off'),
          hop('flannel0', 'kernel', packet, 'appears as if it had come out of the TUN device'),
          ...containerIn,
        ],
      );
    case 'vxlan':
      return flow(
        'tun',
        [
          ...containerOut,
          hop(
            'flannel.1',
            'kernel',
            inVxlan.slice(1),
            'the kernel makes an Ethernet frame and puts VXLAN, UDP and IP before it',
          ),
          hop('eth0', 'kernel', inVxlan, 'a datagram to port 8472'),
        ],
        { ...wire, headers: inVxlan },
        [
          hop('eth0', 'kernel', inVxlan, 'a datagram to port 8472'),
          hop('flannel.1', 'kernel', framed, 'the kernel takes IP, UDP and VXLAN off'),
          ...containerIn,
        ],
      );
    case 'direct':
      return flow(
        'tun',
        [
          ...containerOut,
          hop('eth0', 'kernel', framed, 'the route leads to the other host itself: nothing is put around it'),
        ],
        { ...wire, headers: framed, what: 'the container’s own packet between the hosts' },
        [hop('eth0', 'kernel', framed, 'the host forwards it to the bridge'), ...containerIn],
      );
    case 'ipip':
      return flow(
        'tun',
        [
          ...containerOut,
          hop('flannel.ipip', 'kernel', inIp.slice(1), 'the kernel puts a second IP header before it: no UDP'),
          hop('eth0', 'kernel', inIp, 'a packet of IP protocol 4'),
        ],
        { ...wire, headers: inIp, what: 'one packet between the hosts' },
        [
          hop('eth0', 'kernel', inIp, 'a packet of IP protocol 4'),
          hop('flannel.ipip', 'kernel', packet, 'the kernel takes the outer IP header off'),
          ...containerIn,
        ],
      );
    case 'wireguard':
      return flow(
        'tun',
        [
          ...containerOut,
          hop(
            'flannel-wg',
            'kernel',
            inWireguard.slice(1),
            'the kernel encrypts it with the key of the host that owns the address, and puts WireGuard, UDP and IP before it',
          ),
          hop('eth0', 'kernel', inWireguard, 'a datagram to port 51820'),
        ],
        { ...wire, headers: inWireguard, what: 'one datagram between the hosts, whose payload is encrypted' },
        [
          hop('eth0', 'kernel', inWireguard, 'a datagram to port 51820'),
          hop(
            'flannel-wg',
            'kernel',
            packet,
            'the kernel decrypts it, and checks that its sender is in the subnet of that key',
          ),
          ...containerIn,
        ],
      );
    case 'ipsec':
      return flow(
        'tun',
        [
          ...containerOut,
          hop(
            'IPsec',
            'kernel',
            inEsp.slice(1),
            'no device: a policy of the kernel has it encrypted, and puts ESP and IP before it',
          ),
          hop('eth0', 'kernel', inEsp, 'a packet of IP protocol 50'),
        ],
        { ...wire, headers: inEsp, what: 'one packet between the hosts, encrypted from its ESP header on' },
        [
          hop('eth0', 'kernel', inEsp, 'a packet of IP protocol 50'),
          hop('IPsec', 'kernel', packet, 'the kernel decrypts it, and a policy checks that it came by this tunnel'),
          ...containerIn,
        ],
      );
    case 'native':
      return flow(
        'native',
        [
          hop('application', 'user', [data], 'a program of the host writes a message to its socket'),
          hop('socket', 'kernel', packet, 'UDP and IP headers are put before it'),
          hop('eth0', 'kernel', framed, 'leaves by the network card'),
        ],
        { ...wire, headers: framed, what: 'one datagram between the hosts' },
        [
          hop('eth0', 'kernel', framed, 'arrives'),
          hop('socket', 'kernel', packet, 'IP and UDP headers are taken off'),
          hop('application', 'user', [data], 'reads the message'),
        ],
      );
  }
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
