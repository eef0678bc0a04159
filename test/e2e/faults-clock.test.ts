import assert from 'node:assert/strict';
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import type { Topology } from '../../src/lab/topology.ts';
import { faketimeLibrary } from './faketime.ts';
import { FaultNet, RECOVERY_MS, timed } from './fault-net.ts';
import { type FaultStore, startEtcd, startLocal } from './fault-store.ts';

/** Agents of which somebody sets the clock, all at once. */
async function withClock(
  startStore: (topology: Topology) => Promise<FaultStore>,
  body: (net: FaultNet, setClock: (offset: string) => Promise<void>) => Promise<void>,
): Promise<void> {
  let path = '';
  const setClock = async (offset: string): Promise<void> => {
    await writeFile(`${path}.new`, `${offset}\n`);
    await rename(`${path}.new`, path);
  };
  const prepare = async (topology: Topology): Promise<FaultStore> => {
    path = join(topology.stateDirectory, 'clock');
    await setClock('+0');
    return startStore(topology);
  };
  await using net = await FaultNet.create(2, prepare, {
    under: () => [
      'env',
      `LD_PRELOAD=${faketimeLibrary()}`,
      `FAKETIME_TIMESTAMP_FILE=${path}`,
      'FAKETIME_NO_CACHE=1',
      'FAKETIME_DONT_FAKE_MONOTONIC=1',
    ],
  });
  await body(net, setClock);
}

describe('the clock of the hosts is set', () => {
  const stores = [startEtcd, startLocal];
  for (const startStore of stores) {
    it(`forward beyond the end of every lease and back again, ${startStore.name}`, async (t: TestContext) => {
      await withClock(startStore, async (net, setClock) => {
        for (const [offset, words] of [
          ['+2d', 'two days forward'],
          ['-60d', 'two months back'],
          ['+0', 'right again'],
        ] as const) {
          const row = await net.row(t, `clock set ${words}`, async (flow) => {
            const marks = net.members.map(({ agent }) => agent.log.mark);
            await setClock(offset);
            // Connections that break make every agent look at its lease again, by the new clock.
            for (const { way } of net.members) way.cut();
            for (const { way } of net.members) way.heal();
            return timed(async () => {
              await net.heardOf();
              await flow.flowing(RECOVERY_MS);
              for (const [index, { agent }] of net.members.entries()) {
                const said = agent.messages.slice(marks[index]);
                assert.ok(said.length < 50, `h${index + 1} says too much:\n${said.slice(0, 50).join('\n')}`);
              }
            });
          });
          assert.equal(row.leasesLost, 0);
        }
      });
    });
  }
});
