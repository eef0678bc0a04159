import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { LAYOUT, RX_PACKETS, TX_PACKETS } from '../../src/dataplane/fast-path/layout.ts';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import type { Underlay } from '../../src/lab/namespaces.ts';
import type { LabContainer, LabHost, Topology } from '../../src/lab/topology.ts';
import { BPF_COMMANDS } from '../../src/linux/constants.ts';
import { bpf, close, addressOf as memoryOf } from '../../src/linux/ffi.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { EchoBeside, type End, withoutStall } from '../netns/echo-beside.ts';
import { transfer, untilFastPathCarries } from '../netns/fast-path-use.ts';
import { keptCount, keptDirectory } from '../netns/kept-maps.ts';
import { addressOf, Overlay, ping } from '../netns/overlay.ts';
import { Pinging } from '../netns/pinging.ts';
import { eventually } from '../netns/waiting.ts';

/** The time of an image pull or a slow rolling update; longer than anything that programs learn by themselves holds. */
const AWAY_MS = 4_000;
/** `make away` sets it. */
const STORE_AWAY_MS = Number(process.env.WEFT_AWAY_SECONDS ?? AWAY_MS / 1_000) * 1_000;
const STORE_FILE = 'subnets.db';
const FILE_BYTES = 32 * 1024 * 1024;
/** A super-packet is counted as what it is cut into. */
const MTU = 1_472;
const OPEN = /Packets take the fast path in the kernel .*, even while the agent is down$/m;
const WEFT = [
  process.execPath,
  '--disable-warning=ExperimentalWarning',
  fileURLToPath(new URL('../../src/cmd/weft/main.ts', import.meta.url)),
];
const signal = new AbortController().signal;

/** Hosts whose agents share a bpffs of their own: `ip netns exec` hides the machine's. */
class Kept implements AsyncDisposable {
  readonly overlay: Overlay;
  readonly root: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(overlay: Overlay, root: string, stack: AsyncDisposableStack) {
    this.overlay = overlay;
    this.root = root;
    this.#stack = stack;
  }

  static async create(hosts: number, underlay: Underlay, moreFlags: readonly string[] = []): Promise<Kept> {
    await using stack = new AsyncDisposableStack();
    const root = await folderOnBpffs(stack);
    const agentFlags = ['--fast-path', 'auto', '--fast-path-dir', root, ...moreFlags];
    const overlay = stack.use(await Overlay.create({ hosts, containersPerHost: 1, underlay, agentFlags }, signal));
    return new Kept(overlay, root, stack.move());
  }

  /** Where that host's fast path is kept. */
  directory(host: LabHost): Promise<string> {
    return keptDirectory(this.overlay.topology, this.root, host);
  }

  /** What the programs have counted since the agent that runs, or ran last, has started; there need not be one now. */
  async counted(host: LabHost, direction: typeof TX_PACKETS | typeof RX_PACKETS): Promise<number> {
    return keptCount(await this.directory(host), direction);
  }

  /**
   * Waits until both hosts carry files and pings by the fast path, since their agents have started: an agent that is killed before
   * that has nothing to leave.
   */
  async agreed(): Promise<void> {
    const { topology } = this.overlay;
    const [a, b] = topology.containers as [LabContainer, LabContainer];
    await this.carriesFile(a, b, FILE_BYTES / 8);
    await this.carriesFile(b, a, FILE_BYTES / 8);
    const directions = [TX_PACKETS, RX_PACKETS] as const;
    await untilFastPathCarries(
      () => Promise.all(topology.hosts.flatMap((host) => directions.map((direction) => this.counted(host, direction)))),
      async () => void (await ping(topology, a, addressOf(b), '-c', '20', '-i', '0.01')),
      ({ before, after }) => {
        const more = after.map((packets, index) => packets - before[index]!);
        assert.ok(Math.min(...more) >= 20, `${more} packets of 20 by the fast path`);
      },
    );
  }

  /** … which the program of the sending host has carried. */
  async carriesFile(from: LabContainer, to: LabContainer, bytes: number): Promise<void> {
    const { topology } = this.overlay;
    const host = topology.hosts.find(({ containers }) => containers.includes(from))!;
    await untilFastPathCarries(
      async () => [await this.counted(host, TX_PACKETS)],
      () => transfer(topology, from, to, bytes),
      ({ before, after }) => {
        const more = after[0]! - before[0]!;
        assert.ok(more > bytes / MTU, `${more} packets of ${bytes / MTU} by the fast path of host ${host.index + 1}`);
      },
    );
  }

