import { counted } from '../counted.ts';
import { containsAddr, formatAddr, formatPrefix, type IpAddr, type IpPrefix } from '../ip/address.ts';
import { present } from '../ip/family.ts';
import type { DropReasonName } from './drop-reason.ts';
import type { Peer, PeerTableContent } from './peer-table.ts';
import type { RefusedSender } from './refused-senders.ts';

/** A sender is spoken of this often, and forgotten when nothing has come from it for as long. */
export const REMEMBERED_MS = 600_000;
/** Lines in that time: forged addresses must not fill the log. */
const MOST_LINES = 10;
const MOST_REMEMBERED = 64;

interface Refusal {
  readonly sender: IpAddr;
  readonly reason: DropReasonName;
  inner: IpAddr | undefined;
  packets: number;
  lastAtMs: number;
  saidAtMs: number | undefined;
}

/**
 * What became of the senders that were refused, for people: who, how often, which node it may be, and what to do. Pure but for
 * what it remembers; memory and lines are bounded, whatever arrives.
 */
export class Refusals {
  readonly #known = new Map<string, Refusal>();
  #content: PeerTableContent | undefined;
  #windowStartMs = Number.NEGATIVE_INFINITY;
  #linesInWindow = 0;

  /** Who is a peer now. */
  peersAre(content: PeerTableContent): void {
    this.#content = content;
  }

  /**
   * Takes in what was refused, and returns the lines that are due.
   * @param nowMs monotonic, as in all calls.
   */
  add(refused: readonly RefusedSender[], nowMs: number): string[] {
    for (const [key, { lastAtMs }] of this.#known) if (nowMs - lastAtMs > REMEMBERED_MS) this.#known.delete(key);
    if (nowMs - this.#windowStartMs > REMEMBERED_MS) {
      this.#windowStartMs = nowMs;
      this.#linesInWindow = 0;
    }
    const lines: string[] = [];
    for (const each of refused) {
      // Its lease came a moment after its first packets.
      if (each.reason === 'unknown-source' && this.#peerAt(each.sender) !== undefined) continue;
      const refusal = this.#remember(each, nowMs);
      if (refusal === undefined) continue;
      const isDue = refusal.saidAtMs === undefined || nowMs - refusal.saidAtMs > REMEMBERED_MS;
      if (!isDue || this.#linesInWindow >= MOST_LINES) continue;
      this.#linesInWindow++;
      refusal.saidAtMs = nowMs;
      const isLast = this.#linesInWindow === MOST_LINES;
      lines.push(this.#describe(refusal) + (isLast ? ' (No more of these lines for 10 minutes.)' : ''));
    }
    return lines;
  }

  #remember({ sender, reason, inner, packets }: RefusedSender, nowMs: number): Refusal | undefined {
    const key = `${sender} ${reason}`;
    const known = this.#known.get(key);
    if (known !== undefined) {
      known.packets += packets;
      known.lastAtMs = nowMs;
      if (inner !== undefined) known.inner = inner;
      return known;
    }
    if (this.#known.size >= MOST_REMEMBERED) return undefined;
    const refusal: Refusal = { sender, reason, inner, packets, lastAtMs: nowMs, saidAtMs: undefined };
    this.#known.set(key, refusal);
    return refusal;
  }

  /** A line for each sender that was refused in the last ten minutes. */
  recent(nowMs: number): string[] {
    return this.#recent(nowMs).map((refusal) => this.#describe(refusal));
  }

  /** How many senders that is, by reason. */
  counts(nowMs: number): Readonly<Record<string, number>> {
    const counts: Record<string, number> = {};
    for (const { reason } of this.#recent(nowMs)) counts[reason] = (counts[reason] ?? 0) + 1;
    return counts;
  }

  #recent(nowMs: number): Refusal[] {
    return [...this.#known.values()].filter(({ lastAtMs }) => nowMs - lastAtMs <= REMEMBERED_MS);
  }

  #peerAt(sender: IpAddr): Peer | undefined {
    return this.#content?.peers.find((peer) => endpointOf(peer) === sender);
  }

  #describe({ sender, reason, inner, packets }: Refusal): string {
    const from = formatAddr(sender);
    const address = inner === undefined ? 'unknown' : formatAddr(inner);
    const owner = inner && this.#content?.peers.find((peer) => subnetWith(peer, inner) !== undefined);
    const dropped = `Dropped ${counted(packets, 'packet')} from ${from} (${reason})`;
    switch (reason) {
      case 'unknown-source':
        return `${dropped}: no node has that address. ${describeStranger(from, inner, owner)}`;
      case 'spoofed-source': {
        const whose =
          owner === undefined || inner === undefined ? 'in no node’s subnet' : `of ${describeLease(owner, inner)}`;
        return `${dropped}: their source ${address} is ${whose}. Two nodes behind one address, a node that has kept an old subnet, or a forged source; --source-check=off accepts them.`;
      }
      case 'foreign-source':
        return `${dropped}: their source ${address} is outside the network and not that node’s own. --source-check=strict rejects it. Loopback, multicast and reserved source addresses are always rejected.`;
      case 'foreign-destination':
        return `${dropped}: they are for ${address}, which is neither in this host’s subnet nor, with --destination-check=loose, an address of this host. That node disagrees about who owns it, or tries to reach other hosts through this one. --destination-check=off forwards such packets.`;
      default:
        return `${dropped}.`;
    }
  }
}

function endpointOf({ publicAddresses }: Peer): IpAddr | undefined {
  return present(publicAddresses)[0];
}

function subnetWith({ subnets }: Peer, address: IpAddr): IpPrefix | undefined {
  return present(subnets).find((prefix) => containsAddr(prefix, address));
}

function describeLease(peer: Peer, address: IpAddr): string {
  const [subnet, host] = [subnetWith(peer, address), endpointOf(peer)];
  return `${subnet === undefined ? 'a subnet' : formatPrefix(subnet)}, which ${host === undefined ? 'a host' : formatAddr(host)} has leased`;
}

function describeStranger(from: string, inner: IpAddr | undefined, owner: Peer | undefined): string {
  if (inner === undefined) return 'They do not contain an IP packet: the sender is not a node of this network.';
  const address = formatAddr(inner);
  if (owner === undefined) {
    return `Their source ${address} is in no node’s subnet: the sender is a node of another network, or its lease has expired.`;
  }
  const option = from.includes(':') ? '--public-ipv6' : '--public-ip';
  return (
    `Their source ${address} is of ${describeLease(owner, inner)}: it may be that node behind NAT, with an elastic IP, or another of its addresses. ` +
    `Start its agent with ${option}=${from}, or with --iface for the interface that sends; --source-check=off here accepts packets from anyone.`
  );
}
