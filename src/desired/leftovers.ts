import type { Op } from './op.ts';
import { reconcile } from './plan/plan.ts';
import { type ActualState, EMPTY_WANTED_STATE, type OwnLink, type WantedState } from './state.ts';

const NOTHING: WantedState = { ...EMPTY_WANTED_STATE, staleRoutes: 'everywhere' };

/** What must be read of the kernel to find these links, and all routes. */
export function leftoverScope(links: readonly OwnLink[]): WantedState {
  return { ...EMPTY_WANTED_STATE, links: links.map(({ name }) => ({ kind: 'external', name })) };
}

/** Takes away every route that agents have left, known by weft's protocol number. Pure. */
export function leftoverRoutes(actual: ActualState): readonly Op[] {
  return reconcile(NOTHING, { ...actual, policies: [] });
}

/** Takes away every IPsec policy that agents have left, weft's or flanneld's. Pure. */
export function leftoverPolicies(actual: ActualState): readonly Op[] {
  return reconcile(NOTHING, actual).filter(({ type }) => type === 'policy-delete');
}

/** Takes away these links. One that has the name, but is of another kind, is somebody else's. Pure. */
export function leftoverLinks(
  links: readonly OwnLink[],
  actual: ActualState,
): readonly Extract<Op, { type: 'link-delete' }>[] {
  return links
    .filter(({ name, kind }) => actual.links.some((link) => link.name === name && link.kind === kind))
    .map(({ name }) => ({ type: 'link-delete', name }));
}
