import assert from 'node:assert/strict';
import { closeSync, constants, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { run } from '../../src/linux/run.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';
import { eventually } from './waiting.ts';

/** Packets, leases and the end of the agent do not wait for whoever should read its log. */

const ROUTE = '10.244.0.0/16';

let topology: Topology;
let host: LabHost;
before(async () => {
  topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
  host = topology.hosts[0]!;
  mkdirSync(host.stateDirectory, { recursive: true });
});
after(() => topology?.[Symbol.asyncDispose]());

/** Standard error goes to `target`, by a shell that becomes the agent. */
function startAgent(target?: string): Promise<Flanneld> {
  const flags = localFlags(host, NET_CONF, '--healthz-ip=127.0.0.1', `--healthz-port=${HEALTHZ_PORT}`);
  const under = target === undefined ? [] : ['sh', '-c', `exec "$@" 2>${target}`, 'sh'];
  return Flanneld.start(topology, host, { flags, under });
}

async function droppedLines(agent: Flanneld): Promise<number> {
  const { body } = await agent.get('/metrics');
  return Number(/^weft_log_dropped_lines_total (\d+)$/m.exec(body)?.[1]);
}

/** Has it do something that it logs. */
async function breakRoute(): Promise<void> {
  await topology.exec(host, ['ip', 'route', 'del', ROUTE]);
  await eventually(`the route to ${ROUTE} is back`, async () => {
    const { stdout } = await topology.exec(host, ['ip', 'route', 'show', ROUTE]);
    return stdout.includes('flannel0') || undefined;
  });
}

async function expectWork(agent: Flanneld): Promise<void> {
  await agent.answers('/readyz', 200, /ready/);
  await breakRoute();
  await agent.answers('/healthz', 200, /running/);
}

async function expectEnd(agent: Flanneld): Promise<void> {
  agent.child.kill('SIGTERM');
  assert.deepEqual(await agent.child.exited, { code: 0, signal: undefined });
}

describe('an agent whose log cannot be written', () => {
  it('starts, works and ends on a full disk', async () => {
    await using agent = await startAgent('/dev/full');
    await expectWork(agent);
    assert.ok((await droppedLines(agent)) > 10);
    await expectEnd(agent);
  });

  it('starts, works and ends with a pipe that is full, and says what was lost once it is read', async () => {
    const fifo = join(host.stateDirectory, 'log');
    await run(['mkfifo', fifo]);
    const both = openSync(fifo, constants.O_RDWR | constants.O_NONBLOCK);
    try {
      while (writeSync(both, 'x'.repeat(4_096)) > 0);
    } catch {
      // Full.
    }
    await using agent = await startAgent(fifo);
    await expectWork(agent);
    const dropped = await droppedLines(agent);
    assert.ok(dropped > 10);
    let text = '';
    const read = (): void => {
      const chunk = Buffer.alloc(65_536);
      try {
        for (;;) text += chunk.toString('utf8', 0, readSync(both, chunk));
      } catch {
        // Empty.
      }
    };
    read();
    await breakRoute();
    await eventually('the log says what was lost', () => {
      read();
      return (
        new RegExp(`\\] ${dropped} log lines before this one were lost.*\n.*\\] Restored what`).test(text) || undefined
      );
    });
    await expectEnd(agent);
    closeSync(both);
  });

  it('works and ends when nobody reads any more', async () => {
    await using agent = await startAgent();
    await agent.answers('/readyz', 200, /ready/);
    agent.child.stderr!.destroy();
    await expectWork(agent);
    await eventually('lines are dropped', async () => ((await droppedLines(agent)) > 0 ? true : undefined));
    await expectEnd(agent);
  });
});
