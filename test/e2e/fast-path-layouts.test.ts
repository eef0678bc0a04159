import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { LAYOUT } from '../../src/dataplane/fast-path/layout.ts';
import { agentCommand } from '../../src/lab/agent.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { addressOf, Overlay } from '../netns/overlay.ts';
import { lostPings } from '../netns/ping-replies.ts';
import { eventually, LineFeed } from '../netns/waiting.ts';

/** Two builds whose maps of the fast path differ replace each other on a host: an upgrade, and the way back. */

const OPEN = /Packets take the fast path in the kernel .*, also while the agent is away$/;
const SOURCE = 'src/dataplane/fast-path/layout.ts';
const OTHER = LAYOUT + 1;
const signal = new AbortController().signal;

const stack = new AsyncDisposableStack();
let overlay: Overlay;
let host: LabHost;
let root: string;
/** Sources of a build with another layout. */
let otherBuild: string;

before(async () => {
  otherBuild = await mkdtemp(join(tmpdir(), 'weft-other-build-'));
  stack.defer(() => rm(otherBuild, { recursive: true }));
  await cp(join(ROOT, 'src'), join(otherBuild, 'src'), { recursive: true });
  await cp(join(ROOT, 'package.json'), join(otherBuild, 'package.json'));
  await symlink(join(ROOT, 'node_modules'), join(otherBuild, 'node_modules'));
  const text = await readFile(join(ROOT, SOURCE), 'utf8');
  const changed = text.replace(`export const LAYOUT = ${LAYOUT};`, `export const LAYOUT = ${OTHER};`);
  assert.notEqual(changed, text);
  await writeFile(join(otherBuild, SOURCE), changed);

  root = await folderOnBpffs(stack);
  const agentFlags = ['--fast-path', 'auto', '--fast-path-dir', root];
  overlay = stack.use(await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native', agentFlags }, signal));
  [host] = overlay.topology.hosts as [LabHost];
});
after(() => stack.disposeAsync());

it('loses no ping with an upgrade to a build with another layout, nor with the way back', async (t) => {
  const { topology } = overlay;
  const [a, b] = topology.containers;
  const ping = stack.use(await topology.start(a!, ['ping', '-n', '-i', '0.005', addressOf(b!)]));
  const flow = new LineFeed(ping.stdout!);
  const logPath = join(host.stateDirectory, 'flanneld.log');
  const opened = async (): Promise<number> =>
    (await readFile(logPath, 'utf8')).split('\n').filter((line) => OPEN.test(line)).length;
  const layouts = (): string[] =>
    readdirSync(root).flatMap((name) => readdirSync(join(root, name)).filter((each) => each.startsWith('layout-')));
  const figures = async () => ({
    reads: Number(/^weft_forwarder_operations_total\{operation="txReads"\} (\d+)$/m.exec(await metrics())?.[1]),
    answers: flow.mark,
  });
  const metrics = (): Promise<string> => overlay.ask(host, '/metrics');
  /** Few of the pings are read by the forwarder. */
  const carried = async (): Promise<void> => {
    await eventually('the fast path carries the pings', async () => {
      const from = await figures();
      await eventually('100 answers more', () => flow.mark > from.answers + 100 || undefined);
      const now = await figures();
      return (now.reads - from.reads) * 5 < now.answers - from.answers || undefined;
    });
  };

  await carried();
  let agent: Child = overlay.agents[0]!.child;
  for (const [build, layout, how] of [
    [otherBuild, OTHER, 'SIGTERM'],
    [ROOT, LAYOUT, 'SIGTERM'],
    [otherBuild, OTHER, 'SIGKILL'],
    [ROOT, LAYOUT, 'SIGKILL'],
  ] as const) {
    const before = await opened();
    agent.kill(how);
    await agent.exited;
    const argv = agentCommand(host, overlay.store, overlay.agents[0]!.subnetFile).map((word) =>
      word.startsWith(`${ROOT}/`) && word.endsWith('/src/cmd/flanneld/main.ts')
        ? join(build, 'src/cmd/flanneld/main.ts')
        : word,
    );
    agent = await topology.startLogged(host, [...argv, '--fast-path', 'auto', '--fast-path-dir', root], logPath);
    await eventually('its fast path is open', async () => (await opened()) > before || undefined);
    await carried();
    // The other host has the one of this build all the time.
    assert.equal(layouts().includes(`layout-${OTHER}`), layout === OTHER, layouts().join());
    const { lost, of } = lostPings(flow.seen.map(({ text }) => text));
    t.diagnostic(`${lost} of ${of} lost, ${how} and then layout ${layout}`);
    assert.equal(lost, 0, `${lost} of ${of}`);
  }
});
