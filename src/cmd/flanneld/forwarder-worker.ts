/** Entry of a packet worker thread: wires one direction of the forwarder to the kernel and runs it until told to stop. */
import { parentPort, workerData } from 'node:worker_threads';
import { ArenaLayout, createArena } from '../../dataplane/arena.ts';
import { BusyPoll } from '../../dataplane/busy-poll.ts';
import { Counters } from '../../dataplane/counters.ts';
import { SignalQueue } from '../../dataplane/fast-path/peer-signals.ts';
import { IcmpErrors } from '../../dataplane/icmp-error.ts';
import { IcmpLimits } from '../../dataplane/icmp-limits.ts';
import { Icmp6Errors } from '../../dataplane/icmp6-error.ts';
import { Inbound } from '../../dataplane/inbound.ts';
import { LocalAddresses } from '../../dataplane/local-addresses.ts';
import { LocalAddresses6 } from '../../dataplane/local-addresses6.ts';
import { Outbound } from '../../dataplane/outbound.ts';
import { PeerTable } from '../../dataplane/peer-table.ts';
import { RefusedSenders } from '../../dataplane/refused-senders.ts';
import { IPV4_UNDERLAY, IPV6_UNDERLAY } from '../../dataplane/underlay.ts';
import type { WorkerInput, WorkerMessage } from '../../dataplane/worker-protocol.ts';
import { connIo, icmpIo, tunIo, Waiter } from '../../linux/dataplane-io.ts';
import { addressOf, schedYield } from '../../linux/ffi.ts';
import { collectGarbage } from '../../runtime-flags.ts';

const input = workerData as WorkerInput;
const arena = createArena(addressOf);
const layout = new ArenaLayout(arena);
const counters = new Counters(input.counters);
const table = new PeerTable(input.table, input.tableCapacity).reader(input.direction === 'tx' ? 0 : 1);
const stop = new Int32Array(input.stop);
const now = (): number => performance.now();
const limits = IcmpLimits.create();
const icmp = new IcmpErrors(layout, icmpIo(arena, input.icmpFd, 4), counters, now, limits);
icmp.setSource(input.ownAddress);
const icmp6 = new Icmp6Errors(layout, icmpIo(arena, input.icmp6Fd, 6), counters, now, limits);
icmp6.setSource(input.ownAddress6);
const underlay = input.underlay === 4 ? IPV4_UNDERLAY : IPV6_UNDERLAY;
const tun = tunIo(arena, input.tunFd);
const conn = connIo(arena, input.socketFd, input.underlay, new Waiter(input.socketFd, input.stopFd));
const hosts6 = input.underlay === 6 ? table : undefined;
const signals = input.signals && new SignalQueue(input.signals).writer(now, input.tableCapacity, hosts6);
const parts = { layout, tun, conn, table, counters, icmp, icmp6, underlay, signals };
const outbound = input.direction === 'tx' ? new Outbound(parts) : undefined;
const { sourceCheck, destinationCheck, udpSegmentation: joinUdp } = input;
const checks = {
  ...{ sourceCheck, destinationCheck },
  localAddresses: new LocalAddresses(input.localAddresses),
  localAddresses6: new LocalAddresses6(input.localAddresses6),
  refusedSenders: new RefusedSenders(input.refusedSenders),
};
const forwarder = outbound ?? new Inbound({ ...parts, ...checks, joinUdp });
const busyPoll = new BusyPoll(now, new Int32Array(input.lastStep), input.direction === 'tx' ? 0 : 1);
const waiter = new Waiter(input.direction === 'tx' ? input.tunFd : input.socketFd, input.stopFd);

function tell(message: WorkerMessage): void {
  parentPort?.postMessage(message);
}

/** Failing this often in a row without moving a packet means that the descriptor is dead. */
const DEAD_AFTER = 16;

/** What is in the queue when the worker is told to stop is carried yet; under load it never ends. */
const LAST_STEPS = 64;

/** What starting has left behind is collected once, when that is so long ago and there is nothing to carry. */
const COLLECT_AFTER_MS = 2_500;

function run(): void {
  let failures = 0;
  let isCollected = false;
  while (Atomics.load(stop, 0) === 0) {
    const moved = outbound !== undefined && busyPoll.expectsLonePacket ? outbound.step(1) : forwarder.step();
    if (moved > 0) {
      failures = 0;
      busyPoll.moved(forwarder.stepBytes);
    } else if (moved < 0) failures++;
    if (!forwarder.drained) continue;
    if (busyPoll.lookAgain()) {
      // Whoever is to send the next packet may need this processor.
      schedYield();
      continue;
    }
    if (!isCollected && now() > COLLECT_AFTER_MS) {
      isCollected = true;
      collectGarbage();
    }
    const wake = waiter.waitReadable();
    if (wake === 'stop') break;
    if (wake === 'error') failures++;
    if (failures >= DEAD_AFTER) {
      tell({ type: 'lost', what: input.direction === 'tx' ? 'tun' : 'socket' });
      return;
    }
  }
  for (let steps = 0; steps < LAST_STEPS && forwarder.step() > 0; steps++);
}

tell({ type: 'ready' });
run();
