import assert from 'node:assert/strict';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import type { Child, Exit } from '../../src/linux/run.ts';
import { RUNTIME_FLAGS } from '../../src/runtime-flags.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

/** Whatever breaks, no process stays behind that neither works nor ends. */

/**
 * The promise is two seconds after a fatal error or, during a stop, after the signal; four where nothing has failed, since requests under
 * way have three. A test must also pass on a machine that is busy with something else.
 */
const DEADLINE_MS = 60_000;
const FAULTS = fileURLToPath(new URL('../fakes/agent-fault.ts', import.meta.url));
const WEFT = fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url));
const UDP_PORT = 8285;

let topology: Topology;
let host: LabHost;
before(async () => {
  topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
  host = topology.hosts[0]!;
});
after(() => topology?.[Symbol.asyncDispose]());

const faultPath = (): string => join(host.stateDirectory, 'fault');

function order(fault: string): void {
  writeFileSync(`${faultPath()}.new`, fault);
  // Whole, or not at all: it is looked at all the time.
  renameSync(`${faultPath()}.new`, faultPath());
}

const faulty = (): Record<string, string> => {
  order('');
  return { NODE_OPTIONS: `--import=${FAULTS}`, WEFT_TEST_FAULT: faultPath() };
};

async function startAgent(env: Record<string, string> = {}): Promise<Flanneld> {
  mkdirSync(host.stateDirectory, { recursive: true });
  const flags = localFlags(host, NET_CONF, '--healthz-ip=127.0.0.1', `--healthz-port=${HEALTHZ_PORT}`);
  return await Flanneld.start(topology, host, { flags, env });
}

/** Packets for both workers: they look for orders when they wake. */
async function wakeWorkers(): Promise<void> {
  await topology.exec(host, ['ping', '-n', '-c', '1', '-W', '1', '10.244.255.254'], { okExitCodes: 'any' });
  const [address] = /\d+\.\d+\.\d+\.\d+/.exec(
    (await topology.exec(host, ['ip', '-4', '-br', 'addr', 'show', 'eth0'])).stdout,
  )!;
  await topology.exec(host, ['socat', '-u', 'STDIN', `UDP4:${address}:${UDP_PORT}`], { stdin: 'x' });
}

/** Until that worker sits in a call for ever: a signal that comes sooner it would heed. */
async function hang(worker: 'forwarder-tx' | 'forwarder-rx'): Promise<void> {
  const obeyed = `${faultPath()}.obeyed`;
  rmSync(obeyed, { force: true });
  order(`${worker} hangs`);
  await eventually(`${worker} hangs`, async () => {
    await wakeWorkers();
    return existsSync(obeyed) || undefined;
  });
}

async function endOf(t: TestContext, child: Child): Promise<Exit> {
  const from = performance.now();
  const exit = await Promise.race([child.exited, delay(DEADLINE_MS, undefined, { ref: false })]);
  t.diagnostic(`gone after ${(performance.now() - from).toFixed(0)} ms`);
  if (exit !== undefined) return exit;
  child.kill('SIGKILL');
  await child.exited;
  throw new Error(`it did not end within ${DEADLINE_MS} ms`);
}

/** Both ports are free again: another agent gets them. */
async function expectSuccessor(t: TestContext): Promise<void> {
  await using next = await startAgent();
  await next.answers('/readyz', 200, /ready/);
  next.child.kill('SIGTERM');
  assert.deepEqual(await endOf(t, next.child), { code: 0, signal: undefined });
}

