import type { ActualLinkSettings, ActualRoute, OwnLinkKind, OwnWantedLink } from '../state.ts';

export type WantedOf<K extends OwnLinkKind> = Extract<OwnWantedLink, { kind: K }>;
/** `linkinfo.info_data` of `ip -j -d link`. */
export type LinkData = { readonly [key: string]: unknown };

/** What the plan and the adapter need to know of one kind of link. A new kind is one file and one line of table.ts. */
export interface LinkKind<K extends OwnLinkKind> {
  /** As in rtnetlink's IFLA_INFO_KIND. */
  readonly kind: K;
  /** The kernel's module for such links. */
  readonly module: string;
  /** A link that the data plane makes is missing until it has. */
  readonly madeBy: 'reconciler' | 'data plane';
  /** Whether a link of that name that does not suit is deleted and made anew; if not, a person has to remove it. */
  readonly replaces: boolean;
  /** By what one of ours is known again when somebody has given it another name; `undefined`: it is not. */
  readonly knownBy: 'addresses' | 'alias' | undefined;
  /** Whether its permanent neighbours and forwarding entries are ours, all of them. */
  readonly holdsNeighbours: boolean;
  /** Whether whoever reaches it can send frames of any kind into this host's link, IPv6 among them. */
  readonly takesFrames: boolean;
  /** Whether a route by such a link of ours has the form that flanneld gives to the route to a peer, which nobody else has a use for. */
  isFlannelRoute(route: ActualRoute): boolean;
  /** The link that it cannot be made without. */
  underlay(wanted: WantedOf<K>): string | undefined;
  /** Whether a link of this kind can be used as it is, apart from what can be changed on it (MTU, MAC, state). */
  suits(wanted: WantedOf<K>, found: ActualLinkSettings[K]): boolean;
  /** The words of `ip link add … type KIND` after the kind. */
  create(wanted: WantedOf<K>): readonly string[];
  /** `undefined` when it is not one of these after all. */
  read(data: LinkData): { readonly settings: ActualLinkSettings[K] } | undefined;
}
