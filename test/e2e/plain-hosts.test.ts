import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { ROOT } from '../../scripts/packaging/architecture.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { openEtcdStore } from '../../src/lab/etcd-store.ts';
import { type LabHost, Topology } from '../../src/lab/topology.ts';
import { type Child, type RunResult, run } from '../../src/linux/run.ts';
import { sectionOf, shellBlocks, shellCommands } from '../markdown.ts';
import { LineFeed } from '../netns/waiting.ts';

/**
 * Hosts without Kubernetes by the commands of docs/INSTALL.md, docs/UPGRADE.md and docs/MIGRATION.md, as they stand: the executable, the
 * unit's own command line and settings, and a real etcd. systemd is not there; test/e2e/systemd-unit.test.ts shows it the unit.
 */

const UNIT = '/etc/systemd/system/weft-flanneld.service';
const COMMAND_MS = 120_000;
const ARCHITECTURE = process.arch === 'arm64' ? 'arm64' : 'amd64';

/** A host with folders of its own where the commands write. */
class PlainHost {
  readonly host: LabHost;
  readonly #topology: Topology;
  readonly #store: string;
  /** Whose mount namespace is the host's. */
  readonly #holder: Child;
  #agent: Child | undefined;

  private constructor(topology: Topology, host: LabHost, store: string, holder: Child) {
    [this.#topology, this.host, this.#store, this.#holder] = [topology, host, store, holder];
  }

  /** @param store the address of etcd. */
  static async create(topology: Topology, host: LabHost, store: string): Promise<PlainHost> {
    const folders = ['/run', '/usr/local/bin', '/etc/systemd/system', '/etc/default'];
    const mounts = folders.map((folder) => `mkdir -p ${folder}; mount -t tmpfs -o mode=755 tmpfs ${folder}`);
    const script = `${mounts.join('; ')}; echo up; exec sleep infinity`;
    const argv = ['unshare', '--mount', '--propagation', 'private', '--', 'sh', '-ec', script];
    const holder = await topology.start(host, argv);
    await new LineFeed(holder.stdout!).find((line) => line === 'up');
    return new PlainHost(topology, host, store, holder);
  }

  /** As root's shell runs it, at the root of the repository. */
  shell(command: string, okExitCodes: 'any' | readonly number[] = [0]): Promise<RunResult> {
    return run(this.#inside(`cd '${ROOT}'; ${command}`), { okExitCodes, timeoutMs: COMMAND_MS });
  }

  async runAll(commands: readonly string[] | undefined): Promise<RunResult[]> {
    assert.ok(commands !== undefined && commands.length > 0);
    const results: RunResult[] = [];
    for (const command of commands) {
      const [, verb, unit] = /^systemctl (\S+(?: --now)?) (\S+)$/.exec(command) ?? [];
      if (verb === undefined) results.push(await this.shell(this.#adapted(command)));
      // flannel is not on this host.
      else if (unit === 'weft-flanneld') await this.#systemctl(verb);
    }
    return results;
  }

  /** What systemd does with the unit, as far as the agent sees it. */
  async #systemctl(verb: string): Promise<void> {
    if (verb === 'stop' || verb === 'restart') {
      this.#agent!.kill('SIGTERM');
      assert.equal((await this.#agent!.exited).code, 0);
    }
    if (verb === 'stop') return;
    assert.match(verb, /^(?:enable --now|start|restart)$/);
    const { stdout: unit } = await this.shell(`cat ${UNIT}`);
    const [, settings] = /^EnvironmentFile=-(.*)$/m.exec(unit) ?? [];
    const [, command] = /^ExecStart=(.*)$/m.exec(unit) ?? [];
    assert.match(unit, /^RuntimeDirectory=flannel$/m);
    const script = `export "$(cat ${settings})"; mkdir -p /run/flannel; exec ${command}`;
    this.#agent = await this.#topology.start(undefined, this.#inside(script), { stdout: 'ignore' });
  }

  #inside(script: string): string[] {
    const path = 'PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
    const enter = ['nsenter', `--target=${this.#holder.pid}`, '--mount', '--net', '--'];
    return [...enter, 'env', '-i', path, 'LC_ALL=C', 'sh', '-ec', script];
  }

  #adapted(command: string): string {
    return command.replaceAll('192.0.2.10', this.#store).replaceAll('linux-amd64', `linux-${ARCHITECTURE}`);
  }
}

async function blocksOf(path: string, heading: string): Promise<string[][]> {
  return shellBlocks(sectionOf(await readFile(join(ROOT, path), 'utf8'), heading)).map(shellCommands);
}

describe('hosts without Kubernetes', () => {
  const cleanup = new AsyncDisposableStack();
  let hosts: readonly PlainHost[];
  let install: string[][];

  before(async () => {
    install = await blocksOf('docs/INSTALL.md', '## On plain hosts');
    const topology = cleanup.use(
      await Topology.create({ hosts: 2, containersPerHost: 0, store: true, purpose: 'plain hosts' }),
    );
    // What the first command replaces.
    cleanup.use(await openEtcdStore(topology, '{"Network": "10.99.0.0/16"}', AbortSignal.timeout(COMMAND_MS)));
    const store = formatIpv4(topology.store!.address);
    hosts = await Promise.all(topology.hosts.map((host) => PlainHost.create(topology, host, store)));
  });
  after(() => cleanup.disposeAsync());

  const subnetOf = async (host: PlainHost): Promise<string> => {
    const { stdout } = await host.shell('cat /run/flannel/subnet.env');
    return /^FLANNEL_SUBNET=(10\.244\.\d+)\.1\/24$/m.exec(stdout)![1]!;
  };
  const reach = async (): Promise<void> => {
    const [a, b] = hosts as [PlainHost, PlainHost];
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      // The address of flannel0 is the first of the subnet.
      const subnet = await subnetOf(to);
      const { stdout } = await from.shell(`ping -c 3 -W 5 ${subnet}.0`);
      assert.match(stdout, / 0% packet loss/);
    }
  };

  it('are installed by the commands of docs/INSTALL.md, and reach each other', async () => {
    const [build, configure, each, look] = install;
    assert.deepEqual(build, ['make dist']);
    await hosts[0]!.runAll(configure);
    for (const host of hosts) await host.runAll(each);
    await reach();
    for (const host of hosts) {
      const [peers, verdict] = await host.runAll(look);
      const other = hosts.find((one) => one !== host)!;
      assert.match(peers!.stdout, new RegExp(`\\b${formatIpv4(other.host.address)}\\b`));
      assert.match(verdict!.stdout, /^✔ host → /m);
    }
  });

  it('are upgraded by the commands of docs/UPGRADE.md, and keep their subnets', async () => {
    const [first] = hosts as [PlainHost];
    const before = await subnetOf(first);
    await first.runAll((await blocksOf('docs/UPGRADE.md', '## On a host'))[0]);
    await first.shell('weft status --wait');
    assert.equal(await subnetOf(first), before);
    await first.shell('/usr/local/bin/weft~ --version');
    await reach();
  });

  it('are left clean by the commands of docs/MIGRATION.md', async () => {
    const [, back] = await blocksOf('docs/MIGRATION.md', '## On etcd, or without containers');
    for (const host of hosts) {
      await host.runAll(back);
      const { stdout } = await host.shell('ip -brief link show; ip route show proto 241; ls /run/flannel');
      assert.doesNotMatch(stdout, /flannel0|subnet\.env/);
    }
  });
});
