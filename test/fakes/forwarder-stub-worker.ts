/**
 * Stands in for the packet worker in tests of its supervisor: moves no packets, does what it is told to. The first counter
 * cell is the order, which the one worker that carries it out takes; `tunFd` says how it starts.
 */
import { parentPort, workerData } from 'node:worker_threads';
import type { WorkerInput } from '../../src/dataplane/worker-protocol.ts';
import { STUB_ORDERS, STUB_STARTS } from './forwarder-stub.ts';

const { direction, tunFd, counters, stop: stopBuffer } = workerData as WorkerInput;
const orders = new Float64Array(counters);
const stop = new Int32Array(stopBuffer);
const LOOK_MS = 5;

function take(order: number): boolean {
  if (orders[0] !== order) return false;
  orders[0] = STUB_ORDERS.none;
  return true;
}

function run(): void {
  while (Atomics.load(stop, 0) === 0) {
    if (direction === 'tx') {
      if (take(STUB_ORDERS.crash)) throw new Error('crashed as told');
      if (take(STUB_ORDERS.loseTun)) return void parentPort?.postMessage({ type: 'lost', what: 'tun' });
      if (take(STUB_ORDERS.end)) return;
    } else if (take(STUB_ORDERS.loseSocket)) {
      return void parentPort?.postMessage({ type: 'lost', what: 'socket' });
    }
    Atomics.wait(stop, 0, 0, LOOK_MS);
  }
}

if (tunFd === STUB_STARTS.throws && direction === 'rx') throw new Error('cannot start');
if (tunFd !== STUB_STARTS.hangs) parentPort?.postMessage({ type: 'ready' });
run();
