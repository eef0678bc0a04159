import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { describe, it } from 'node:test';
import { carriedBy, flowOf } from '../../src/capture/flow.ts';
import { formatAddr } from '../../src/ip/address.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { type ReadCapture, type ReadPacket, readPcapng } from '../fakes/pcapng-reader.ts';
import { weft } from '../netns/lab-command.ts';
import { addressOf, Overlay, ping } from '../netns/overlay.ts';
import { eventuallyHolds, LineFeed } from '../netns/waiting.ts';

const signal = AbortSignal.timeout(600_000);
const PINGS = 4;

function commandOf(at: LabHost, ...words: string[]): string[] {
  return [...weft, 'capture', '--subnet-file', `${at.stateDirectory}/subnet.env`, ...words];
}

/** Captures while `work` runs; the file, and what was said at the end. */
async function captureDuring(
  overlay: Overlay,
  at: LabHost,
  filter: readonly string[],
  work: () => Promise<void>,
): Promise<{ readonly read: ReadCapture; readonly said: string; readonly file: string }> {
  const file = `${at.stateDirectory}/capture.pcapng`;
  await using child = await overlay.topology.start(at, commandOf(at, '-o', file, '--force', ...filter), {
    stdout: 'ignore',
    stderr: 'pipe',
    signal,
  });
  const feed = new LineFeed(child.stderr!);
  await feed.find((text) => text.startsWith('weft capture: on '));
  await work();
  child.kill('SIGINT');
  assert.equal((await child.exited).code, 0, feed.seen.map(({ text }) => text).join('\n'));
  const said = await feed.find((text) => text.includes('dropped by the kernel'));
  return { read: readPcapng(await readFile(file)), said: said.text, file };
}

const inner = (link: 'raw' | 'ethernet', { bytes }: ReadPacket) => flowOf(link, bytes)!;

/** `device direction` of each of these packets, counted. */
function counted(packets: readonly ReadPacket[]): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { interface: device, direction } of packets)
    found[`${device} ${direction}`] = (found[`${device} ${direction}`] ?? 0) + 1;
  return found;
}

