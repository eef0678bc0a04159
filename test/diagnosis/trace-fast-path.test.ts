import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, it } from 'node:test';
import { readPcapng } from '../fakes/pcapng-reader.ts';
import { folderOnBpffs } from '../netns/bpffs.ts';
import { weft } from '../netns/lab-command.ts';
import { addressOf, ping } from '../netns/overlay.ts';
import { eventuallyHolds, LineFeed } from '../netns/waiting.ts';
import { drop, stops, TraceBed } from './trace-bed.ts';

const signal = AbortSignal.timeout(600_000);
const NETWORK = '10.244.0.0/16';
const stack = new AsyncDisposableStack();
let folder: string;

before(async () => {
  folder = await folderOnBpffs(stack);
});
after(() => stack.disposeAsync());

/** The rule that the far host has for it, and that tells nobody. */
async function namesForwardRule(bed: TraceBed, device: string): Promise<void> {
  const fault = { at: bed.host(1), ...drop('forward', `ip daddr ${bed.to}`) };
  const { rule } = await bed.names(fault, [addressOf(bed.from), bed.to], {
    ...{ outcome: 'lost', host: bed.farAddress, hop: `host ${device}`, reason: 'netfilter' },
  });
  assert.equal(rule?.text, `ip daddr ${bed.to} drop`);
}

it('weft trace shows the hops of the fast path by tcx, which leave out the devices that it passes by', async () => {
  const flags = ['--fast-path', 'auto', '--fast-path-in', 'off', '--fast-path-dir', folder];
  await using bed = await TraceBed.create({ Network: NETWORK, Backend: { Type: 'udp' } }, flags);
  await eventuallyHolds(async () => {
    const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to);
    const text = JSON.stringify(report, undefined, 1);
    assert.deepEqual([exitCode, report.verdict.outcome], [0, 'answered'], text);
    const far = bed.farAddress;
    const request = stops(report, 'request').filter((stop) => !stop.includes('veth'));
    const wanted = [
      'this host cni0 in',
      'this host eth0 out',
      `${far} eth0 in`,
      `${far} flannel0 in`,
      `${far} cni0 out`,
    ];
    assert.deepEqual(request.slice(1, -1), wanted, text);
    const wire = report.hops.find(({ device, leg, host }) => device === 'eth0' && leg === 'request' && host === far)!;
    assert.match(wire.inner!.text, new RegExp(`> ${bed.to} icmp echo`));
  });
  await namesForwardRule(bed, 'flannel0');
});

it('with XDP, the way in begins without the tunnel’s headers, and weft capture has those packets', async () => {
  const flags = ['--fast-path', 'auto', '--fast-path-in', 'xdp', '--fast-path-dir', folder];
  await using bed = await TraceBed.create({ Network: NETWORK, Backend: { Type: 'udp' } }, flags);
  await eventuallyHolds(async () => {
    const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to);
    const text = JSON.stringify(report, undefined, 1);
    assert.equal(exitCode, 0, text);
    const arrived = report.hops.find(
      ({ host, device, leg }) => host === bed.farAddress && device === 'eth0' && leg === 'request',
    );
    assert.deepEqual([arrived?.direction, arrived?.inner], ['in', undefined], text);
    assert.match(arrived!.packet.text, new RegExp(`> ${bed.to} icmp echo`), text);
  });
  await namesForwardRule(bed, 'flannel0');

  const host = bed.host(1);
  const file = join(host.stateDirectory, 'capture.pcapng');
  const { topology } = bed.overlay;
  await eventuallyHolds(async () => {
    const words = ['capture', '--subnet-file', `${host.stateDirectory}/subnet.env`, '-o', file, '--force'];
    // What a peer is called is the same in all commands.
    const filter = ['icmp', 'and', 'peer', addressOf(bed.from)];
    await using child = await topology.start(host, [...weft, ...words, ...filter], {
      ...{ stdout: 'ignore', stderr: 'pipe', signal },
    });
    const feed = new LineFeed(child.stderr!);
    await feed.find((text) => text.includes('XDP removes the tunnel’s headers from packets that eth0 receives'));
    await feed.find((text) => text.startsWith('weft capture: on '));
    assert.ok((await ping(topology, bed.from, bed.to)).ok);
    child.kill('SIGINT');
    assert.equal((await child.exited).code, 0);
    const { packets } = readPcapng(await readFile(file));
    const seen = packets.map((packet) => `${packet.interface} ${packet.direction}`);
    assert.deepEqual(seen.toSorted(), [
      ...['cni0 inbound', 'cni0 outbound', 'eth0 inbound', 'eth0 outbound', 'flannel0 inbound'],
    ]);
    const [arrived] = packets.filter((packet) => packet.interface === 'eth0' && packet.direction === 'inbound');
    assert.match(arrived!.comment!, /^from 192\.168\.77\.1 \(.*; XDP has removed the tunnel’s headers$/);
  });
});

it('weft trace shows the hops of vxlan, and the rule that drops its datagrams', async () => {
  await using bed = await TraceBed.create({ Network: NETWORK, Backend: { Type: 'vxlan' } });
  const { report, exitCode } = await bed.trace(addressOf(bed.from), bed.to);
  assert.equal(exitCode, 0, JSON.stringify(report, undefined, 1));
  const request = stops(report, 'request');
  for (const wanted of ['this host flannel.1 out', 'this host eth0 out', `${bed.farAddress} flannel.1 in`])
    assert.ok(request.includes(wanted), `${wanted} of ${request.join(', ')}`);
  const wire = report.hops.find(({ host, inner }) => host === 'this host' && inner !== undefined)!;
  assert.match(wire.packet.text, /> 192\.168\.77\.2:8472 udp/);
  await namesForwardRule(bed, 'flannel.1');
  const closed = { at: bed.host(1), ...drop('input', 'udp dport 8472') };
  const { rule } = await bed.names(closed, [addressOf(bed.from), bed.to], {
    ...{ outcome: 'lost', host: bed.farAddress, hop: 'host eth0', reason: 'netfilter' },
  });
  assert.equal(rule?.text, 'udp dport 8472 drop');
});
