import assert from 'node:assert/strict';
import { chmodSync, existsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { after, before, describe, it, type TestContext } from 'node:test';
import { FAST_PATH_MODES } from '../../src/dataplane/fast-path/mode.ts';
import { agentCommand } from '../../src/lab/agent.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { NotifySocket } from '../fakes/notify-socket.ts';
import { folderOnBpffs } from './bpffs.ts';
import { addressOf, Overlay } from './overlay.ts';
import { Pinging } from './pinging.ts';
import { eventually } from './waiting.ts';

/** A hundred echo requests a second. */
const INTERVAL_SECONDS = 0.01;

const LEFT = 'The next agent has taken over; waiting to be stopped';
const READY = 'flannel is ready';

for (const fastPath of FAST_PATH_MODES)
  describe(`an agent that follows another on the same host, fast path ${fastPath}`, () => {
    let overlay: Overlay;
    let topology: Topology;
    const resources = new AsyncDisposableStack();
    const signal = new AbortController().signal;

    before(async () => {
      const agentFlags = ['--fast-path', fastPath, '--fast-path-dir', await folderOnBpffs(resources)];
      overlay = resources.use(await Overlay.create({ hosts: 2, containersPerHost: 1, agentFlags }, signal));
      ({ topology } = overlay);
    });
    after(() => resources.disposeAsync());

    const said = async (host: LabHost, text: string): Promise<number> =>
      (await overlay.log(host)).split('\n').filter((line) => line.endsWith(text)).length;
    const says = (host: LabHost, text: string, times: number): Promise<true> =>
      eventually(`the log says ${times} times "${text}"`, async () => (await said(host, text)) >= times || undefined);
    const indexOf = async (host: LabHost): Promise<unknown> => {
      const { stdout } = await topology.exec(host, ['ip', '-j', 'link', 'show', 'flannel0']);
      return (JSON.parse(stdout) as { ifindex: number }[])[0]?.ifindex;
    };

    async function pinging(): Promise<{ flows: Pinging[]; stack: AsyncDisposableStack }> {
      const stack = new AsyncDisposableStack();
      const [first, second] = topology.containers;
      const flows = [
        stack.use(await Pinging.start(topology, first!, addressOf(second!), INTERVAL_SECONDS)),
        stack.use(await Pinging.start(topology, second!, addressOf(first!), INTERVAL_SECONDS)),
      ];
      await answered(flows);
      return { flows, stack };
    }

    async function answered(flows: readonly Pinging[]): Promise<void> {
      for (const flow of flows) await flow.answered(50);
    }

    async function losesNothing(t: TestContext, flows: readonly Pinging[]): Promise<void> {
      for (const flow of flows) {
        const { lost, of } = await flow.lost();
        t.diagnostic(`${lost} of ${of} lost`);
        assert.equal(lost, 0, `${lost} of ${of}`);
      }
    }

    async function ends(child: Child): Promise<void> {
      child.kill('SIGTERM');
      assert.deepEqual(await child.exited, { code: 0, signal: undefined });
    }

    if (fastPath === 'auto')
      it('has its fast path kept', async () => {
        for (const host of topology.hosts) await says(host, ', even while the agent is down', 1);
      });

    for (const index of [0, 1]) {
      it(`loses no packet when the agent of host ${index} is replaced`, async (t) => {
        const host = topology.hosts[index]!;
        const { child: old } = overlay.agents[index]!;
        const device = await indexOf(host);
        const { flows, stack } = await pinging();
        await using _ = stack;
        await overlay.startAgent(host, signal);
        await says(host, LEFT, 1);
        await says(host, READY, 2);
        await answered(flows);
        await ends(old);
        await answered(flows);
        await losesNothing(t, flows);
        assert.equal(await indexOf(host), device);
        assert.match(await overlay.ask(host, '/readyz'), /^HTTP\/1\.1 200 /);
        assert.doesNotMatch(await overlay.log(host), /The API is not served/);
      });
    }

    it('carries packets after it was told to stop until its follower does', async (t) => {
      const [host] = topology.hosts as [LabHost];
      const { child: old } = overlay.agents[0]!;
      const { flows, stack } = await pinging();
      await using _ = stack;
      const announced = await said(host, 'The next agent has started');
      const ready = await said(host, READY);
      const starting = overlay.startAgent(host, signal);
      await says(host, 'The next agent has started', announced + 1);
      await ends(old);
      await starting;
      await says(host, READY, ready + 1);
      await answered(flows);
      await losesNothing(t, flows);
    });

    it('is no matter of other users, also where the mode of the socket lets them in', async () => {
      const [host] = topology.hosts as [LabHost];
      const place = `${overlay.agents[0]!.subnetFile}.hand-over`;
      await eventually('the next agent may come', () => existsSync(place) || undefined);
      assert.equal(statSync(place).mode & 0o777, 0o600);
      const announced = await said(host, 'The next agent has started');
      chmodSync(place, 0o666);
      for (let at = dirname(place); at !== '/' && at !== '/tmp'; at = dirname(at))
        chmodSync(at, statSync(at).mode | 0o011);
      const asStranger = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
      await topology.exec(host, [...asStranger, 'socat', '-t', '5', 'STDIO', `UNIX-CONNECT:${place}`], {
        okExitCodes: 'any',
        stdin: 'take-over-1 00\ncarries\n',
      });
      await says(host, 'Only root and the agent’s user may take over here: refused user 65534', 1);
      assert.equal(await said(host, 'The next agent has started'), announced);
      assert.match(await overlay.ask(host, '/readyz'), /^HTTP\/1\.1 200 /);
    });

    it('ends at once when it has no follower, and leaves nothing to follow', async () => {
      const { child, subnetFile } = overlay.agents[1]!;
      const place = `${subnetFile}.hand-over`;
      assert.ok(existsSync(place));
      await ends(child);
      assert.ok(!existsSync(place));
      const log = await overlay.log(topology.hosts[1]!);
      assert.ok(!log.includes('Stopping: carrying packets until the next agent takes over'));
    });
  });

describe('an agent whose TUN device and socket systemd keeps', () => {
  let overlay: Overlay;
  let topology: Topology;
  let host: LabHost;
  const signal = new AbortController().signal;

  before(async () => {
    overlay = await Overlay.create({ hosts: 2, containersPerHost: 1 }, signal);
    ({ topology } = overlay);
    [host] = topology.hosts as [LabHost];
    const { child } = overlay.agents[0]!;
    child.kill('SIGTERM');
    await child.exited;
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  /** As systemd does it: with what it was given to keep. */
  function startKeeping(systemd: NotifySocket, kept: readonly number[]): Promise<Child> {
    const listen = `LISTEN_PID=$$ LISTEN_FDS=${kept.length} LISTEN_FDNAMES=${kept.map(() => 'packets').join(':')}`;
    const command = agentCommand(host, overlay.store, overlay.agents[0]!.subnetFile);
    const env = { NOTIFY_SOCKET: systemd.target };
    const argv = ['sh', '-c', `${listen} exec "$0" "$@"`, ...command];
    return topology.start(host, argv, { env, descriptors: kept });
  }

  it('loses no packet when it is restarted, or killed', async (t) => {
    using systemd = new NotifySocket('path');
    await using stack = new AsyncDisposableStack();
    let agent = stack.use(await startKeeping(systemd, []));
    const ready = (): Promise<true> =>
      eventually('systemd hears that it is ready', () => systemd.received().includes('READY=1') || undefined);
    await ready();
    const [a, b] = topology.containers;
    const flow = stack.use(await Pinging.start(topology, a!, addressOf(b!), 0.02));
    for (const how of ['SIGTERM', 'SIGKILL'] as const) {
      await flow.answered(20);
      assert.equal(systemd.kept.length, 2);
      agent.kill(how);
      await agent.exited;
      agent = stack.use(await startKeeping(systemd, systemd.kept));
      await ready();
      await flow.answered(50);
      const { lost, of } = await flow.lost();
      t.diagnostic(`${lost} of ${of} lost with ${how}`);
      assert.equal(lost, 0, `${lost} of ${of}`);
    }
  });
});
