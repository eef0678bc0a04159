import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { formatIpv4, ipv4Of } from '../../src/ip/ipv4.ts';
import { formatPrefix4, prefix4 } from '../../src/ip/prefix.ts';
import { namespacesOf } from '../../src/lab/namespaces.ts';
import { identifyProcess } from '../../src/lab/process-identity.ts';
import { listLabIds, readRecord, stateDirectoryOf } from '../../src/lab/registry.ts';
import { removeLab } from '../../src/lab/removal.ts';
import { type Place, Topology, type TopologyOptions } from '../../src/lab/topology.ts';
import { type Child, lines, run, start } from '../../src/linux/run.ts';

/** Containers that reach each other by plain routes between the hosts. */
async function attachWithDirectRoutes(topology: Topology): Promise<void> {
  for (const host of topology.hosts) {
    const subnet = prefix4(ipv4Of(0x0af40000 + ((host.index + 1) << 8)), 24);
    await topology.attachContainers(host, { subnet, gateway: ipv4Of(subnet.addr + 1), mtuBytes: 1500 });
  }
  for (const host of topology.hosts) {
    const others = topology.hosts.filter((other) => other !== host);
    const routes = others.map(
      (other) => `route add ${formatPrefix4(other.network!.subnet)} via ${formatIpv4(other.address)}\n`,
    );
    await topology.ipBatch(host, routes.join(''));
  }
}

async function linkNames(): Promise<string> {
  return (await run(['ip', '-o', 'link', 'show'])).stdout.replace(/state \w+/g, '');
}

interface Maker {
  readonly maker: Child;
  readonly id: string;
  /** Of a program in it. */
  readonly pid: number;
}

/** Another process with a lab. */
async function startMaker(options: Partial<TopologyOptions>): Promise<Maker> {
  const module = new URL('../../src/lab/topology.ts', import.meta.url).href;
  const script = `import { Topology } from ${JSON.stringify(module)};
    const options = ${JSON.stringify({ hosts: 2, purpose: 'test', ...options })};
    const topology = await Topology.create(options);
    const log = topology.stateDirectory + '/sleep.log';
    const child = await topology.startLogged(topology.hosts[0], ['sleep', '600'], log);
    console.log(topology.id, child.pid);
    setInterval(() => {}, 1000);`;
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', '--input-type=module'];
  const maker = await start([...node, '-e', script]);
  for await (const line of lines(maker.stdout!)) {
    const [id, pid] = line.split(' ');
    return { maker, id: id!, pid: Number(pid) };
  }
  throw new Error(maker.tail());
}

