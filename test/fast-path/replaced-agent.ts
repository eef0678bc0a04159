import assert from 'node:assert/strict';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { LAYOUT } from '../../src/dataplane/fast-path/layout.ts';
import { agentCommand } from '../../src/lab/agent.ts';
import type { Underlay } from '../../src/lab/namespaces.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import type { Child } from '../../src/linux/run.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { Overlay } from '../netns/overlay.ts';
import { eventually } from '../netns/waiting.ts';

const SOURCE = 'src/dataplane/fast-path/layout.ts';
const signal = new AbortController().signal;

/** Sources of a build with another layout of the fast path's maps; they go with the stack. */
export async function buildOfLayout(layout: number, stack: AsyncDisposableStack): Promise<string> {
  const build = await mkdtemp(join(tmpdir(), 'weft-other-build-'));
  stack.defer(() => rm(build, { recursive: true }));
  await cp(join(ROOT, 'src'), join(build, 'src'), { recursive: true });
  await cp(join(ROOT, 'package.json'), join(build, 'package.json'));
  await symlink(join(ROOT, 'node_modules'), join(build, 'node_modules'));
  const text = await readFile(join(ROOT, SOURCE), 'utf8');
  const changed = text.replace(`export const LAYOUT = ${LAYOUT};`, `export const LAYOUT = ${layout};`);
  assert.notEqual(changed, text);
  await writeFile(join(build, SOURCE), changed);
  return build;
}

/** Agents on two hosts, of which those on the first replace each other. */
export class ReplacedAgent implements AsyncDisposable {
  readonly root: string;
  readonly overlay: Overlay;
  readonly host: LabHost;
  readonly #flags: readonly string[];
  readonly #resources: AsyncDisposableStack;
  #agent: Child;

  private constructor(root: string, overlay: Overlay, flags: readonly string[], resources: AsyncDisposableStack) {
    this.root = root;
    this.overlay = overlay;
    this.host = overlay.topology.hosts[0]!;
    this.#flags = flags;
    this.#resources = resources;
    this.#agent = overlay.agents[0]!.child;
  }

  static async on(underlay: Underlay, moreFlags: readonly string[] = []): Promise<ReplacedAgent> {
    await using resources = new AsyncDisposableStack();
    const root = await folderOnBpffs(resources);
    const agentFlags = ['--fast-path', 'auto', '--fast-path-dir', root, ...moreFlags];
    const overlay = resources.use(
      await Overlay.create({ hosts: 2, containersPerHost: 1, underlay, agentFlags }, signal),
    );
    return new ReplacedAgent(root, overlay, agentFlags, resources.move());
  }

  get #logPath(): string {
    return join(this.host.stateDirectory, 'flanneld.log');
  }

  async said(what: RegExp): Promise<number> {
    return (await readFile(this.#logPath, 'utf8')).split('\n').filter((line) => what.test(line)).length;
  }

  async end(how: NodeJS.Signals): Promise<void> {
    this.#agent.kill(how);
    await this.#agent.exited;
  }

  /** After the one before has ended; does not wait for anything. */
  async start(build: string): Promise<void> {
    const { topology, store, agents } = this.overlay;
    const argv = agentCommand(this.host, store, agents[0]!.subnetFile).map((word) =>
      word.startsWith(`${ROOT}/`) && word.endsWith('/src/cmd/flanneld/main.ts')
        ? join(build, 'src/cmd/flanneld/main.ts')
        : word,
    );
    this.#agent = await topology.startLogged(this.host, [...argv, ...this.#flags], this.#logPath);
  }

  /** Ends the agent; the next one says that. */
  async replace(how: NodeJS.Signals, build: string, what: RegExp): Promise<void> {
    const before = await this.said(what);
    await this.end(how);
    await this.start(build);
    await eventually(`the next agent says ${what}`, async () => (await this.said(what)) > before || undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}
