import { PEER_PATHS, type PeerPath } from '../../api/peer-path.ts';
import type { EchoOutcome, EchoRound } from '../../diagnosis/echo-round.ts';
import { printable } from '../../printable.ts';
import type { PathResult } from '../../probe/probe-path.ts';
import { wrapped } from '../../wrapped.ts';

/** One echo each way, and how the agent carried packets then; `path` is absent when no agent answered. */
export interface PingRound extends EchoRound {
  readonly path?: string;
}

/** What probing of all sizes has found, after the echoes. */
export interface PingProbes {
  readonly target: Pick<PathResult, 'passes' | 'pathMtuBytes' | 'diagnosis'>;
  /** Of the peer's own end of the overlay, where a container was pinged. */
  readonly host: Pick<PathResult, 'passes'> | undefined;
}

export interface PingFacts {
  /** What was pinged: a subnet, or a container's address. */
  readonly name: string;
  readonly rounds: readonly PingRound[];
  /** `undefined` after an interrupt. */
  readonly probes: PingProbes | undefined;
  /** What should pass. */
  readonly mtuBytes: number;
  readonly underlayMtuBytes: number;
  readonly untilFast: boolean;
}

interface EchoSummary {
  readonly sent: number;
  readonly answered: number;
  readonly rttMs?: { readonly min: number; readonly avg: number; readonly max: number };
}

interface PingProblem {
  readonly fault: string;
  readonly cause: string;
  readonly remedy: string;
}

/** `ok`: every echo through the overlay was answered, no fault was found, and the path is what was waited for. */
export interface PingReport {
  readonly ok: boolean;
  readonly name: string;
  readonly overlay: EchoSummary;
  readonly underlay?: EchoSummary;
  readonly path?: string;
  /** The longest packets that pass; absent: not known. */
  readonly mtu: {
    readonly overlayBytes?: number;
    readonly configuredBytes: number;
    readonly underlayBytes: number;
    /** Whether packets of `underlayBytes` pass beside the overlay. */
    readonly underlayPasses: PathResult['passes']['underlay-full'];
  };
  readonly problems: readonly PingProblem[];
  readonly rounds: readonly PingRound[];
}

/** Whether the kernel carries packets on that path, which is what `--until-fast` waits for. */
export function isFast(path: string | undefined): boolean {
  return path !== undefined && Object.hasOwn(PEER_PATHS, path) && PEER_PATHS[path as PeerPath].inKernel;
}

/** Pure. */
export function summarize(facts: PingFacts): PingReport {
  const { name, rounds, probes, mtuBytes, underlayMtuBytes } = facts;
  const overlay = summaryOf(rounds.map((round) => round.overlay));
  const beside = rounds.flatMap(({ underlay }) => underlay ?? []);
  const path = rounds.at(-1)?.path;
  const problems = problemsOf(facts, path);
  const found = probes?.target.pathMtuBytes;
  return {
    ok: overlay.sent > 0 && overlay.answered === overlay.sent && problems.length === 0,
    ...{ name, overlay, problems, rounds },
    ...(beside.length > 0 && { underlay: summaryOf(beside) }),
    ...(path !== undefined && { path }),
    mtu: {
      ...(found !== undefined && { overlayBytes: found }),
      ...{ configuredBytes: mtuBytes, underlayBytes: underlayMtuBytes },
      underlayPasses: probes?.target.passes['underlay-full'] ?? 'unknown',
    },
  };
}

function problemsOf({ name, rounds, probes, untilFast }: PingFacts, path: string | undefined): PingProblem[] {
  const problems: PingProblem[] = [];
  if (probes?.target.passes.small === 'no' && probes.host?.passes.small === 'yes') {
    problems.push({
      fault: 'container-silent',
      cause: `the peer’s host answers through the overlay, and ${name} does not`,
      remedy: 'Check that the container runs, has that address and accepts ICMP; a network policy may block it.',
    });
  } else if (probes?.target.diagnosis !== undefined) problems.push(probes.target.diagnosis);
  if (untilFast && rounds.length > 0 && !isFast(path)) {
    problems.push({
      fault: 'not-fast',
      cause: path === undefined ? 'no agent says which path packets take' : `packets still take the path ${path}`,
      remedy: 'Give it more time with --count; weft status and weft doctor --fast-path say what is in the way.',
    });
  }
  return problems;
}

function summaryOf(outcomes: readonly EchoOutcome[]): EchoSummary {
  const rtts = outcomes.flatMap((outcome) => (outcome.kind === 'answered' ? outcome.rttMs : []));
  const [sent, answered] = [outcomes.length, rtts.length];
  if (answered === 0) return { sent, answered };
  const avg = rtts.reduce((sum, rtt) => sum + rtt, 0) / answered;
  return { sent, answered, rttMs: { min: Math.min(...rtts), avg, max: Math.max(...rtts) } };
}

/** A line a round, without its end. */
export function renderRound({ overlay, underlay, path }: PingRound, round: number): string {
  const parts = [`seq=${round}`, `overlay ${outcomeText(overlay)}`];
  if (underlay !== undefined) parts.push(`underlay ${outcomeText(underlay)}`);
  parts.push(`path ${printable(path ?? 'unknown')}`);
  return parts.join('  ');
}

function outcomeText(outcome: EchoOutcome): string {
  if (outcome.kind === 'answered') return `${formatMs(outcome.rttMs)} ms`;
  if (outcome.kind === 'lost') return 'no answer';
  const { refusal } = outcome;
  return refusal.by === 'kernel' && refusal.errno !== 'other' ? refusal.errno.replace('-', ' ') : 'refused';
}

/** The end of the output, as that of ping(8). */
export function renderSummary({ name, overlay, underlay, path, mtu, problems }: PingReport): string {
  const lines = ['', `--- ${name} ping statistics ---`, `overlay   ${summaryText(overlay)}`];
  if (underlay !== undefined) lines.push(`underlay  ${summaryText(underlay)}`);
  lines.push(`path      ${printable(path ?? 'unknown: no agent answers')}`);
  const mtus = mtuTexts(mtu);
  if (mtus.length > 0) lines.push(`MTU       ${mtus.join(', ')}`);
  for (const { fault, cause, remedy } of problems) {
    lines.push(...wrapped(`✖ ${fault}: ${printable(cause)}`, '  '), ...wrapped(`  → ${printable(remedy)}`, '    '));
  }
  return lines.map((line) => `${line}\n`).join('');
}

function summaryText({ sent, answered, rttMs }: EchoSummary): string {
  const loss = sent === 0 ? 0 : Math.ceil((100 * (sent - answered)) / sent);
  const times = rttMs && [rttMs.min, rttMs.avg, rttMs.max].map(formatMs).join('/');
  return `${answered}/${sent} answered, ${loss}% loss${times === undefined ? '' : `, min/avg/max ${times} ms`}`;
}

function mtuTexts({ overlayBytes, configuredBytes, underlayBytes, underlayPasses }: PingReport['mtu']): string[] {
  const texts: string[] = [];
  if (overlayBytes !== undefined)
    texts.push(`overlay ${overlayBytes}${overlayBytes < configuredBytes ? ` of ${configuredBytes}` : ''}`);
  if (underlayPasses === 'yes') texts.push(`underlay ${underlayBytes}`);
  if (underlayPasses === 'no') texts.push(`underlay less than ${underlayBytes}`);
  return texts;
}

/** Three digits that count, up to a second. */
function formatMs(ms: number): string {
  return ms.toFixed(ms < 1 ? 3 : ms < 10 ? 2 : ms < 100 ? 1 : 0);
}
