import { assertNever } from '../../assert-never.ts';
import type { LinkKind } from '../link-kinds/link-kind.ts';
import { linkKind } from '../link-kinds/table.ts';
import type { Op } from '../op.ts';
import type { Problem } from '../problem.ts';
import type { ActualLink, ActualState, OwnLinkKind, OwnWantedLink, WantedState } from '../state.ts';

export interface LinkPlan {
  readonly ops: Op[];
  /** Links that exist after the operations. */
  readonly present: ReadonlySet<string>;
  /** Those of them that are up then. */
  readonly up: ReadonlySet<string>;
  /** Links that are made anew or go: nothing that `actual` says about them holds. */
  readonly fresh: ReadonlySet<string>;
  readonly own: ReadonlySet<string>;
}

/** What makes the links as wanted. @param problems gets what stands in the way and needs a person. */
export function planLinks(
  wanted: Pick<WantedState, 'links' | 'absentLinks' | 'addresses' | 'isPartial'>,
  actual: Pick<ActualState, 'links' | 'addresses'>,
  problems: Problem[],
): LinkPlan {
  const byName = new Map(actual.links.map((link) => [link.name, link]));
  const ops: Op[] = [];
  const present = new Set<string>();
  const up = new Set<string>();
  const fresh = new Set<string>();
  const own = new Set<string>();
  for (const { name, kind } of wanted.isPartial === true ? [] : (wanted.absentLinks ?? [])) {
    if (byName.get(name)?.kind !== kind) continue;
    ops.push({ type: 'link-delete', name });
    fresh.add(name);
  }
  for (const link of wanted.links) {
    const found = byName.get(link.name);
    if (link.kind === 'external') {
      if (found === undefined) problems.push({ type: 'link-missing', link: link.name });
      else {
        present.add(link.name);
        if (found.up) up.add(link.name);
        else problems.push({ type: 'link-down', link: link.name });
      }
      continue;
    }
    const kind: LinkKind<OwnLinkKind> = linkKind(link.kind);
    const isOne = found?.kind === link.kind;
    if (isOne && kind.suits(link, found.settings)) {
      ops.push(...linkSet(link, found));
    } else if (found !== undefined && !kind.replaces && !isOne) {
      problems.push({ type: 'link-kind', link: link.name, wanted: link.kind, actual: found.kind });
      continue;
    } else {
      const underlay = kind.underlay(link);
      const renamed = renamedLink(link, wanted, actual);
      const isUsable = renamed !== undefined && kind.suits(link, renamed.settings);
      if (!isUsable && kind.madeBy === 'data plane') {
        problems.push({ type: 'link-missing', link: link.name });
        continue;
      }
      if (underlay !== undefined && !present.has(underlay) && !byName.has(underlay)) {
        problems.push({ type: 'underlay-missing', link: link.name, underlay });
        continue;
      }
      if (found !== undefined) ops.push({ type: 'link-delete', name: link.name });
      if (renamed !== undefined) fresh.add(renamed.name);
      if (isUsable) ops.push(...nameBack(link, renamed));
      // It may have what the kernel gives to one link alone, such as a VNI.
      else if (renamed !== undefined) ops.push({ type: 'link-delete', name: renamed.name });
      if (!isUsable) ops.push({ type: 'link-add', link });
      fresh.add(link.name);
    }
    const sums = 'sumsBefore' in link && link.sumsBefore && (fresh.has(link.name) || found?.sumsBefore === false);
    if (sums) ops.push({ type: 'link-sum-before', name: link.name });
    own.add(link.name);
    present.add(link.name);
    up.add(link.name);
  }
  return { ops, present, up, fresh, own };
}

/** The link that was this one, by the name that somebody has given it. */
function renamedLink(
  link: OwnWantedLink,
  wanted: Pick<WantedState, 'links' | 'absentLinks' | 'addresses'>,
  actual: Pick<ActualState, 'links' | 'addresses'>,
): ActualLink | undefined {
  const { knownBy }: LinkKind<OwnLinkKind> = linkKind(link.kind);
  const named = new Set([...wanted.links, ...(wanted.absentLinks ?? [])].map(({ name }) => name));
  const isKnown = (found: ActualLink): boolean => {
    if (found.wasOwn === link.name) return true;
    switch (knownBy) {
      case undefined:
        return false;
      case 'alias':
        return 'alias' in link && link.alias !== undefined && link.alias === found.alias;
      case 'addresses':
        return wanted.addresses.some(
          (mine) =>
            mine.link === link.name &&
            actual.addresses.some(
              ({ link: on, addr, prefixLength }) =>
                on === found.name && addr === mine.addr && prefixLength === mine.prefixLength,
            ),
        );
      default:
        return assertNever(knownBy, 'mark of a link');
    }
  };
  return actual.links.find((found) => found.kind === link.kind && !named.has(found.name) && isKnown(found));
}

/** Down for the moment, as kernels before 6.2 rename no link that is up. */
function nameBack(wanted: OwnWantedLink, found: ActualLink): Op[] {
  return [
    ...(found.up ? [{ type: 'link-set' as const, name: found.name, up: false }] : []),
    { type: 'link-rename', name: found.name, to: wanted.name },
    ...linkSet(wanted, { ...found, up: false }),
  ];
}

function linkSet(wanted: OwnWantedLink, found: ActualLink): Op[] {
  const mtuBytes = wanted.mtuBytes !== undefined && wanted.mtuBytes !== found.mtuBytes ? wanted.mtuBytes : undefined;
  const mac = 'mac' in wanted && wanted.mac !== undefined && wanted.mac !== found.mac ? wanted.mac : undefined;
  const alias = 'alias' in wanted && wanted.alias !== found.alias ? wanted.alias : undefined;
  // An operator may have made it longer.
  const queuePackets =
    'queuePackets' in wanted && wanted.queuePackets !== undefined && wanted.queuePackets > found.queuePackets
      ? wanted.queuePackets
      : undefined;
  const isSame = [mtuBytes, mac, alias, queuePackets].every((change) => change === undefined);
  if (isSame && found.up) return [];
  return [
    {
      type: 'link-set',
      name: wanted.name,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      ...(mac === undefined ? {} : { mac }),
      ...(alias === undefined ? {} : { alias }),
      ...(queuePackets === undefined ? {} : { queuePackets }),
      ...(found.up ? {} : { up: true }),
    },
  ];
}

/** The links among these whose permanent neighbours and forwarding entries are ours. */
export function neighbourLinks(links: WantedState['links']): ReadonlySet<string> {
  return new Set(
    links.filter((link) => link.kind !== 'external' && linkKind(link.kind).holdsNeighbours).map(({ name }) => name),
  );
}
