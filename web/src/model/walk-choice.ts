/** Which walk the reader has chosen, of those that the hosts and a lab make possible. Pure. */
import type { LabResult } from '../../../src/lab/lab-result.ts';
import type { LinkView, Overview } from '../../../src/ui/overview.ts';
import { capturedFlow } from './captured-walk.ts';
import { pathWords } from './hosts.ts';
import { FLOW_KINDS, type Flow, type FlowKind, flowKindOf, flowOf } from './walk-flows.ts';

/** One end of a walk. */
export interface End {
  /** In the address of the page: of a lab's container, or of a host. */
  readonly id: string;
  readonly text: string;
  /** Name of its host. */
  readonly host: string;
}

/** A lab has containers with names; elsewhere any container of a host will do. */
export function endsOf(overview: Overview, lab: LabResult | undefined): readonly End[] {
  if (lab !== undefined) {
    return lab.hosts.flatMap((host) =>
      host.containers.map(({ name, address }) => ({ id: name, text: `${name}  ${address ?? ''}`, host: host.name })),
    );
  }
  return overview.hosts.map(({ name, subnets }) => ({ id: name, text: `${name}  ${subnets[0] ?? ''}`, host: name }));
}

export interface WalkChoice {
  readonly from: End;
  readonly to: End;
  /** What packets of this pair take now, as far as an agent says and it is drawn. */
  readonly inUse: FlowKind | undefined;
  /** Why `inUse` is absent, in a sentence. */
  readonly notDrawn: string | undefined;
  readonly flows: ReadonlyMap<FlowKind, Flow>;
  /** Whose way in the lab has been captured; undefined when none has. */
  readonly captured: { readonly from: string; readonly to: string } | undefined;
}

/** @param wanted ids of ends, where the reader has chosen; others than there are count as not chosen. */
export function chooseWalk(
  overview: Overview,
  lab: LabResult | undefined,
  wanted: { readonly from: string | undefined; readonly to: string | undefined },
): WalkChoice | undefined {
  const ends = endsOf(overview, lab);
  const find = (id: string | undefined): End | undefined =>
    ends.find((end) => end.id === id) ?? ends.find((end) => end.host === id);
  const from = find(wanted.from) ?? find(lab?.walk?.from) ?? ends[0];
  const other = find(wanted.to) ?? find(lab?.walk?.to);
  const to = other !== undefined && other.host !== from?.host ? other : ends.find(({ host }) => host !== from?.host);
  if (from === undefined || to === undefined) return undefined;
  const link = overview.links.find(
    (one) => overview.hosts[one.from]!.name === from.host && overview.hosts[one.to]!.name === to.host,
  );
  const flows = new Map(FLOW_KINDS.map((kind) => [kind, flowOf(kind)]));
  const isCaptured = lab?.walk?.from === from.id && lab.walk.to === to.id;
  const capturedKind = kindOfDevice(lab?.overlay?.kind);
  if (isCaptured && capturedKind !== undefined) flows.set(capturedKind, capturedFlow(lab.walk, capturedKind));
  if (isCaptured && lab.nativeWalk !== null) flows.set('native', capturedFlow(lab.nativeWalk, 'native'));
  const inUse = flowKindOf(link?.path) ?? (isCaptured ? capturedKind : undefined);
  return {
    from,
    to,
    inUse,
    notDrawn: inUse === undefined ? notDrawnWords(link?.path) : undefined,
    flows,
    captured: lab?.walk === null || lab?.walk === undefined ? undefined : { from: lab.walk.from, to: lab.walk.to },
  };
}

/** Nothing else is shown in its place without a word. */
function notDrawnWords(path: LinkView['path']): string {
  return path === undefined
    ? 'The path that this pair uses is unknown.'
    : `The path in use (${pathWords(path)}) is not drawn.`;
}

/** By the kind of the kernel's device. */
function kindOfDevice(kind: string | undefined): FlowKind | undefined {
  return kind === 'tun' ? 'forwarder' : flowKindOf(kind);
}
