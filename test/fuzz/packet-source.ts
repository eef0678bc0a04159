import {
  ACK,
  address,
  CWR,
  FIN,
  frame,
  type IpOnly,
  icmpPacket,
  ipv4Packet,
  PSH,
  payloadOf,
  SYN,
  tcpFrame,
  tcpPacket,
  udpFrame,
  udpPacket,
} from '../fakes/packets.ts';
import {
  address6,
  fragmentHeader,
  type Ip6Only,
  icmp6Packet,
  ipv6Packet,
  optionsHeader,
  tcp6Frame,
  tcp6Packet,
  udp6Frame,
  udp6Packet,
} from '../fakes/packets6.ts';
import type { Random } from './random.ts';

/** What a socket with UDP_GRO may return, true or not: `segment` need not divide `data`. */
export interface FuzzDatagram {
  readonly address: number | bigint;
  readonly port: number;
  readonly data: Uint8Array;
  readonly segment: number;
}

const SOURCES = ['192.168.77.2', '192.168.77.2', '192.168.77.3', '192.168.77.3', '192.168.77.4'].map(address);
const NODES = ['10.244.1.2', '10.244.2.5', '10.244.2.200', '10.244.3.5', '192.168.77.2', '8.8.8.8'].map(address);
const DESTINATIONS = ['10.244.2.5', '10.244.2.6', '10.244.2.200', '10.244.3.5', '10.244.9.1', '8.8.8.8'].map(address);
const NODES6 = [
  'fd00:244:0:1::2',
  'fd00:244:0:2::5',
  'fd00:244:0:2::c8',
  'fd00:244:0:3::5',
  'fd00:77::2',
  '2001:db8::8',
  '::1',
].map(address6);
const DESTINATIONS6 = [
  'fd00:244:0:1::2',
  'fd00:244:0:2::5',
  'fd00:244:0:3::5',
  'fd00:244:0:9::1',
  'fd00:77::1',
  'ff02::1',
  'fe80::1',
].map(address6);
const WORDS = [0, 1, 2, 7, 8, 19, 20, 28, 40, 60, 64, 576, 1_400, 1_472, 1_500, 0x7fff, 0x8000, 65_507, 0xfffe, 0xffff];

/** Makes batches of valid, damaged and invented packets; the same for the same state of the generator. */
export class PacketSource {
  /** Valid frames of every kind, as a TUN would give them. */
  readonly #frames: Uint8Array[] = [];
  /** Packets of one flow that follow each other, some with a break. */
  readonly #runs: Uint8Array[][] = [];

  constructor(random: Random) {
    for (let index = 0; index < 600; index++) this.#frames.push(validFrame(random));
    for (let index = 0; index < 120; index++) this.#runs.push(validRun(random));
  }

