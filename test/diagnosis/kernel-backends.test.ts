import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { ClusterReport } from '../../src/cmd/weft/cluster-test.ts';
import { eventually, eventuallyHolds } from '../netns/waiting.ts';
import { Bed, type Fault, proveInTime } from './bed.ts';
import { nft, unbroken } from './faults-udp.ts';

const PORT = 8_287;

/** What only goes through the overlay is lost before it reaches b; what b sends arrives. */
const BLOCKED: Readonly<Record<string, string>> = { vxlan: 'udp dport 8472 drop', 'host-gw': 'ip daddr B_NET drop' };

for (const backend of ['vxlan', 'host-gw']) {
  describe(`weft test with the backend ${backend}`, () => {
    const directory = mkdtempSync(join(tmpdir(), 'weft-pairs-'));
    const tokenFile = join(directory, 'token');
    writeFileSync(tokenFile, 'token-of-the-agents-16\n');
    let bed: Bed;
    before(async () => {
      const flags = ['--api-listen', `:${PORT}`, '--api-token-file', tokenFile];
      bed = await Bed.create(backend, AbortSignal.timeout(600_000), flags);
    });
    after(async () => {
      await bed?.[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true });
    });
    const pairs = (): Promise<ClusterReport> => bed.testPairs('a', PORT, tokenFile);

    const faults: readonly Fault[] = [
      {
        name: 'a firewall in one direction',
        inject: { b: nft('netdev', 'ingress', BLOCKED[backend]!) },
        heal: { b: unbroken('netdev') },
        ...{ at: 'a', where: 'b', faults: ['one-way', 'tunnel-blocked'] },
      },
      {
        name: 'a silent middlebox: long packets vanish before a peer',
        inject: { b: nft('netdev', 'ingress', 'meta length > 1314 drop') },
        heal: { b: unbroken('netdev') },
        ...{ at: 'a', where: 'b', faults: ['mtu-blackhole'] },
      },
    ];

    it('finds nothing wrong where nothing is', () => bed.healthy('a'));

    // faults-vxlan.ts has those of vxlan.
    for (const fault of backend === 'vxlan' ? [] : faults) it(`names ${fault.name}`, (t) => proveInTime(t, bed, fault));

    it('asks the agents of all hosts about each pair, and names the direction that is broken', async () => {
      await eventuallyHolds(async () => {
        const { ok, pairs: all, nodes } = await pairs();
        assert.deepEqual([ok, nodes.length, all.length], [true, 3, 6]);
        assert.deepEqual(new Set(all.map(({ status }) => status)), new Set(['ok']));
      });
      await bed.run(faults[0]!.inject);
      const found = await eventually('both directions to b are named', async () => {
        const report = await pairs();
        const broken = report.pairs.filter(({ status }) => status === 'broken');
        return broken.some(({ from }) => from === 'a') && broken.some(({ from }) => from === 'c') ? report : undefined;
      });
      assert.equal(found.ok, false);
      for (const { from, to, status, path, problem } of found.pairs) {
        // Answers to b are lost as well: whatever has to do with b may be broken, and nothing else is.
        if (from !== 'b' && to !== 'b') assert.equal(status, 'ok', `${from} → ${to}`);
        if (to !== 'b') continue;
        assert.equal(path, backend === 'vxlan' ? 'vxlan' : 'direct');
        assert.match(problem?.fault ?? '', /^(one-way|tunnel-blocked)$/);
        assert.notEqual(problem?.remedy, '');
      }
      await bed.run(faults[0]!.heal);
    });
  });
}
