/** For bench/scale.ts and bench/scale-vxlan.ts: one host with an agent, and what can be asked of it. */
import { once } from 'node:events';
import { Agent as HttpAgent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Agent, startAgent } from '../src/lab/agent.ts';
import type { SubnetStoreKind } from '../src/lab/subnet-store.ts';
import { Topology } from '../src/lab/topology.ts';
import type { Child, StartOptions } from '../src/linux/run.ts';
import { openScaleStore, type ScaleBackend, type ScaleStore } from './scale-stores.ts';

/** After a start or many changes, until the agent is at rest. */
export const SETTLE_MS = 5_000;
const READY_TIMEOUT_MS = 120_000;
const WITHIN_MS = 60_000;

export const say = (text: string): void => void process.stderr.write(`${text}\n`);

/** One host with an agent, and its store. */
export class Rig implements AsyncDisposable {
  readonly #topology: Topology;
  readonly #socketPath: string;
  readonly #metricsAgent: HttpAgent;
  readonly scale: ScaleStore;

  private constructor(topology: Topology, scale: ScaleStore, socketPath: string) {
    this.#topology = topology;
    this.scale = scale;
    this.#socketPath = socketPath;
    this.#metricsAgent = new HttpAgent();
  }

  static async create(kind: SubnetStoreKind, backend: ScaleBackend, signal: AbortSignal): Promise<Rig> {
    await using stack = new AsyncDisposableStack();
    const options = { hosts: 1, containersPerHost: 0, store: kind !== 'local', purpose: 'make bench-scale' };
    const topology = stack.use(await Topology.create(options, signal));
    const scale = await openScaleStore(kind, backend, topology, signal);
    const socketPath = join(topology.hosts[0]!.stateDirectory, 'metrics.sock');
    await topology.start(topology.hosts[0]!, ['socat', `UNIX-LISTEN:${socketPath},fork`, 'TCP:127.0.0.1:8081']);
    stack.move();
    return new Rig(topology, scale, socketPath);
  }

  startAgent(signal: AbortSignal): Promise<Agent> {
    const options = { readyTimeoutMs: READY_TIMEOUT_MS };
    return startAgent(this.#topology, this.#topology.hosts[0]!, this.scale.store, options, signal);
  }

  /** A process on the agent's host. */
  start(argv: readonly string[], options: StartOptions): Promise<Child> {
    return this.#topology.start(this.#topology.hosts[0]!, argv, options);
  }

  /** How long the agent took to say that it is ready. */
  async probe(signal: AbortSignal): Promise<number> {
    const startedAt = performance.now();
    await this.#get('/readyz', signal);
    return performance.now() - startedAt;
  }

  async #get(path: string, signal: AbortSignal): Promise<string> {
    const message = request({ agent: this.#metricsAgent, socketPath: this.#socketPath, path, signal }).end();
    const [response] = await once(message, 'response');
    let text = '';
    for await (const part of response.setEncoding('utf8')) text += part;
    return text;
  }

  /** Sum of all series of a metric. */
  async metrics(signal: AbortSignal): Promise<(name: string) => number> {
    const text = await this.#get('/metrics', signal);
    return (name) => {
      let sum = 0;
      for (const line of text.split('\n')) {
        if (line.startsWith(`${name} `) || line.startsWith(`${name}{`))
          sum += Number(line.slice(line.lastIndexOf(' ')));
      }
      return sum;
    };
  }

  async until(
    what: string,
    isSo: (metric: (name: string) => number) => boolean,
    signal: AbortSignal,
  ): Promise<(name: string) => number> {
    const deadline = Date.now() + WITHIN_MS;
    for (;;) {
      const metric = await this.metrics(signal);
      if (isSo(metric)) return metric;
      if (Date.now() > deadline) throw new Error(`not within ${WITHIN_MS / 1_000} s: ${what}`);
      await delay(20, undefined, { signal });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#metricsAgent.destroy();
    await this.#topology[Symbol.asyncDispose]();
  }
}
