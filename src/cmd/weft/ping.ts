import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { agentClient, overSocket } from '../../api/client.ts';
import { backendKind } from '../../backend/registry.ts';
import { echoRound } from '../../diagnosis/echo-round.ts';
import { describePeer, type PeerView, peerOf, readHostView } from '../../diagnosis/host-view.ts';
import { measure } from '../../diagnosis/measure.ts';
import { containsAddr, formatAddr, type IpAddr, parseAddr } from '../../ip/address.ts';
import { describeSendErrno, openProbeSocket } from '../../linux/probe-socket.ts';
import { IN_BACKGROUND } from '../../probe/probe-kind.ts';
import { wrapped } from '../../wrapped.ts';
import { untilStopped } from '../stop-signal.ts';
import { realHost } from './doctor-host.ts';
import { isFast, type PingProbes, type PingRound, renderRound, renderSummary, summarize } from './ping-report.ts';
import { requireRoot } from './test-host.ts';

interface PingFlags {
  readonly subnetFile: string;
  readonly count: number;
  readonly interval: number;
  readonly untilFast?: true;
  readonly json?: true;
}

/**
 * `weft ping`: one peer or container, through the overlay and beside it, the path that packets take, and the MTU. Exit code 1 on
 * loss through the overlay or another fault. The second SIGINT ends it without a summary.
 */
export function pingCommand(): Command {
  return new Command('ping')
    .summary('ping a peer or a container through the overlay, and its host directly')
    .description(
      'Send echo requests to a peer or a container through the overlay and, at the same time, directly to its host. Print round-trip times, loss, the path of the packets and the MTU. Needs root. The agent need not be running, but only a running agent knows the path.',
    )
    .argument('<target>', "a peer's subnet, its host's address or node name, or a container's address")
    .option('--count <n>', 'echo requests to send each way', countOf, 5)
    .option('--interval <seconds>', 'time from one echo request to the next', intervalOf, 1)
    .option('--until-fast', 'stop as soon as the kernel carries the packets (fast path, or a kernel backend)')
    .option('--subnet-file <file>', "the agent's --subnet-file", '/run/flannel/subnet.env')
    .option('--json', 'print one JSON object')
    .action((word: string, flags: PingFlags) => ping(word, flags));
}

function countOf(text: string): number {
  const count = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (count < 1 || count > 10_000) throw new InvalidArgumentError('want 1 to 10000');
  return count;
}

function intervalOf(text: string): number {
  const seconds = /^\d{1,2}(?:\.\d{1,3})?$/.test(text) ? Number(text) : 0;
  if (seconds < 0.01 || seconds > 60) throw new InvalidArgumentError('want seconds, 0.01 to 60');
  return seconds;
}

async function ping(word: string, flags: PingFlags): Promise<void> {
  requireRoot();
  using stopped = untilStopped();
  const { signal } = stopped;
  const peer = peerOf(await readHostView(realHost(), flags.subnetFile, backendKind, signal), word);
  const container = containerOf(peer, word);
  const say = (text: string): void => void (flags.json || process.stdout.write(text));
  const head = container === undefined ? describePeer(peer) : `${formatAddr(container)} in ${describePeer(peer)}`;
  say(`${wrapped(`PING ${head}`, '  ').join('\n')}\n`);
  const rounds: PingRound[] = [];
  let probes: PingProbes | undefined;
  try {
    for await (const round of roundsOf(peer, container ?? peer.overlay, flags, signal)) {
      rounds.push(round);
      say(`${renderRound(round, rounds.length)}\n`);
    }
    probes = await probe(peer, container, signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  const { mtuBytes, underlayMtuBytes, id } = peer;
  const name = container === undefined ? id : formatAddr(container);
  const untilFast = flags.untilFast === true;
  const report = summarize({ name, rounds, probes, mtuBytes, underlayMtuBytes, untilFast });
  process.stdout.write(flags.json ? `${JSON.stringify(report)}\n` : renderSummary(report));
  process.exitCode = report.ok ? 0 : 1;
}

/** The address that the word is, if it is one of a container of that peer. */
function containerOf({ subnet, overlay }: PeerView, word: string): IpAddr | undefined {
  const addr = parseAddr(word);
  return addr !== undefined && addr !== overlay && containsAddr(subnet, addr) ? addr : undefined;
}

async function* roundsOf(
  peer: PeerView,
  overlay: IpAddr,
  { count, interval, untilFast, subnetFile }: PingFlags,
  signal: AbortSignal,
): AsyncGenerator<PingRound, void, void> {
  using io = openProbeSocket();
  const { underlay } = peer;
  const options = { io, describeErrno: describeSendErrno, overlay, underlay, timeoutMs: IN_BACKGROUND.timeoutMs };
  const socket = join(dirname(subnetFile), 'weft.sock');
  for (let round = 1; round <= count; round++) {
    const nextAtMs = performance.now() + interval * 1_000;
    const echoes = await echoRound(options, round, signal);
    const path = await pathTo(peer, socket, signal);
    yield { ...echoes, ...(path !== undefined && { path }) };
    if (round === count || (untilFast === true && isFast(path))) return;
    await sleep(Math.max(0, nextAtMs - performance.now()), undefined, { signal });
  }
}

/** As the agent says now; `undefined` when it does not: it may be about to start. */
async function pathTo({ id }: PeerView, socket: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    const { peers } = await agentClient(socket, overSocket(socket)).get('/peers', signal);
    return peers.find(({ subnets }) => subnets.includes(id))?.path;
  } catch {
    signal.throwIfAborted();
    return undefined;
  }
}

/** Packets of all sizes. Of a container, its host's end is probed as well: which of the two is silent is the question. */
async function probe(peer: PeerView, container: IpAddr | undefined, signal: AbortSignal): Promise<PingProbes> {
  using io = openProbeSocket();
  const host = { ...peer, onlyEcho: true };
  const targets = container === undefined ? [host] : [{ ...host, id: 'container', overlay: container }, host];
  const [target, end] = await measure({ io, describeErrno: describeSendErrno, targets, hears: true }, signal);
  return { target: target!, host: end };
}