  async end(host: LabHost, how: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const { child } = this.overlay.agents[host.index]!;
    child.kill(how);
    await child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

/** Echo requests, up to a thousand a second. */
const flooding = (topology: Topology, from: LabContainer, to: LabContainer): Promise<Pinging> =>
  Pinging.start(topology, from, addressOf(to), 0.001);

/** Numbers of the attachments that are kept there. */
function linkIds(directory: string): number[] {
  return ['in', 'out'].map((side) => {
    const path = new TextEncoder().encode(`${join(directory, side)}\0`);
    const memory = new Uint8Array(new SharedArrayBuffer(path.length));
    memory.set(path);
    const attributes = new DataView(new SharedArrayBuffer(72));
    attributes.setBigUint64(0, BigInt(memoryOf(memory)), true);
    const fd = bpf(BPF_COMMANDS.objGet, memoryOf(attributes), 72);
    assert.ok(fd >= 0, `${side}: ${fd}`);
    const info = new DataView(new SharedArrayBuffer(64));
    const query = new DataView(new SharedArrayBuffer(72));
    query.setUint32(0, fd, true);
    query.setUint32(4, 64, true);
    query.setBigUint64(8, BigInt(memoryOf(info)), true);
    assert.equal(bpf(BPF_COMMANDS.objGetInfoByFd, memoryOf(query), 72), 0);
    close(fd);
    return info.getUint32(4, true);
  });
}

/** BPF_LINK_GET_FD_BY_ID */
function linkExists(id: number): boolean {
  const attributes = new DataView(new SharedArrayBuffer(72));
  attributes.setUint32(0, id, true);
  const fd = bpf(30, memoryOf(attributes), 72);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

for (const [where, underlay, moreFlags] of [
  ['where this host cuts super-packets', 'wire', []],
  ['where a switch does, and XDP takes what comes', 'switch', ['--fast-path-in=xdp']],
] as const) {
  it(`the fast path while the agent is away, ${where}, carries data of all kinds, and loses no packet when agents are killed`, async (t) => {
    await using kept = await Kept.create(2, underlay, moreFlags);
    const { topology } = kept.overlay;
    const [a, b] = topology.containers as [LabContainer, LabContainer];
    const pairs = await EchoBeside.bothWays(topology, endsOf(topology));
    await kept.agreed();
    await using flood = await flooding(topology, a, b);
    for (const host of topology.hosts.toReversed()) {
      await withoutStall(t, pairs, async (watch) => {
        await kept.agreed();
        await flood.answered(500);
        const before = await kept.counted(host, RX_PACKETS);
        await watch(async () => {
          await kept.end(host, 'SIGKILL');
          await sleep(AWAY_MS);
          await flood.answered(2_000);
        });
        const received = (await kept.counted(host, RX_PACKETS)) - before;
        assert.ok(received > 500, `${received} packets received while the agent was away`);
        await transfer(topology, a, b, FILE_BYTES / 8);
        await watch(async () => {
          await kept.overlay.startAgent(host, signal);
          await flood.answered(1_000);
        });
      });
      const { lost, of } = await flood.lost();
      t.diagnostic(`${lost} of ${of} lost`);
      assert.equal(lost, 0, `${lost} of ${of}`);
    }
  });
}

/** The container of each host. */
function endsOf({ hosts }: Topology): readonly [End, End] {
  const ends = hosts.map((host): End => {
    const place = host.containers[0]!;
    return { place, address: addressOf(place), host, hostAddress: formatIpv4(host.address) };
  });
  return [ends[0]!, ends[1]!];
}

describe('the fast path while the agent is away, where super-packets arrive in one piece', () => {
  let kept: Kept;
  let topology: Topology;
  let hosts: readonly LabHost[];
  let containers: readonly LabContainer[];
  let pairs: readonly EchoBeside[];

  before(async () => {
    kept = await Kept.create(2, 'native');
    ({ topology } = kept.overlay);
    ({ hosts, containers } = topology);
    pairs = await EchoBeside.bothWays(topology, endsOf(topology));
    for (const host of hosts) {
      await eventually('the fast path is open', async () => OPEN.test(await kept.overlay.log(host)) || undefined);
    }
  });
  after(() => kept?.[Symbol.asyncDispose]());

  async function carriesFiles(): Promise<void> {
    const [a, b] = containers as [LabContainer, LabContainer];
    await kept.carriesFile(a, b, FILE_BYTES);
    await kept.carriesFile(b, a, FILE_BYTES);
  }

  for (const [index, how] of [
    [0, 'SIGKILL'],
    [1, 'SIGKILL'],
    [0, 'SIGTERM'],
    [1, 'SIGTERM'],
  ] as const) {
    it(`loses nothing when the agent of host ${index + 1} ends by ${how} and comes again`, async (t) => {
      const [a, b] = [containers[0]!, containers[1]!];
      await using flood = await flooding(topology, a, b);
      await withoutStall(t, pairs, async (watch) => {
        await kept.agreed();
        await flood.answered(500);
        const links = linkIds(await kept.directory(hosts[index]!));
        const before = await kept.counted(hosts[index]!, RX_PACKETS);
        await watch(async () => {
          await kept.end(hosts[index]!, how);
          await sleep(AWAY_MS);
          await flood.answered(500);
        });
        const received = (await kept.counted(hosts[index]!, RX_PACKETS)) - before;
        assert.ok(received > 500, `${received} packets received while the agent was away`);
        await carriesFiles();

        await watch(async () => {
          await kept.overlay.startAgent(hosts[index]!, signal);
          await flood.answered(2_000);
        });
        assert.deepEqual(linkIds(await kept.directory(hosts[index]!)), links, 'the attachments are the same');
      });
      await carriesFiles();
      const { lost, of } = await flood.lost();
      t.diagnostic(`${lost} of ${of} lost`);
      assert.equal(lost, 0, `${lost} of ${of}`);
    });
  }

  it('goes on for more than a minute, and the other host says who has no agent', async () => {
    const [first, second] = hosts as [LabHost, LabHost];
    await kept.agreed();
    await using flood = await flooding(topology, containers[0]!, containers[1]!);
    await kept.end(second, 'SIGKILL');
    const logged = async (what: string): Promise<true> =>
      eventually(
        `${what} in the log`,
        async () => (await kept.overlay.log(first)).includes(what) || undefined,
        150_000,
      );
    const countsAlone = async (count: number): Promise<void> =>
      assert.match(
        await kept.overlay.ask(first, '/metrics'),
        new RegExp(`^weft_fast_path_peers_without_agent ${count}$`, 'm'),
      );
    await countsAlone(0);
    await logged(`Peers that have carried packets without an agent for a minute: ${formatIpv4(second.address)}`);
    await countsAlone(1);
    await flood.answered(500);
    await carriesFiles();
    await kept.overlay.startAgent(second, signal);
    await logged('No peer carries packets without an agent any longer');
    await countsAlone(0);
    const { lost, of } = await flood.lost();
    assert.equal(lost, 0, `${lost} of ${of}`);
  });

  it('carries on after a pause without any agent', async () => {
    await kept.agreed();
    for (const host of hosts) await kept.end(host, 'SIGKILL');
    await sleep(AWAY_MS);
    await using flood = await flooding(topology, containers[0]!, containers[1]!);
    await flood.answered(1_000);
    assert.equal((await flood.lost()).lost, 0);
    await carriesFiles();
    for (const host of hosts) await kept.overlay.startAgent(host, signal);
    await flood.answered(1_000);
    assert.equal((await flood.lost()).lost, 0);
    await carriesFiles();
  });

  it('loses nothing while both agents and the store are away, nor when they come again', async (t) => {
    await kept.agreed();
    await using flood = await flooding(topology, containers[0]!, containers[1]!);
    await flood.answered(500);
    for (const host of hosts) await kept.end(host, 'SIGKILL');
    // With what SQLite has beside it.
    const files = readdirSync(topology.stateDirectory).filter((name) => name.startsWith(STORE_FILE));
    const away = join(topology.stateDirectory, 'away');
    const move = async (from: string, to: string): Promise<void> => {
      for (const name of files) await rename(join(from, name), join(to, name));
    };
    await mkdir(away);
    await move(topology.stateDirectory, away);
    const counted = (): Promise<readonly number[]> => Promise.all(hosts.map((host) => kept.counted(host, RX_PACKETS)));
    const before = await counted();
    const answers = flood.answers;
    await sleep(STORE_AWAY_MS);
    await flood.answered(500);
    const more = (await counted()).map((packets, index) => packets - before[index]!);
    const answered = flood.answers - answers;
    assert.ok(Math.min(...more) > answered * 0.9, `${more.join(' and ')} packets received for ${answered} answers`);
    await carriesFiles();
    await move(away, topology.stateDirectory);
    for (const host of hosts) await kept.overlay.startAgent(host, signal);
    await flood.answered(1_000);
    const { lost, of } = await flood.lost();
    t.diagnostic(`${lost} of ${of} lost, ${STORE_AWAY_MS / 1_000} s away`);
    assert.equal(lost, 0, `${lost} of ${of}`);
    await carriesFiles();
  });

  it('refuses a peer that went from the store meanwhile', async () => {
    const [a, b] = [containers[0]!, containers[1]!];
    await kept.agreed();
    for (const host of hosts) await kept.end(host, 'SIGKILL');
    assert.ok((await ping(topology, b, addressOf(a))).ok, 'nobody has told the programs yet');
    const gone = kept.overlay.agents[1]!.network.subnet;
    const database = new DatabaseSync(join(topology.stateDirectory, STORE_FILE));
    const rows = database.prepare('SELECT key FROM lease').all() as { key: string }[];
    const key = rows.map((row) => row.key).find((text) => text.startsWith(formatIpv4(gone.addr)));
    assert.ok(key !== undefined, JSON.stringify(rows));
    database.prepare('DELETE FROM lease WHERE key = ?').run(key);
    database.close();

    await kept.overlay.startAgent(hosts[0]!, signal);
    await eventually('the peer is refused', async () =>
      (await ping(topology, b, addressOf(a), '-W', '1')).ok ? undefined : true,
    );
    const before = await kept.counted(hosts[0]!, RX_PACKETS);
    assert.ok(!(await ping(topology, b, addressOf(a), '-W', '1')).ok);
    assert.equal(await kept.counted(hosts[0]!, RX_PACKETS), before);
  });

  it('is gone after weft cleanup', async () => {
    const [, host] = hosts;
    const directory = await kept.directory(host!);
    const ids = linkIds(directory);
    assert.deepEqual(readdirSync(directory).sort(), ['in', `layout-${LAYOUT}`, 'out']);
    const paths = ['--subnet-file', join(host!.stateDirectory, 'subnet.env'), '--fast-path-dir', kept.root];
    const { stdout } = await topology.exec(host!, [...WEFT, 'cleanup', ...paths]);
    assert.match(stdout, new RegExp(`^removed fast path:\n {2}${directory}$`, 'm'));
    assert.ok(!existsSync(directory));
    assert.deepEqual(ids.filter(linkExists), []);
  });
});

describe('the fast path that an agent has left', () => {
  let kept: Kept;
  let host: LabHost;
  let directory: string;

  before(async () => {
    kept = await Kept.create(1, 'native');
    [host] = kept.overlay.topology.hosts as [LabHost];
    directory = await kept.directory(host);
    await says(OPEN);
  });
  after(() => kept?.[Symbol.asyncDispose]());

  const says = (what: RegExp): Promise<true> =>
    eventually(`the log says ${what}`, async () => what.test(await kept.overlay.log(host)) || undefined);

  /** The agent is away while `change` is made; waits for the word that the next one has about its fast path. */
  async function meanwhile(change: () => Promise<void>, what: RegExp, flags: readonly string[] = []): Promise<void> {
    await kept.end(host, 'SIGKILL');
    await change();
    await rm(kept.overlay.agents[0]!.logPath);
    await kept.overlay.startAgent(host, signal, flags);
    await says(what);
  }

  it('is taken over with maps of another kind or layout in its place, or none', async () => {
    const layout = join(directory, `layout-${LAYOUT}`);
    const [links, maps] = [linkIds(directory), readdirSync(layout).sort()];
    await meanwhile(async () => {
      await mkdir(join(directory, 'layout-999'));
      await rename(join(layout, 'weft_own'), join(layout, 'weft_grants'));
      await rm(join(layout, 'weft_agent'));
    }, OPEN);
    assert.deepEqual(readdirSync(directory).sort(), ['in', `layout-${LAYOUT}`, 'out']);
    assert.deepEqual(readdirSync(layout).sort(), maps);
    assert.deepEqual(linkIds(directory), links);
  });

  it('gets new attachments where those are of no use', async () => {
    const links = linkIds(directory);
    await meanwhile(async () => {
      await rename(join(directory, 'in'), join(directory, 'other'));
      await rename(join(directory, 'out'), join(directory, 'in'));
      await rename(join(directory, 'other'), join(directory, 'out'));
    }, OPEN);
    assert.deepEqual(
      linkIds(directory).filter((id) => links.includes(id)),
      [],
    );
    assert.deepEqual(links.filter(linkExists), []);
  });

  it('ends with an agent that finds IPsec policies', async () => {
    const { topology } = kept.overlay;
    const policy = ['src', '192.0.2.1', 'dst', '192.0.2.2', 'dir', 'out'];
    const links = linkIds(directory);
    await meanwhile(
      async () => void (await topology.exec(host, ['ip', 'xfrm', 'policy', 'add', ...policy])),
      /would bypass IPsec/,
    );
    assert.deepEqual(links.filter(linkExists), []);
    await topology.exec(host, ['ip', 'xfrm', 'policy', 'delete', ...policy]);
    await says(OPEN);
    assert.equal(linkIds(directory).filter(linkExists).length, 2);
  });

  it('ends with an agent that is to have none', async () => {
    const links = linkIds(directory);
    await meanwhile(async () => {}, /Packet workers are running/, ['--fast-path', 'off']);
    assert.ok(!existsSync(directory));
    assert.deepEqual(links.filter(linkExists), []);
  });
});
