import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { type AgentClient, agentClient, overSocket } from '../../api/client.ts';
import type { Peer, Self } from '../../api/schema.ts';
import { apiSocketPath } from '../../config/agent-sockets.ts';
import type { HostView, PeerView } from '../../diagnosis/host-view.ts';
import { type CountedRise, judgeCopies, type Proof } from '../../diagnosis/trace-copies.ts';
import { THIS_HOST } from '../../diagnosis/verdict.ts';
import { formatPrefix, isPrefix4 } from '../../ip/address.ts';
import { present } from '../../ip/family.ts';
import { askAll, clientsOf, selfAndPeers, type TargetFlags } from './agent-target.ts';

/** What other packets count meanwhile must not look like all of them. */
export const COPIES = 10;
const TURN_MS = 50;
const RECEIVED = 'received packets';

export interface TracedAgent {
  readonly host: string;
  readonly client: AgentClient;
  /** The peer of that agent on the other side of the trace. */
  readonly subnet: string;
}

interface AgentsFacts {
  readonly flags: TargetFlags & { readonly subnetFile: string };
  readonly peer: PeerView;
  readonly farHost: string;
  readonly view: HostView;
  readonly notes: string[];
}

/** The agents at both ends of a trace; this host's alone, with a note of that, where the other one could not be found. */
export async function agentsOf(
  { flags, peer, farHost, view, notes }: AgentsFacts,
  signal: AbortSignal,
): Promise<readonly TracedAgent[]> {
  const socket = apiSocketPath(flags.subnetFile);
  const here: TracedAgent = { host: THIS_HOST, client: agentClient(THIS_HOST, overSocket(socket)), subnet: peer.id };
  const clients = await clientsOf(flags, signal);
  const asked = await askAll(clients, (client) => client.get('/self', signal), signal);
  const own = present(view.known.own.subnets).find((subnet) => isPrefix4(subnet) === isPrefix4(peer.subnet));
  const at = asked.findIndex((one) => 'answer' in one && one.answer.lease?.subnets.includes(peer.id) === true);
  if (at < 0) {
    notes.push(`the agent of ${farHost} was not asked: name it with --socket, --host or --cluster`);
    return [here];
  }
  const subnet = own === undefined ? hostname() : formatPrefix(own);
  return [here, { host: farHost, client: clients[at]!, subnet }];
}

/** By side and reason. */
type Counts = ReadonlyMap<string, number>;

interface Snapshot {
  readonly atMs: number;
  readonly hosts: ReadonlyMap<string, Counts>;
}

/** By host; an agent that does not answer has no figures. */
export async function countsOf(agents: readonly TracedAgent[], signal: AbortSignal): Promise<Snapshot> {
  const atMs = performance.now();
  const answers = await Promise.all(
    agents.map(async ({ host, client, subnet }) => {
      try {
        const { self, peers } = await selfAndPeers(client, signal);
        const peer = peers.peers.find(({ subnets }) => subnets.includes(subnet));
        return [host, countedOf(peer, self.dataPath)] as const;
      } catch {
        signal.throwIfAborted();
        return undefined;
      }
    }),
  );
  return { atMs, hosts: new Map(answers.filter((answer) => answer !== undefined)) };
}

type DataPath = Pick<Self['dataPath'], 'nobody' | 'queueDrops' | 'hostDrops' | 'hostDrops6'>;

function countedOf(peer: Peer | undefined, { nobody, queueDrops, hostDrops, hostDrops6 }: DataPath): Counts {
  const counts = new Map<string, number>();
  const add = (side: CountedRise['side'], reasons: Readonly<Record<string, number>> = {}): void => {
    for (const [reason, count] of Object.entries(reasons))
      counts.set(`${side} ${reason}`, (counts.get(`${side} ${reason}`) ?? 0) + count);
  };
  add('tx', peer?.tx?.drops);
  add('rx', peer?.rx?.drops);
  add('tx', nobody?.tx.drops);
  add('rx', nobody?.rx.drops);
  add('queue', queueDrops);
  add('kernel', hostDrops);
  add('kernel', hostDrops6);
  if (peer?.rx !== undefined) counts.set(RECEIVED, peer.rx.packets);
  return counts;
}

/** Whether that agent knows what comes from a single peer: with vxlan, nobody does. */
export function countsArrivals({ hosts }: Snapshot, host: string): boolean {
  return hosts.get(host)?.has(RECEIVED) === true;
}

function risesOf(before: Snapshot, after: Snapshot): readonly CountedRise[] {
  return [...after.hosts].flatMap(([host, counts]) => {
    const past = before.hosts.get(host);
    if (past === undefined) return [];
    return [...counts].flatMap(([key, count]): CountedRise[] => {
      const packets = count - (past.get(key) ?? 0);
      const [side, reason] = key.split(' ') as [CountedRise['side'], string];
      return packets > 0 ? [{ host, side, reason, packets }] : [];
    });
  });
}

/**
 * Which counters of agents are this packet's: those that rise by all of ten copies as well. What else the agents have counted in the
 * time of the first packet is taken off.
 *
 * @param before taken before the first packet was sent. @param farHost whose received packets are asked for.
 */
export async function proveByCopies(
  agents: readonly TracedAgent[],
  before: Snapshot,
  sendCopy: () => void,
  { farHost, waitMs }: { readonly farHost: string; readonly waitMs: number },
  signal: AbortSignal,
): Promise<Proof> {
  const between = await countsOf(agents, signal);
  const meanwhile = risesOf(before, between);
  for (let i = 0; i < COPIES; i++) sendCopy();
  const endMs = performance.now() + waitMs;
  const proof = async (): Promise<Proof> => {
    const after = await countsOf(agents, signal);
    const share = (after.atMs - between.atMs) / Math.max(1, between.atMs - before.atMs);
    return judgeCopies({ copies: COPIES, meanwhile, ofCopies: risesOf(between, after), share, farHost });
  };
  for (;;) {
    await sleep(TURN_MS, undefined, { signal });
    const isOver = performance.now() >= endMs;
    const found = await proof();
    if (isOver) return found;
    if (found.drops.length === 0) continue;
    // The last of them may be on their way.
    await sleep(TURN_MS, undefined, { signal });
    return await proof();
  }
}