describe('weft capture', () => {
  it('has each ping inside and outside the tunnel exactly once, with and without the fast path', async () => {
    await using overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native' }, signal);
    const [here, there] = overlay.topology.hosts as [LabHost, LabHost];
    const [from, to] = [here.containers[0]!, there.containers[0]!];
    const filter = ['icmp', 'and', 'host', addressOf(from), 'and', 'host', addressOf(to)];
    const pings = async (): Promise<void> => {
      const { ok, output } = await ping(overlay.topology, from, addressOf(to), '-c', String(PINGS), '-i', '0.2');
      assert.ok(ok, output);
    };
    await eventuallyHolds(async () => pings());

    const slow = await captureDuring(overlay, here, filter, pings);
    assert.deepEqual(counted(slow.read.packets), {
      'cni0 inbound': PINGS,
      'flannel0 outbound': PINGS,
      'eth0 outbound': PINGS,
      'eth0 inbound': PINGS,
      'flannel0 inbound': PINGS,
      'cni0 outbound': PINGS,
    });
    assert.match(slow.said, /^weft capture: flannel0 8, cni0 8, eth0 8 packets; 0 dropped by the kernel$/);
    assert.deepEqual(
      slow.read.interfaces.map(({ name, description, linkType, exponent }) => [name, description, linkType, exponent]),
      [
        ['flannel0', 'overlay', 101, 9],
        ['cni0', 'containers', 1, 9],
        ['eth0', 'underlay', 1, 9],
      ],
    );
    assert.deepEqual(
      slow.read.statistics.map(({ interface: device, dropped }) => [device, dropped]),
      [
        ['flannel0', 0],
        ['cni0', 0],
        ['eth0', 0],
      ],
    );
    const subnet = formatPrefix4(there.network!.subnet);
    for (const packet of slow.read.packets) {
      const isRequest = packet.interface === 'cni0' ? packet.direction === 'inbound' : packet.direction === 'outbound';
      assert.equal(packet.comment, `${isRequest ? 'to' : 'from'} ${formatAddr(there.address)} (${subnet})`);
    }
    const times = slow.read.packets.map(({ timeNs }) => timeNs);
    assert.deepEqual(
      times,
      times.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
    );
    // The names that Wireshark shows in place of addresses.
    const hex = (addr: number): string => addr.toString(16).padStart(8, '0');
    assert.equal(slow.read.names.get(hex(there.address)), `host-${formatAddr(there.address)}`);
    assert.equal(slow.read.names.get(hex(there.network!.subnet.addr)), `host-${formatAddr(there.address)}-overlay`);
    assert.equal((await stat(slow.file)).mode & 0o777, 0o600);

    for (const host of [here, there]) {
      await overlay.agents[host.index]!.child[Symbol.asyncDispose]();
      await overlay.startAgent(host, signal, ['--fast-path=auto']);
    }
    // Out of a container the kernel redirects them before flannel0 has them; the two hosts agree on that after the first.
    const fast = await eventuallyHolds(async () => {
      const found = await captureDuring(overlay, here, filter, pings);
      assert.deepEqual(counted(found.read.packets), {
        'cni0 inbound': PINGS,
        'eth0 outbound': PINGS,
        'eth0 inbound': PINGS,
        'flannel0 inbound': PINGS,
        'cni0 outbound': PINGS,
      });
      return found;
    });
    const outside = fast.read.packets.filter(({ interface: device }) => device === 'eth0');
    for (const packet of outside) {
      const outer = inner('ethernet', packet);
      const [a, b] = packet.direction === 'outbound' ? [here, there] : [there, here];
      assert.deepEqual([outer.source, outer.destination], [a.address, b.address]);
      const addresses = [addressOf(from), addressOf(to)];
      const carried = carriedBy(outer)!;
      assert.deepEqual(
        [formatAddr(carried.source), formatAddr(carried.destination)],
        packet.direction === 'outbound' ? addresses : addresses.toReversed(),
      );
    }

    // Ends by itself, on standard output, with packets cut.
    const short = commandOf(here, '-o', '-', '--count', '6', '--snaplen', '128', ...filter);
    const file = `${here.stateDirectory}/out.pcapng`;
    const script = `"$@" > ${file} & until [ -s ${file} ]; do sleep 0.05; done; until ! kill -0 $! 2> /dev/null; do ip netns exec ${from.namespace} ping -c 1 -W 1 -s 600 ${addressOf(to)} > /dev/null; done; wait $!`;
    await overlay.topology.exec(here, ['sh', '-c', script, 'sh', ...short], { timeoutMs: 120_000, signal });
    const cut = readPcapng(await readFile(file));
    assert.equal(cut.packets.length, 6);
    assert.ok(cut.packets.every(({ bytes, originalBytes }) => bytes.length === 128 && originalBytes > 600));

    // An existing file stays as it is; what is wrong is said.
    const before = await readFile(fast.file);
    const refusals: readonly (readonly [readonly string[], number, RegExp])[] = [
      [['-o', fast.file], 1, /it exists[\s\S]*--force/],
      [['-o', fast.file, '--force', 'host', 'nowhere'], 2, /"nowhere" is no address/],
      [['-o', `${here.stateDirectory}/none/file`], 1, /cannot write the capture/],
      [['-o', here.stateDirectory, '--force'], 1, /it is not a file/],
      [['-o', fast.file, '--snaplen', '5'], 2, /want 128 to 262144/],
      [[], 2, /-o, --output/],
    ];
    for (const [words, code, text] of refusals) {
      const { exitCode, stderr } = await overlay.topology.exec(here, commandOf(here, ...words), { okExitCodes: 'any' });
      assert.equal(exitCode, code, stderr);
      assert.match(stderr, text);
    }
    assert.deepEqual(await readFile(fast.file), before);
  });

  it('with vxlan, writes a file that libpcap reads too, and what is not the tunnel’s stays out', async () => {
    const netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}';
    await using overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native', netConf }, signal);
    const [here, there] = overlay.topology.hosts as [LabHost, LabHost];
    const to = addressOf(there.containers[0]!);
    const { topology } = overlay;
    await eventuallyHolds(async () => assert.ok((await ping(topology, here.containers[0]!, to)).ok));
    const { read, file } = await captureDuring(overlay, here, [], async () => {
      assert.ok((await ping(topology, here.containers[0]!, to, '-c', String(PINGS), '-i', '0.2')).ok);
      assert.ok((await ping(topology, here, formatAddr(there.address))).ok);
    });
    for (const packet of read.packets.filter(({ interface: device }) => device === 'eth0')) {
      const outer = inner('ethernet', packet);
      assert.equal(outer.protocol, 17);
      assert.ok(outer.ports?.destination === 8472);
    }
    const { stdout } = await topology.exec(here, ['tcpdump', '-n', '-r', file]);
    const echoes = stdout.split('\n').filter((line) => line.includes(`> ${to}: ICMP echo request`));
    // On cni0, on flannel.1, and as the inner line of the datagram on eth0.
    assert.equal(echoes.length, 3 * PINGS, stdout);
  });

  it('with host-gw, has the overlay’s packets on the external interface as they are', async () => {
    const netConf = '{"Network": "10.244.0.0/16", "Backend": {"Type": "host-gw"}}';
    await using overlay = await Overlay.create({ hosts: 2, containersPerHost: 1, underlay: 'native', netConf }, signal);
    const [here, there] = overlay.topology.hosts as [LabHost, LabHost];
    const to = addressOf(there.containers[0]!);
    await eventuallyHolds(async () => assert.ok((await ping(overlay.topology, here.containers[0]!, to)).ok));
    const { read } = await captureDuring(overlay, here, ['icmp', 'and', 'host', to], async () => {
      assert.ok((await ping(overlay.topology, here.containers[0]!, to, '-c', String(PINGS), '-i', '0.2')).ok);
      assert.ok((await ping(overlay.topology, here, formatAddr(there.address))).ok);
    });
    assert.deepEqual(counted(read.packets), {
      'cni0 inbound': PINGS,
      'eth0 outbound': PINGS,
      'eth0 inbound': PINGS,
      'cni0 outbound': PINGS,
    });
    const [first] = read.packets;
    assert.equal(formatAddr(inner('ethernet', first!).destination), to);
  });
});
