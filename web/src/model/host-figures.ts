/** What the host screen makes of an agent's answers. Pure. */
import type { Doctor, Peers, ReadinessAnswer, Rules, Self, State } from '../../../src/api/schema.ts';

export interface Finding {
  readonly tone: 'bad' | 'warn';
  readonly title: string;
  readonly text: string;
  /** What to do, where the agent knows. */
  readonly remedy?: string;
}

/** Everything that the agent and weft doctor say is wrong, the worst first; one cause is told once. */
export function findingsOf(
  self: Self | undefined,
  readiness: ReadinessAnswer | undefined,
  state: State | undefined,
  rules: Rules | undefined,
  doctor: Doctor | undefined,
): readonly Finding[] {
  const found: Finding[] = [];
  if (readiness?.waitingFor !== undefined)
    found.push({ tone: 'warn', title: 'Starting', text: `waits for ${readiness.waitingFor}` });
  for (const { part, failure, remedy } of readiness?.parts ?? []) {
    if (failure === undefined) continue;
    found.push({ tone: 'bad', title: part, text: failure, ...(remedy !== undefined && { remedy }) });
  }
  for (const text of state?.problems ?? []) found.push({ tone: 'warn', title: 'kernel', text });
  const isTold = (text: string): boolean => found.some((one) => one.text.includes(text) || text.includes(one.text));
  if (state?.failure !== undefined && !isTold(state.failure))
    found.push({ tone: 'bad', title: 'kernel', text: state.failure });
  if (rules?.failure !== undefined && !isTold(rules.failure))
    found.push({ tone: 'bad', title: 'rules', text: rules.failure });
  if (self !== undefined) found.push(...storeFindings(self.store), ...fastPathFindings(self.dataPath.fastPath));
  for (const { name, status, found: text, remedy } of doctor?.checks ?? []) {
    if (status === 'ok' || isTold(text)) continue;
    found.push({
      tone: status === 'fail' ? 'bad' : 'warn',
      title: name,
      text,
      ...(remedy !== undefined && { remedy }),
    });
  }
  return found.sort((a, b) => Number(a.tone === 'warn') - Number(b.tone === 'warn'));
}

function storeFindings({ isReachable, isConfigOutdated, unreadableEntries, name }: Self['store']): Finding[] {
  return [
    ...(isReachable
      ? []
      : [{ tone: 'warn', title: 'store', text: `${name} does not answer; packets flow with what is known` } as const]),
    ...(isConfigOutdated
      ? [
          {
            tone: 'warn',
            title: 'configuration',
            text: 'the network configuration has changed since this agent started',
            remedy: 'Restart the agent.',
          } as const,
        ]
      : []),
    ...(unreadableEntries > 0
      ? [{ tone: 'warn', title: 'store', text: `${unreadableEntries} of its entries cannot be read` } as const]
      : []),
  ];
}

function fastPathFindings(fastPath: Self['dataPath']['fastPath']): Finding[] {
  return fastPath?.obstacle === undefined ? [] : [{ tone: 'warn', title: 'fast path', text: fastPath.obstacle }];
}

/**
 * Packets that were refused, by reason, the most first: by the agent since its start, of all peers and of nobody's, and by the host's
 * kernel, whose reasons have its name before them, since some of them are called as the agent's are.
 */
export function dropsOf(self: Self): ReadonlyMap<string, number> {
  const { totals, dataPath } = self;
  const sources = [
    ['', totals?.tx.drops],
    ['', totals?.rx.drops],
    ['', dataPath.nobody?.tx.drops],
    ['', dataPath.nobody?.rx.drops],
    ['', dataPath.queueDrops],
    ['kernel: ', dataPath.hostDrops],
    ['kernel, IPv6: ', dataPath.hostDrops6],
  ] as const;
  const sum = new Map<string, number>();
  for (const [who, drops] of sources) {
    for (const [reason, count] of Object.entries(drops ?? {}))
      sum.set(who + reason, (sum.get(who + reason) ?? 0) + count);
  }
  return new Map([...sum].filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]));
}

/** What is said of drops beside the table of them: whom it covers. An agent of an earlier version does not ask the kernel. */
export function dropWords({ dataPath }: Self, reasons: number): string {
  const isKernelAsked = Object.keys({ ...dataPath.hostDrops, ...dataPath.hostDrops6 }).length > 0;
  if (reasons > 0 && isKernelAsked) return 'kernel: outside the agent, of all programs of this host.';
  if (isKernelAsked) return 'No packet has been dropped, by the agent or by the kernel.';
  return `${reasons > 0 ? 'By the agent alone' : 'The agent has dropped no packet'}; what the kernel drops is not known.`;
}

export interface PathShare {
  readonly path: string;
  readonly peers: number;
  /** Of the packets to peers between two looks, 0 … 1; undefined where there were none, or nobody counts. */
  readonly share: number | undefined;
}

/** How peers are reached, and which part of the packets goes which way. */
export function pathShares(before: Peers | undefined, now: Peers): readonly PathShare[] {
  const old = new Map(before?.peers.map((peer) => [peer.id, peer.tx?.packets]));
  const ways = new Map<string, { peers: number; packets: number }>();
  for (const { id, path, tx } of now.peers) {
    const way = ways.get(path) ?? { peers: 0, packets: 0 };
    const last = old.get(id);
    way.peers++;
    if (tx !== undefined && last !== undefined && tx.packets > last) way.packets += tx.packets - last;
    ways.set(path, way);
  }
  const total = [...ways.values()].reduce((sum, { packets }) => sum + packets, 0);
  return [...ways]
    .map(([path, { peers, packets }]) => ({ path, peers, share: total === 0 ? undefined : packets / total }))
    .sort((a, b) => b.peers - a.peers);
}

/** Of one processor, between two looks: 1 is all of it; undefined where they are of different processes. */
export function cpuShare(before: Self | undefined, now: Self): number | undefined {
  if (before === undefined || before.startedAtMs !== now.startedAtMs || now.atMs <= before.atMs) return undefined;
  return Math.max(0, (now.process.cpuSeconds - before.process.cpuSeconds) / ((now.atMs - before.atMs) / 1000));
}

/** A second, of a counter that two looks have; undefined where it went back. */
export function perSecond(before: number | undefined, now: number | undefined, ms: number): number | undefined {
  if (before === undefined || now === undefined || ms <= 0 || now < before) return undefined;
  return ((now - before) / ms) * 1000;
}