describe('an agent that breaks', () => {
  for (const [fault, words] of [
    ['throw', /^uncaught error: Error: thrown as ordered \| at /],
    ['reject', /^unhandled rejection: Error: rejected as ordered \| at /],
  ] as const) {
    it(`says why and ends when something is not handled: ${fault}`, async (t) => {
      await using agent = await startAgent(faulty());
      await agent.answers('/readyz', 200, /ready/);
      order(fault);
      assert.deepEqual(await endOf(t, agent.child), { code: 1, signal: undefined });
      await agent.logged(words);
      await expectSuccessor(t);
    });
  }

  it('ends also with a worker that sits in a call for ever', async (t) => {
    await using agent = await startAgent(faulty());
    await agent.answers('/readyz', 200, /ready/);
    await hang('forwarder-tx');
    order('throw');
    assert.deepEqual(await endOf(t, agent.child), { code: 1, signal: undefined });
    await agent.logged(/thrown as ordered/);
    await expectSuccessor(t);
  });

  it('replaces a worker that throws, and ends when it is told to', async (t) => {
    await using agent = await startAgent(faulty());
    await agent.answers('/readyz', 200, /ready/);
    order('forwarder-rx throws');
    await wakeWorkers();
    await agent.logged(/The data path broke \(Error: thrown in a worker as ordered/);
    // Those that take its place throw as well.
    await agent.answers('/readyz', 503, /thrown in a worker as ordered/);
    order('');
    await agent.answers('/readyz', 200, /ready/);
    order('forwarder-rx throws');
    await wakeWorkers();
    await agent.answers('/readyz', 503, /thrown in a worker as ordered/);
    agent.child.kill('SIGTERM');
    assert.deepEqual(await endOf(t, agent.child), { code: 0, signal: undefined });
    await expectSuccessor(t);
  });
});

it('ends, with the reason said, when it cannot start and what it has begun does not end', async (t) => {
  const env = faulty();
  order('hang at the end');
  const flags = localFlags(host, '{"Network": "10.244.0.0/16", "Backend": {"Type": "carrier"}}');
  await using agent = await Flanneld.start(topology, host, { flags, env });
  assert.deepEqual(await endOf(t, agent.child), { code: 1, signal: undefined });
  await agent.logged(/^Error fetching backend: unknown backend type: carrier \[WEFT_BACKEND_UNKNOWN\]/);
  await agent.logged(/^flanneld did not stop within 4000 ms and is killed now$/);
  assert.equal(agent.messages.filter((text) => /unknown backend type/.test(text)).length, 1);
});

describe('an agent that is told to stop', () => {
  for (const worker of ['forwarder-tx', 'forwarder-rx'] as const) {
    it(`ends although ${worker} does not answer`, async (t) => {
      await using agent = await startAgent(faulty());
      await agent.answers('/readyz', 200, /ready/);
      await hang(worker);
      agent.child.kill('SIGTERM');
      assert.deepEqual(await endOf(t, agent.child), { code: 1, signal: undefined });
      await agent.logged(/a packet worker did not stop when it was told to \[WEFT_FORWARDER_FAILED\]/);
      await expectSuccessor(t);
    });
  }

  it('is killed when, beside a worker that does not answer, a request keeps it: not as late as for the request alone', async (t) => {
    await using agent = await startAgent(faulty());
    await agent.answers('/readyz', 200, /ready/);
    const half = await topology.start(host, ['socat', 'STDIO', `TCP4:127.0.0.1:${HEALTHZ_PORT}`], { stdin: 'pipe' });
    half.stdin!.write('GET /healthz HTTP/1.1\r\n');
    await eventually('the connection is there', async () => {
      const argv = ['ss', '-Htn', 'state', 'established', 'sport', '=', `:${HEALTHZ_PORT}`];
      return (await topology.exec(host, argv)).stdout !== '' || undefined;
    });
    await hang('forwarder-tx');
    agent.child.kill('SIGTERM');
    assert.deepEqual(await endOf(t, agent.child), { code: 1, signal: undefined });
    await agent.logged(/a packet worker did not stop when it was told to \[WEFT_FORWARDER_FAILED\]/);
    // What is left of the two seconds.
    await agent.logged(/^flanneld did not stop within 250 ms and is killed now$/);
    await half[Symbol.asyncDispose]();
    await expectSuccessor(t);
  });

  for (const [fault, words] of [
    ['throw at the end', /thrown at the end as ordered/],
    ['hang at the end', /^flanneld did not stop within 4000 ms and is killed now$/],
  ] as const) {
    it(`ends with a code that says so when something goes wrong meanwhile: ${fault}`, async (t) => {
      await using agent = await startAgent(faulty());
      await agent.answers('/readyz', 200, /ready/);
      order(fault);
      agent.child.kill('SIGTERM');
      assert.deepEqual(await endOf(t, agent.child), { code: 1, signal: undefined });
      await agent.logged(words);
      await expectSuccessor(t);
    });
  }
});

describe('weft tunnel', () => {
  const tunnel = async (): Promise<{ child: Child; errors: LineFeed } & AsyncDisposable> => {
    const [address] = /\d+\.\d+\.\d+\.\d+/.exec(
      (await topology.exec(host, ['ip', '-4', '-br', 'addr', 'show', 'eth0'])).stdout,
    )!;
    const child = await topology.start(
      host,
      [
        ...[process.execPath, ...RUNTIME_FLAGS, WEFT, 'tunnel', '--dev', 'weft9', '--address', '10.244.1.1/16'],
        ...['--listen', `${address}:${UDP_PORT}`, '--peer', '10.244.2.0/24=192.0.2.1'],
      ],
      { stderr: 'pipe', env: faulty() },
    );
    const errors = new LineFeed(child.stderr!);
    await new LineFeed(child.stdout!).find((text) => text === 'ready');
    return { child, errors, [Symbol.asyncDispose]: () => child[Symbol.asyncDispose]() };
  };

  it('ends when something is not handled', async (t) => {
    await using running = await tunnel();
    order('throw');
    assert.deepEqual(await endOf(t, running.child), { code: 1, signal: undefined });
    await running.errors.find((text) => /^weft: uncaught error: Error: thrown as ordered/.test(text));
  });

  it('ends although a worker does not answer', async (t) => {
    await using running = await tunnel();
    await hang('forwarder-tx');
    running.child.kill('SIGTERM');
    assert.deepEqual(await endOf(t, running.child), { code: 1, signal: undefined });
    await running.errors.find((text) => /a packet worker did not stop when it was told to/.test(text));
  });
});
