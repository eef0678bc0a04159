import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { LeaseKey } from '../../src/lease/lease.ts';
import { parseLeaseKey } from '../../src/lease/lease-codec.ts';
import { overlap } from '../../src/lease/subnets.ts';
import { type Child, lines, start } from '../../src/linux/run.ts';
import { LeaseStore } from '../../src/subnet/local/lease-store.ts';

const HOST = fileURLToPath(new URL('local-store-host.ts', import.meta.url));
const DAY_MS = 86_400_000;

interface Claim {
  readonly host: number;
  readonly key: LeaseKey;
  readonly expiresAtMs: number;
}

/** mulberry32: a generator that can be started from a seed again. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Crashes {
  readonly hosts: number;
  readonly subnets: number;
  readonly leaseTtlMs: number;
  /** At least that many, and then until `enough`. */
  readonly kills: number;
  readonly enough: () => boolean;
}

/**
 * Runs hosts on one store that does not exist yet, kills them with SIGKILL at random moments and starts them again.
 * Every claim is handed to `judge` in the order in which this process read them.
 */
async function crash(
  t: TestContext,
  options: Crashes,
  judge: (claim: Claim) => void,
  finish: (store: LeaseStore) => void,
): Promise<void> {
  const seed = Number(process.env.WEFT_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`WEFT_TEST_SEED=${seed} repeats the victims and the pauses`);
  const random = randomFrom(seed);
  const folder = mkdtempSync(join(tmpdir(), 'weft-crash-'));
  const storePath = join(folder, 'leases.db');
  const netConfPath = join(folder, 'net-conf.json');
  const netConf = { Network: '10.5.0.0/16', SubnetMin: '10.5.1.0', SubnetMax: `10.5.${options.subnets}.0` };
  writeFileSync(netConfPath, JSON.stringify(netConf));
  const deadline = AbortSignal.timeout(40_000);
  const children: (Child | undefined)[] = [];
  let claims = 0;
  let kills = 0;
  let failure: Error | undefined;

  async function launch(host: number): Promise<void> {
    const argv = [process.execPath, HOST, storePath, netConfPath, String(host + 1), String(options.leaseTtlMs)];
    const child = await start(argv);
    children[host] = child;
    void (async () => {
      for await (const line of lines(child.stdout!)) {
        // What a SIGKILL cut off was never said.
        if (!line.endsWith('}')) continue;
        claims++;
        try {
          judge(JSON.parse(line) as Claim);
        } catch (error) {
          failure ??= error instanceof Error ? error : new Error(String(error));
        }
      }
      const exit = await child.exited;
      if (exit.signal !== 'SIGKILL') failure ??= new Error(`host ${host} ended by itself: ${child.tail()}`);
    })();
  }

  try {
    await Promise.all(Array.from({ length: options.hosts }, (_, host) => launch(host)));
    for (; failure === undefined && (kills < options.kills || !options.enough()); kills++) {
      const before = claims;
      // Most hosts write when they are killed, some are still starting.
      while (claims < before + 3 && failure === undefined) await delay(5, undefined, { signal: deadline });
      await delay(random() * 40);
      const victim = Math.floor(random() * options.hosts);
      children[victim]?.kill('SIGKILL');
      await children[victim]?.exited;
      await launch(victim);
    }
  } finally {
    for (const child of children) child?.kill('SIGKILL');
    await Promise.all(children.map((child) => child?.exited));
  }
  t.diagnostic(`${kills} kills, ${claims} claims`);
  try {
    if (failure !== undefined) throw failure;
    using store = LeaseStore.open(storePath);
    finish(store);
  } catch (error) {
    throw new Error(`with WEFT_TEST_SEED=${seed}, after ${claims} claims`, { cause: error });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function conflict(a: Claim, b: Claim): boolean {
  const [x, y] = [parseLeaseKey(a.key), parseLeaseKey(b.key)];
  assert.ok(x !== undefined && y !== undefined, `not lease keys: ${a.key}, ${b.key}`);
  return overlap(x, y);
}

describe('machine-local lease store under kill -9', () => {
  it('each host keeps its subnet and no other host ever has it', async (t) => {
    const held = new Map<number, Claim>();
    await crash(
      t,
      { hosts: 6, subnets: 6, leaseTtlMs: DAY_MS, kills: 40, enough: () => held.size === 6 },
      (claim) => {
        const before = held.get(claim.host);
        if (before !== undefined) assert.equal(claim.key, before.key, `host ${claim.host} changed its subnet`);
        for (const other of held.values()) {
          assert.ok(other.host === claim.host || !conflict(claim, other), `hosts ${claim.host} and ${other.host}`);
        }
        held.set(claim.host, claim);
      },
      (store) => {
        const rows = store.rows().map((row) => row.key);
        assert.deepEqual(rows, [...held.values()].map((claim) => claim.key).sort());
      },
    );
  });

  it('a subnet changes hands only after its lease has run out', async (t) => {
    const leaseTtlMs = 250;
    const last = new Map<LeaseKey, Claim>();
    const owners = new Map<LeaseKey, Set<number>>();
    await crash(
      t,
      {
        hosts: 6,
        subnets: 3,
        leaseTtlMs,
        kills: 20,
        enough: () => [...owners.values()].some((hosts) => hosts.size > 1),
      },
      (claim) => {
        const before = last.get(claim.key);
        if (before !== undefined && before.host !== claim.host) {
          // All claims are dated by the transaction that made them; lines of different hosts may arrive out of order.
          const [earlier, later] = before.expiresAtMs < claim.expiresAtMs ? [before, claim] : [claim, before];
          const from = later.expiresAtMs - leaseTtlMs;
          assert.ok(
            from >= earlier.expiresAtMs,
            `${claim.key}: host ${later.host} ${earlier.expiresAtMs - from} ms early`,
          );
        }
        if (before === undefined || before.expiresAtMs < claim.expiresAtMs) last.set(claim.key, claim);
        owners.set(claim.key, (owners.get(claim.key) ?? new Set()).add(claim.host));
      },
      () => {
        assert.ok(
          [...owners.values()].some((hosts) => hosts.size > 1),
          'no subnet ever changed hands',
        );
      },
    );
  });
});
