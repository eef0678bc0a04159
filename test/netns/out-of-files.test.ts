import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { Flanneld, HEALTHZ_PORT, localFlags } from './flanneld.ts';
import { NET_CONF } from './overlay.ts';
import { eventually, LineFeed } from './waiting.ts';

/** What strangers do to the health port, and a limit of open files, take from the agent what it does for its packets. */

const ROUTE = '10.244.0.0/16';

let topology: Topology;
let host: LabHost;
before(async () => {
  topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
  host = topology.hosts[0]!;
});
after(() => topology?.[Symbol.asyncDispose]());

/** The agent with so many descriptors at most. */
function startAgent(files: number): Promise<Flanneld> {
  const flags = localFlags(host, NET_CONF, '--ip-masq', `--healthz-port=${HEALTHZ_PORT}`, '--iptables-resync=1');
  const under = ['sh', '-c', `ulimit -n ${files}; exec "$@"`, 'sh'];
  return Flanneld.start(topology, host, { flags, under });
}

const filesOf = (agent: Flanneld): number => readdirSync(`/proc/${agent.child.pid}/fd`).length;

/** So many connections to the health port, half a request on each, opened anew when they are closed. */
const STRANGER = `
  const { connect } = require('node:net');
  let open = 0;
  const one = () => {
    const socket = connect(${HEALTHZ_PORT}, '127.0.0.1', () => {
      socket.write('GET /readyz HTTP/1.1\\\\r\\\\nHost: ');
      if (++open === Number(process.argv[1])) console.log('all of them');
    });
    socket.on('error', () => {});
    socket.on('close', () => setTimeout(one, 200));
  };
  for (let i = 0; i < Number(process.argv[1]); i++) one();
`;

async function expectRepair(): Promise<void> {
  await topology.exec(host, ['ip', 'route', 'del', ROUTE], { okExitCodes: 'any' });
  await eventually(`the route to ${ROUTE} is back`, async () => {
    const { stdout } = await topology.exec(host, ['ip', 'route', 'show', ROUTE]);
    return stdout.includes('flannel0') || undefined;
  });
}

describe('an agent with few descriptors', () => {
  it('goes on with its work while strangers hold connections to its health port', async (t) => {
    await using agent = await startAgent(160);
    await agent.answers('/readyz', 200, /ready/);
    const alone = filesOf(agent);
    await using stranger = await topology.start(host, [
      process.execPath,
      '-e',
      STRANGER.replaceAll('\\\\', '\\'),
      '400',
    ]);
    await new LineFeed(stranger.stdout!).find((text) => text === 'all of them');
    t.diagnostic(`${alone} descriptors alone, ${filesOf(agent)} with strangers`);
    assert.ok(filesOf(agent) < alone + 60);
    await agent.answers('/readyz', 200, /ready/);
    await expectRepair();
    await agent.answers('/readyz', 200, /ready/);
    assert.doesNotMatch(agent.messages.join('\n'), /EMFILE/);
    agent.child.kill('SIGTERM');
    assert.equal((await agent.child.exited).code, 0);
  });

  it('says so and carries on when there are none left, and works as before when there are', async () => {
    await using agent = await startAgent(1_024);
    await agent.answers('/readyz', 200, /ready/);
    const { pid } = agent.child;
    await topology.exec(host, ['prlimit', '--pid', String(pid), `--nofile=${filesOf(agent)}:1024`]);
    await topology.exec(host, ['ip', 'route', 'del', ROUTE]);
    await agent.logged(/could not be started: spawn .*EMFILE; |Too many files are open/);
    await topology.exec(host, ['prlimit', '--pid', String(pid), '--nofile=1024:1024']);
    await eventually(
      `the route to ${ROUTE} is back`,
      async () => {
        const { stdout } = await topology.exec(host, ['ip', 'route', 'show', ROUTE]);
        return stdout.includes('flannel0') || undefined;
      },
      60_000,
    );
    await agent.answers('/readyz', 200, /ready/);
    agent.child.kill('SIGTERM');
    assert.equal((await agent.child.exited).code, 0);
  });
});
