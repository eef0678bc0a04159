import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { describe, it } from 'node:test';
import { formatIpv4, ipv4Of } from '../../src/ip/ipv4.ts';
import { formatPrefix4, prefix4 } from '../../src/ip/prefix.ts';
import { namespacesOf } from '../../src/lab/namespaces.ts';
import { identifyProcess } from '../../src/lab/process-identity.ts';
import { readRecord, stateDirectoryOf } from '../../src/lab/registry.ts';
import { type Place, removeLab, Topology } from '../../src/lab/topology.ts';
import { lines, run, start } from '../../src/linux/run.ts';

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
    const module = new URL('../../src/lab/topology.ts', import.meta.url).href;
    const maker = await start([
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      '--input-type=module',
      '-e',
      `import { Topology } from ${JSON.stringify(module)};
       const topology = await Topology.create({ hosts: 2, purpose: 'test' });
       const log = topology.stateDirectory + '/sleep.log';
       const child = await topology.startLogged(topology.hosts[0], ['sleep', '600'], log);
       console.log(topology.id, child.pid);
       setInterval(() => {}, 1000);`,
    ]);
    let id = '';
    let pid = 0;
    for await (const line of lines(maker.stdout!)) {
      const words = line.split(' ');
      id = words[0] ?? '';
      pid = Number(words[1]);
      break;
    }
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