describe('Topology', () => {
  it('makes hosts and containers that reach each other, and leaves nothing behind', async () => {
    const before = await linkNames();
    const topology = await Topology.create({ hosts: 3, underlay: 'wire', purpose: 'test' });
    {
      await using _ = topology;
      await attachWithDirectRoutes(topology);
      assert.equal(await linkNames(), before, 'the namespace of the machine is untouched');
      for (const from of topology.containers) {
        for (const to of topology.containers) {
          await topology.exec(from, ['ping', '-n', '-q', '-c', '1', '-W', '2', formatIpv4(to.address!)]);
        }
      }
      const features = await topology.exec(topology.hosts[0]!, ['ethtool', '-k', 'eth0']);
      assert.match(features.stdout, /^tcp-segmentation-offload: off/m);
      assert.match(features.stdout, /^generic-receive-offload: on/m);
      assert.equal(existsSync(topology.hosts[2]!.stateDirectory), true);
    }
    for (const name of namespacesOf(topology.plan)) assert.equal(existsSync(`/run/netns/${name}`), false, name);
    assert.equal(readRecord(topology.id), undefined);
    assert.equal(existsSync(topology.stateDirectory), false);
  });

  it('cuts packets in the switch, when that is the underlay, and not at the hosts', async () => {
    await using topology = await Topology.create({ hosts: 2, underlay: 'switch', purpose: 'test' });
    await attachWithDirectRoutes(topology);
    const [host, other] = topology.hosts;
    const [from, to] = [host!.containers[0]!, other!.containers[0]!];
    await topology.exec(from, ['ping', '-n', '-q', '-c', '1', '-W', '2', formatIpv4(to.address!)]);
    const features = async (place: Place, device: string): Promise<string> =>
      (await topology.exec(place, ['ethtool', '-k', device])).stdout;
    for (const { switchPort } of topology.hosts) {
      assert.match(await features(topology.plan.switchNamespace, switchPort), /^tcp-segmentation-offload: off/m);
    }
    assert.match(await features(host!, 'eth0'), /^tcp-segmentation-offload: on/m);
    assert.match(await features(host!, 'eth0'), /^generic-receive-offload: on/m);
  });

  it('removes what it made when it is aborted half way', async () => {
    const id = `t${process.pid.toString(36)}abort`;
    const controller = new AbortController();
    const creating = Topology.create({ hosts: 20, id, purpose: 'test' }, controller.signal);
    // The first namespaces exist, or all do: whichever, none may remain.
    const poll = setInterval(() => {
      if (existsSync(`/run/netns/weft-${id}-net`)) controller.abort(new Error('enough'));
    }, 1);
    await assert.rejects(creating, /enough/).finally(() => clearInterval(poll));
    const { stdout } = await run(['ip', 'netns', 'list']);
    assert.doesNotMatch(stdout, new RegExp(`weft-${id}-`));
    assert.equal(readRecord(id), undefined);
  });

  it('refuses an id that is in use, and does no harm to its owner', async () => {
    await using first = await Topology.create({ hosts: 1, purpose: 'test' });
    await assert.rejects(Topology.create({ hosts: 1, id: first.id, purpose: 'test' }), { code: 'WEFT_LAB_FAILED' });
    await first.exec(first.hosts[0]!, ['true']);
    assert.ok(readRecord(first.id));
  });

  it('can be removed after its maker was killed, processes included', async () => {
    const { maker, id, pid } = await startMaker({ staysAfterCrash: true });
    maker.kill('SIGKILL');
    await maker.exited;
    assert.ok(identifyProcess(pid), `the sleep goes on: ${maker.tail()}`);
    const record = readRecord(id)!;
    assert.equal(record.namespaces.length, 7);
    // Crashed before the pid was known: found in the namespace by its command line.
    const nameless = { ...record, processes: record.processes.map(({ argv }) => ({ argv })) };
    const bystander = await start(['sleep', '601'], { netns: record.namespaces[1] });
    await using _ = bystander;
    await removeLab(nameless);
    assert.equal(identifyProcess(pid), undefined);
    assert.ok(identifyProcess(bystander.pid), 'a process that is not on record is left alone');
    assert.equal(readRecord(id), undefined);
    assert.equal(existsSync(stateDirectoryOf(id)), false);
    for (const name of record.namespaces) assert.equal(existsSync(`/run/netns/${name}`), false, name);
    await removeLab(record);
  });

  it('is removed by whoever makes the next one when its maker was killed, and otherwise left alone', async () => {
    const registryDirectory = mkdtempSync(join(tmpdir(), 'weft-labs-'));
    await using cleanup = new AsyncDisposableStack();
    cleanup.defer(() => rmSync(registryDirectory, { recursive: true }));
    const make = async (options: Partial<TopologyOptions> = {}): Promise<Maker> => {
      const made = await startMaker({ hosts: 1, registryDirectory, ...options });
      cleanup.defer(async () => {
        await made.maker[Symbol.asyncDispose]();
        const record = readRecord(made.id, registryDirectory);
        if (record !== undefined) await removeLab(record, registryDirectory);
      });
      return made;
    };
    const kill = async ({ maker }: Maker): Promise<void> => {
      maker.kill('SIGKILL');
      await maker.exited;
    };
    const [alive, kept, elsewhere, old, abandoned] = await Promise.all([
      make(),
      make({ staysAfterCrash: true }),
      make(),
      make(),
      make(),
    ]);
    for (const one of [kept, elsewhere, old, abandoned]) await kill(one);
    // Its pid says nothing here; and one that an earlier version has made may have been kept.
    const change = (id: string, more: object): void => {
      const path = join(registryDirectory, `${id}.json`);
      writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...more }));
    };
    const { pid, startTicks } = readRecord(elsewhere.id, registryDirectory)!.owner;
    change(elsewhere.id, { owner: { pid, startTicks, pidNamespace: 1 } });
    change(old.id, { owner: { pid, startTicks }, staysAfterCrash: undefined });
    await (await Topology.create({ hosts: 1, purpose: 'test', registryDirectory }))[Symbol.asyncDispose]();
    const left = [alive, kept, elsewhere, old].map(({ id }) => id);
    assert.deepEqual(listLabIds(registryDirectory), left.toSorted());
    for (const { id, pid: program } of [alive, kept, elsewhere, old]) {
      assert.ok(existsSync(`/run/netns/weft-${id}-h1`));
      assert.ok(identifyProcess(program));
    }
    assert.equal(existsSync(`/run/netns/weft-${abandoned.id}-h1`), false);
    assert.equal(identifyProcess(abandoned.pid), undefined);
  });

  it('returns when a large process that ignores SIGTERM is gone, not when it was killed', async () => {
    const topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
    await using _ = topology;
    const script = `process.on('SIGTERM', () => {}); globalThis.all = Buffer.alloc(2 ** 30, 1); console.log('ready'); setInterval(() => {}, 1000);`;
    const large = await start([process.execPath, '-e', script]);
    await using __ = large;
    for await (const line of lines(large.stdout!)) if (line === 'ready') break;
    const { argv, startTicks } = identifyProcess(large.pid)!;
    const record = readRecord(topology.id)!;
    record.processes.push({ argv: [...argv], pid: large.pid, startTicks });
    await removeLab(record);
    assert.equal(identifyProcess(large.pid), undefined);
  });

  it('does not end a process that took over a recorded pid', async () => {
    const topology = await Topology.create({ hosts: 1, containersPerHost: 0, purpose: 'test' });
    await using _ = topology;
    const other = await start(['sleep', '602']);
    await using __ = other;
    const record = readRecord(topology.id)!;
    const startTicks = identifyProcess(other.pid)!.startTicks;
    record.processes.push({ argv: ['sleep', '603'], pid: other.pid, startTicks });
    record.processes.push({ argv: ['sleep', '602'], pid: other.pid, startTicks: startTicks - 1 });
    await removeLab(record);
    assert.ok(identifyProcess(other.pid));
  });
});
