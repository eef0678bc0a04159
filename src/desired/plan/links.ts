import type { Op } from '../op.ts';
import type { Problem } from '../problem.ts';
import type { ActualLink, ActualState, WantedLink, WantedState } from '../state.ts';

export interface LinkPlan {
  readonly ops: Op[];
  /** Links that exist after the operations. */
  readonly present: ReadonlySet<string>;
  /** Those of them that are up then. */
  readonly up: ReadonlySet<string>;
  /** Links that are made anew: nothing that `actual` says about them holds. */
  readonly fresh: ReadonlySet<string>;
  readonly own: ReadonlySet<string>;
}

export function planLinks(
  wanted: Pick<WantedState, 'links'>,
  actual: Pick<ActualState, 'links'>,
  problems: Problem[],
): LinkPlan {
  const byName = new Map(actual.links.map((link) => [link.name, link]));
  const ops: Op[] = [];
  const present = new Set<string>();
  const up = new Set<string>();
  const fresh = new Set<string>();
  const own = new Set<string>();
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
    if (found !== undefined && suits(link, found)) {
      ops.push(...linkSet(link, found));
    } else if (link.kind === 'vxlan') {
      // flannel also makes a device of this name anew, whatever it was.
      if (!present.has(link.vxlan.underlay) && !byName.has(link.vxlan.underlay)) {
        problems.push({ type: 'underlay-missing', link: link.name, underlay: link.vxlan.underlay });
        continue;
      }
      if (found !== undefined) ops.push({ type: 'link-delete', name: link.name });
      ops.push({ type: 'link-add', link });
      fresh.add(link.name);
    } else if (found !== undefined) {
      problems.push({ type: 'link-kind', link: link.name, wanted: link.kind, actual: found.kind });
      continue;
    } else if (link.kind === 'tun') {
      problems.push({ type: 'link-missing', link: link.name });
      continue;
    } else {
      ops.push({ type: 'link-add', link });
      fresh.add(link.name);
    }
    own.add(link.name);
    present.add(link.name);
    up.add(link.name);
  }
  return { ops, present, up, fresh, own };
}

/** Whether the link can be used as it is, apart from what can be changed on it (MTU, MAC, state). */
function suits(wanted: Exclude<WantedLink, { kind: 'external' }>, found: ActualLink): boolean {
  if (found.kind !== wanted.kind) return false;
  if (wanted.kind !== 'vxlan') return true;
  const a = wanted.vxlan;
  const b = found.vxlan;
  return (
    b !== undefined &&
    a.vni === b.vni &&
    a.underlay === b.underlay &&
    a.local === b.local &&
    a.learning === b.learning &&
    a.gbp === b.gbp &&
    (a.port === undefined || a.port === b.port)
  );
}

function linkSet(wanted: Exclude<WantedLink, { kind: 'external' }>, found: ActualLink): Op[] {
  const mtuBytes = wanted.mtuBytes !== undefined && wanted.mtuBytes !== found.mtuBytes ? wanted.mtuBytes : undefined;
  const mac = wanted.kind === 'vxlan' && wanted.mac !== undefined && wanted.mac !== found.mac ? wanted.mac : undefined;
  if (mtuBytes === undefined && mac === undefined && found.up) return [];
  return [
    {
      type: 'link-set',
      name: wanted.name,
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
      ...(mac === undefined ? {} : { mac }),
      ...(found.up ? {} : { up: true as const }),
    },
  ];
}
