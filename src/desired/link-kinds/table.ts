import type { ActualLinkKind, OwnLinkKind } from '../state.ts';
import { bridge } from './bridge.ts';
import { ipip } from './ipip.ts';
import type { LinkData, LinkKind } from './link-kind.ts';
import { tun } from './tun.ts';
import { vxlan } from './vxlan.ts';
import { wireguard } from './wireguard.ts';

const LINK_KINDS: { readonly [K in OwnLinkKind]: LinkKind<K> } = { tun, bridge, vxlan, ipip, wireguard };

/** What must be known of links of that kind. */
export function linkKind<K extends OwnLinkKind>(kind: K): LinkKind<K> {
  return LINK_KINDS[kind];
}

/** What the kernel says of a link: its kind and settings. */
export function readLinkKind(infoKind: string | undefined, data: LinkData): ActualLinkKind {
  const kind = Object.values(LINK_KINDS).find((known) => known.kind === infoKind);
  const read = kind?.read(data);
  // The settings are those of the kind that read them.
  if (kind !== undefined && read !== undefined) return { kind: kind.kind, ...read } as ActualLinkKind;
  return { kind: 'other', settings: undefined };
}
