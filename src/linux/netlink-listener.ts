import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Child } from './run.ts';

/** A netlink socket in the network namespace of a process. */
export interface NetlinkSocket {
  /** linux/netlink.h: NETLINK_… */
  readonly protocol: number;
  /** Its number: that of the process whose first socket of the protocol it is. */
  readonly pid: number;
  /** Multicast groups that it has joined, a bit each. */
  readonly groups: number;
}

const POLL_MS = 2;

/**
 * Waits until a child has joined the multicast groups of its netlink socket. It says nothing when it has, but the kernel lists the
 * groups of every socket (/proc/PID/net/netlink: sk, Eth, Pid, Groups, …); the time between start and that is a few milliseconds.
 *
 * @param isIt whether a socket is the one, and has joined.
 * @returns `late` after `waitMs`, and when aborted.
 */
export async function untilListening(
  child: Child,
  isIt: (socket: NetlinkSocket) => boolean,
  waitMs: number,
  signal: AbortSignal,
): Promise<'listening' | 'ended' | 'late'> {
  const endMs = performance.now() + waitMs;
  let hasEnded = false;
  void child.exited.then(() => {
    hasEnded = true;
  });
  while (!hasEnded && !signal.aborted && performance.now() < endMs) {
    const table = await readFile(`/proc/${child.pid}/net/netlink`, 'utf8').catch(() => '');
    for (const row of table.split('\n')) {
      const [, protocol, pid, groups = '0'] = row.trim().split(/\s+/);
      if (isIt({ protocol: Number(protocol), pid: Number(pid), groups: Number.parseInt(groups, 16) }))
        return 'listening';
    }
    await delay(POLL_MS, undefined, { signal }).catch(() => {});
  }
  return hasEnded ? 'ended' : 'late';
}
