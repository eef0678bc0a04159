import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { formatIpv4 } from '../../src/ip/ipv4.ts';
import { formatPrefix4 } from '../../src/ip/prefix.ts';
import type { LabHost } from '../../src/lab/topology.ts';
import { withoutReversePathFilter } from './arrivals.ts';
import { addressOf, Overlay, ping } from './overlay.ts';
import { PORT } from './tunnel.ts';
import { eventually } from './waiting.ts';

const ELASTIC = '192.168.77.222';

describe('a node whose datagrams come from another address than it has published', () => {
  let overlay: Overlay;
  let receiver: LabHost;
  let sender: LabHost;

  before(async () => {
    overlay = await Overlay.create({ hosts: 2, containersPerHost: 1 }, AbortSignal.timeout(120_000));
    const { topology } = overlay;
    [receiver, sender] = topology.hosts as unknown as [LabHost, LabHost];
    for (const host of topology.hosts) await withoutReversePathFilter(topology, host);
    await topology.ipBatch(sender, `address add ${ELASTIC}/32 dev eth0\n`);
    const nat = ['-p', 'udp', '--dport', String(PORT), '-j', 'SNAT', '--to-source', ELASTIC];
    await topology.exec(sender, ['iptables', '-t', 'nat', '-I', 'POSTROUTING', '1', ...nat]);
  });
  after(() => overlay?.[Symbol.asyncDispose]());

  const pings = () =>
    ping(overlay.topology, overlay.topology.containers[1]!, addressOf(overlay.topology.containers[0]!));

  it('is named in the log of who refuses it, with its lease and what to do; metrics and doctor say so too', async () => {
    assert.equal((await pings()).ok, false);
    const lease = formatPrefix4(overlay.agents[sender.index]!.network.subnet);
    const line = await eventually('a line about it', async () =>
      (await overlay.log(receiver)).split('\n').find((text) => text.includes(`from ${ELASTIC} (unknown-source)`)),
    );
    assert.ok(line.includes(`is of ${lease}, which ${formatIpv4(sender.address)} has leased`), line);
    assert.ok(line.includes(`--public-ip=${ELASTIC}`), line);
    assert.match(await overlay.ask(receiver, '/metrics'), /^weft_refused_senders\{reason="unknown-source"\} 1$/m);
    const check = await overlay.examine(receiver, 'refused-senders');
    assert.equal(check.status, 'warn');
    assert.ok(check.found.includes(ELASTIC), check.found);
  });

  it('is spoken of once, however many packets come', async () => {
    for (let count = 0; count < 3; count++) await pings();
    await eventually('they are counted', async () =>
      Number(/Dropped (\d+) packets/.exec(await overlay.ask(receiver, '/refusals'))?.[1] ?? 0) >= 4 ? true : undefined,
    );
    const lines = (await overlay.log(receiver)).split('\n').filter((text) => text.includes(`from ${ELASTIC} (`));
    assert.equal(lines.length, 1);
  });

  it('is heard once it does what the line says', async () => {
    const { child } = overlay.agents[sender.index]!;
    child.kill('SIGTERM');
    await child.exited;
    await overlay.startAgent(sender, AbortSignal.timeout(60_000), [`--public-ip=${ELASTIC}`]);
    await eventually('packets pass', async () => (await pings()).ok || undefined);
  });
});
