import { WeftError } from '../errors.ts';
import { containsAddr, type IpAddr, type IpPrefix, parseAddr, parsePrefix } from '../ip/address.ts';
import type { Flow } from './flow.ts';

/** Whether a packet is wanted. */
export type PacketFilter = (flow: Flow) => boolean;

/** What `peer WORD` stands for: the subnets of that peer and its addresses between the hosts. */
export type PeerPrefixes = (word: string) => readonly IpPrefix[] | undefined;

type Side = 'source' | 'destination' | 'either';

const PROTOCOLS: Readonly<Record<string, readonly number[]>> = { tcp: [6], udp: [17], icmp: [1, 58] };
const HINT =
  'Terms are: [src|dst] host ADDRESS, [src|dst] net CIDR, [src|dst] port NUMBER, peer NAME, tcp, udp, icmp; with and, or, not and parentheses.';

/**
 * tcpdump's words for the few questions that an overlay asks: a packet is looked at as its containers see it, in a tunnel or not.
 *
 * @throws WeftError WEFT_USAGE
 */
export function parsePacketFilter(text: string, peers: PeerPrefixes): PacketFilter {
  const words = text.match(/[()]|[^\s()]+/g) ?? [];
  let at = 0;
  const wrong = (what: string): WeftError =>
    new WeftError('WEFT_USAGE', `cannot read the filter ${JSON.stringify(text)}: ${what}`, { hint: HINT });
  const next = (): string => {
    const word = words[at++];
    if (word === undefined) throw wrong('it ends too early');
    return word;
  };
  const accept = (word: string): boolean => {
    if (words[at] !== word) return false;
    at++;
    return true;
  };

  const either = (): PacketFilter => {
    const parts = [both()];
    while (accept('or')) parts.push(both());
    return (flow) => parts.some((part) => part(flow));
  };
  const both = (): PacketFilter => {
    const parts = [one()];
    while (accept('and')) parts.push(one());
    return (flow) => parts.every((part) => part(flow));
  };
  const one = (): PacketFilter => {
    if (accept('not')) {
      const negated = one();
      return (flow) => !negated(flow);
    }
    if (accept('(')) {
      const inside = either();
      if (!accept(')')) throw wrong('a parenthesis is not closed');
      return inside;
    }
    return term();
  };
  const term = (): PacketFilter => {
    const protocols = PROTOCOLS[words[at] ?? ''];
    if (protocols !== undefined) {
      at++;
      return ({ protocol }) => protocols.includes(protocol);
    }
    const side: Side = accept('src') ? 'source' : accept('dst') ? 'destination' : 'either';
    const kind = next();
    switch (kind) {
      case 'host': {
        const word = next();
        const wanted = parseAddr(word);
        if (wanted === undefined) throw wrong(`${JSON.stringify(word)} is no address`);
        return onSide(side, (addr) => addr === wanted);
      }
      case 'net': {
        const word = next();
        const wanted = parsePrefix(word);
        if (wanted === undefined) throw wrong(`${JSON.stringify(word)} is no CIDR`);
        return onSide(side, (addr) => containsAddr(wanted, addr));
      }
      case 'peer': {
        const word = next();
        const wanted = peers(word);
        if (wanted === undefined) throw wrong(`${JSON.stringify(word)} is not a peer of this host`);
        return onSide(side, (addr) => wanted.some((prefix) => containsAddr(prefix, addr)));
      }
      case 'port': {
        const word = next();
        const wanted = /^\d{1,5}$/.test(word) ? Number(word) : 65_536;
        if (wanted > 65_535) throw wrong(`${JSON.stringify(word)} is no port`);
        return ({ ports }) =>
          ports !== undefined &&
          ((side !== 'destination' && ports.source === wanted) || (side !== 'source' && ports.destination === wanted));
      }
      default:
        throw wrong(`${JSON.stringify(kind)} is not known`);
    }
  };

  const filter = either();
  if (at < words.length) throw wrong(`${JSON.stringify(words[at])} is not expected there`);
  return filter;
}

function onSide(side: Side, fits: (addr: IpAddr) => boolean): PacketFilter {
  return ({ source, destination }) =>
    (side !== 'destination' && fits(source)) || (side !== 'source' && fits(destination));
}