  /** Frames for Outbound. */
  frames(random: Random): Uint8Array[] {
    const count = 1 + random.below(48);
    const frames = Array.from({ length: count }, () => this.#frame(random));
    return frames.map((bytes) => (bytes.length === 0 ? random.bytes(1) : bytes)); // a read of 0 bytes is no packet
  }

  #frame(random: Random): Uint8Array {
    if (random.oneIn(6)) return random.bytes(random.oneIn(50) ? random.below(65_551) : random.below(200));
    const valid = random.pick(this.#frames);
    if (random.oneIn(3)) return valid;
    const lying = mutated(random, valid, 10);
    if (random.oneIn(2)) lieInVirtioHeader(random, lying);
    return lying;
  }

  /** Messages for Inbound. */
  datagrams(random: Random): FuzzDatagram[] {
    const count = 1 + random.below(24);
    return Array.from({ length: count }, () => this.#message(random));
  }

  #message(random: Random): FuzzDatagram {
    const isStranger = random.oneIn(20);
    const from = { address: isStranger ? random.word() : random.pick(SOURCES), port: random.below(65_536) };
    if (random.oneIn(10)) {
      const data = random.bytes(random.oneIn(100) ? random.below(65_508) : random.below(120));
      return { ...from, data, segment: random.oneIn(6) ? lyingSegment(random, data.length) : 0 };
    }
    if (random.oneIn(4)) return { ...from, data: this.packet(random), segment: 0 };
    const run = random.pick(this.#runs);
    const start = random.below(run.length);
    const longest = random.oneIn(10) ? run.length : 12;
    const packets = run.slice(start, start + 1 + random.below(Math.min(longest, run.length - start)));
    if (random.oneIn(3)) {
      const index = random.below(packets.length);
      packets[index] = mutated(random, packets[index]!, 0);
    }
    const data = new Uint8Array(
      Math.min(
        65_507,
        packets.reduce((sum, packet) => sum + packet.length, 0),
      ),
    );
    let at = 0;
    for (const packet of packets) {
      data.set(packet.subarray(0, data.length - at), at);
      at = Math.min(data.length, at + packet.length);
    }
    const segment = packets[0]!.length;
    return { ...from, data, segment: random.oneIn(40) ? lyingSegment(random, data.length) : segment };
  }

  /** One IP packet, valid or damaged. */
  packet(random: Random): Uint8Array {
    const packet = random.pick(this.#frames).subarray(10);
    return random.oneIn(3) ? packet.subarray(0, 65_507) : mutated(random, packet.subarray(0, 2_000), 0);
  }
}

/** Any size, but thousands of datagrams in one message are rare: they would be most of the run. */
function lyingSegment(random: Random, length: number): number {
  const least = random.oneIn(200) ? 1 : Math.max(1, Math.floor(length / 100));
  return least + random.below(length + 9);
}

function addresses(random: Random): IpOnly {
  return {
    source: random.pick(NODES),
    destination: random.pick(DESTINATIONS),
    id: random.below(65_536),
    ttl: random.oneIn(10) ? random.below(3) : 64,
    tos: random.oneIn(4) ? random.below(256) : 0,
    dontFragment: random.oneIn(2),
    ...(random.oneIn(12) ? { options: payloadOf(4 * random.below(11), random.word()) } : {}),
  };
}

function lengthOf(random: Random): number {
  if (random.oneIn(40)) return random.below(65_400);
  return random.oneIn(3) ? random.below(3_000) : random.below(300);
}

function addresses6(random: Random): Ip6Only {
  return {
    source: random.pick(NODES6),
    destination: random.pick(DESTINATIONS6),
    hopLimit: random.oneIn(10) ? random.below(3) : 64,
    trafficClass: random.oneIn(4) ? random.below(256) : 0,
    flowLabel: random.below(3),
    ...(random.oneIn(12) ? { extensions: [[random.pick([0, 60]), optionsHeader(1 + random.below(9))] as const] } : {}),
  };
}

function validFrame6(random: Random): Uint8Array {
  const ip = addresses6(random);
  const ports = { sourcePort: random.below(4) + 1, destinationPort: random.below(4) + 1 };
  const size = random.pick([1, 8, 100, 536, 1_000, 1_400, 1_412, 9_000, 65_000]);
  const payload = payloadOf(Math.min(lengthOf(random), size < 100 ? 1_500 : 65_300), random.word());
  const options = payloadOf(random.oneIn(3) ? 4 * random.below(11) : 0, random.word());
  const flags = random.pick([ACK, ACK, ACK | PSH, SYN, ACK | FIN, ACK | PSH | CWR, random.below(256)]);
  const tcp = { ip, ...ports, sequence: random.word(), acknowledgement: 1, flags, options, payload };
  const gso = payload.length === 0 ? 0 : size;
  switch (random.below(7)) {
    case 0:
    case 1:
      return tcp6Frame(tcp, gso);
    case 2:
      return udp6Frame({ ip, ...ports, payload }, gso);
    case 3:
      return frame(icmp6Packet(ip, random.below(256), random.below(16), random.word(), payload.subarray(0, 1_400)));
    case 4: {
      const extensions = [[44, fragmentHeader(random.below(200), random.oneIn(2))] as const];
      return frame(ipv6Packet({ ...ip, extensions, nextHeader: random.pick([6, 17, 58]) }, payload.subarray(0, 1_400)));
    }
    case 5:
      return frame(ipv6Packet({ ...ip, nextHeader: random.below(256) }, payload.subarray(0, 1_400)));
    default:
      return tcp6Frame({ ...tcp, payload: payload.subarray(0, 1_400) }, 0);
  }
}

function validFrame(random: Random): Uint8Array {
  if (random.oneIn(3)) return validFrame6(random);
  const ip = addresses(random);
  const ports = { sourcePort: random.below(4) + 1, destinationPort: random.below(4) + 1 };
  const size = random.pick([1, 8, 100, 536, 1_000, 1_400, 1_432, 9_000, 65_000]);
  // A long packet cut into pieces of 1 or 8 bytes costs as much as thousands of others, each time it is picked.
  const payload = payloadOf(Math.min(lengthOf(random), size < 100 ? 1_500 : 65_400), random.word());
  const options = payloadOf(random.oneIn(3) ? 4 * random.below(11) : 0, random.word());
  const flags = random.pick([ACK, ACK, ACK | PSH, SYN, ACK | FIN, ACK | PSH | CWR, random.below(256)]);
  const tcp = { ip, ...ports, sequence: random.word(), acknowledgement: 1, flags, options, payload };
  const gso = payload.length === 0 ? 0 : size;
  switch (random.below(8)) {
    case 0:
    case 1:
      return tcpFrame(tcp, gso);
    case 2:
      return udpFrame({ ip, ...ports, payload }, gso);
    case 3:
      return frame(icmpPacket(ip, random.below(20), random.below(16), random.word(), payload));
    case 4: {
      const fragment = { moreFragments: random.oneIn(2), fragmentOffset: random.below(200), dontFragment: false };
      return frame(ipv4Packet({ ...ip, ...fragment, protocol: random.pick([6, 17]) }, payload));
    }
    case 5:
      return frame(ipv4Packet({ ...ip, protocol: random.below(256) }, payload));
    case 6:
      return frame(udpPacket({ ip, ...ports, payload, withoutChecksum: random.oneIn(4) }));
    default:
      return tcpFrame({ ...tcp, payload: payload.subarray(0, 1_400) }, 0);
  }
}

function validRun(random: Random): Uint8Array[] {
  const ip = { ...addresses(random), source: random.pick(NODES.slice(0, 4)), ttl: 64 };
  const ports = { sourcePort: random.below(4) + 1, destinationPort: random.below(4) + 1 };
  const length = random.pick([1, 10, 100, 100, 500, 1_000, 1_400]);
  const isTcp = !random.oneIn(3);
  const options = payloadOf(random.oneIn(2) ? 12 : 0, random.word());
  let sequence = random.word();
  if (random.oneIn(3)) {
    const ip6 = { ...addresses6(random), source: random.pick(NODES6.slice(0, 5)), hopLimit: 64 };
    return Array.from({ length: 2 + random.below(Math.floor(60_000 / (length + 100))) }, (_, index) => {
      const payload = payloadOf(random.oneIn(30) ? random.below(length + 1) : length, index);
      if (!isTcp) return udp6Packet({ ip: ip6, ...ports, payload });
      const flags = random.oneIn(20) ? ACK | PSH : ACK;
      const packet = tcp6Packet({ ip: ip6, ...ports, payload, sequence, options, flags });
      sequence = (sequence + payload.length) >>> 0;
      return packet;
    });
  }
  return Array.from({ length: 2 + random.below(Math.floor(60_000 / (length + 80))) }, (_, index) => {
    const payload = payloadOf(random.oneIn(30) ? random.below(length + 1) : length, index);
    const fields = { ip: { ...ip, id: (ip.id ?? 0) + index }, ...ports, payload };
    if (!isTcp) return udpPacket(fields);
    const packet = tcpPacket({ ...fields, sequence, options, flags: random.oneIn(20) ? ACK | PSH : ACK });
    sequence = (sequence + payload.length) >>> 0;
    return packet;
  });
}

/** A copy with a few bytes, words or the length changed; the first `skip` bytes are left alone but for a cut. */
export function mutated(random: Random, bytes: Uint8Array, skip: number): Uint8Array {
  let copy = Uint8Array.from(bytes);
  for (let rounds = 1 + random.below(3); rounds > 0; rounds--) {
    // Most changes hit the headers, where they decide something.
    const reach = random.oneIn(4) ? copy.length : Math.min(copy.length, skip + 64);
    const at = skip + random.below(Math.max(1, reach - skip));
    switch (random.below(6)) {
      case 0:
        if (at < copy.length) copy[at]! ^= 1 << random.below(8);
        break;
      case 1:
        if (at < copy.length) copy[at] = random.word();
        break;
      case 2: {
        const word = random.pick(WORDS);
        if (at + 1 < copy.length) copy.set([word >>> 8, word & 255], at);
        break;
      }
      case 3: {
        // The length, a little off.
        if (skip + 5 < copy.length) {
          const is6 = copy[skip]! >>> 4 === 6;
          const total = copy.length - skip + random.below(5) - 2 - (is6 ? 40 : 0);
          copy.set([(total >>> 8) & 255, total & 255], skip + (is6 ? 4 : 2));
        }
        break;
      }
      case 4:
        copy = copy.slice(0, random.below(copy.length + 1));
        break;
      default: {
        const longer = new Uint8Array(Math.min(copy.length + random.below(40), 65_550));
        longer.set(copy.subarray(0, longer.length));
        copy = longer;
      }
    }
  }
  return copy;
}

function lieInVirtioHeader(random: Random, bytes: Uint8Array): void {
  if (bytes.length < 10) return;
  const view = new DataView(bytes.buffer);
  for (let lies = 1 + random.below(3); lies > 0; lies--) {
    switch (random.below(5)) {
      case 0:
        bytes[0] = random.below(8);
        break;
      case 1:
        bytes[1] = random.pick([0, 1, 3, 4, 5, 0x80, 0x81, 0x85, 0xff]);
        break;
      case 2:
        view.setUint16(4, random.oneIn(2) ? random.pick(WORDS.slice(3)) : 50 + random.below(65_486), true);
        break;
      case 3:
        view.setUint16(6, random.oneIn(2) ? random.pick(WORDS) : random.below(65_536), true);
        break;
      default:
        view.setUint16(8, random.oneIn(2) ? random.pick(WORDS) : random.below(65_536), true);
    }
  }
}
