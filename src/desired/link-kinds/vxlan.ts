import { formatAddr, parseAddr } from '../../ip/address.ts';
import type { LinkKind } from './link-kind.ts';

/** A device with a fixed VNI whose peers come from the forwarding database alone (RFC 7348, drivers/net/vxlan). */
export const vxlan: LinkKind<'vxlan'> = {
  kind: 'vxlan',
  module: 'vxlan',
  madeBy: 'reconciler',
  // flannel also makes a device of this name anew, whatever it was.
  replaces: true,
  knownBy: 'addresses',
  holdsNeighbours: true,
  takesFrames: true,
  // By way of the first address of the peer's subnet, which is that of the peer's device.
  isFlannelRoute: ({ dst, via, onlink }) => onlink && via === dst.addr,
  underlay: ({ settings }) => settings.underlay,
  suits({ settings: a }, b) {
    return (
      a.vni === b.vni &&
      a.underlay === b.underlay &&
      a.local === b.local &&
      a.learning === b.learning &&
      a.gbp === b.gbp &&
      (a.port === undefined || a.port === b.port)
    );
  },
  create({ settings: { vni, underlay, local, port, learning, gbp } }) {
    const words = ['id', String(vni), 'dev', underlay, 'local', formatAddr(local)];
    // Without a number, iproute2 would warn and the kernel take its default, as flannel's Port 0 does.
    words.push('dstport', String(port ?? 0), learning ? 'learning' : 'nolearning');
    return gbp ? [...words, 'gbp'] : words;
  },
  read: (data) => ({
    settings: {
      vni: Number(data.id),
      underlay: typeof data.link === 'string' ? data.link : '',
      local: parseAddr(String(data.local ?? data.local6)),
      port: Number(data.port),
      learning: data.learning !== false,
      gbp: isFlagSet(data.gbp),
    },
  }),
};

/** A flag without a value (NLA_FLAG) is left out when it is not set. Set, iproute2 prints it as null, older ones as true. */
function isFlagSet(value: unknown): boolean {
  return value === null || value === true;
}
