/** What an agent's fast path keeps in a bpffs, looked at from outside; there need not be an agent now. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { FastPathTables } from '../../src/dataplane/fast-path/fast-path-tables.ts';
import { COUNTER_VALUE_BYTES, type MapName, RX_PACKETS, TX_PACKETS } from '../../src/dataplane/fast-path/layout.ts';
import type { LabHost, Topology } from '../../src/lab/topology.ts';
import { createFastPathTables } from '../../src/linux/fast-path/programs.ts';

/** Where that host's fast path is kept below `root`. */
export async function keptDirectory(topology: Topology, root: string, host: LabHost): Promise<string> {
  const { stdout } = await topology.exec(host, ['stat', '-Lc', '%i', '/proc/self/ns/net']);
  return join(root, `netns-${stdout.trim()}-flannel0`);
}

/** Whether programs are kept there. */
export const isKept = (directory: string): boolean => existsSync(join(directory, 'in'));

/** What the programs have counted since the agent that runs, or ran last, has started. Programs must be kept there. */
export function keptCount(directory: string, direction: typeof TX_PACKETS | typeof RX_PACKETS): number {
  using tables = createFastPathTables(directory, 4);
  return countIn(tables, direction);
}

function countIn({ maps: { counters } }: FastPathTables, direction: number): number {
  const value = new DataView(new ArrayBuffer(COUNTER_VALUE_BYTES));
  let packets = 0;
  for (const key of counters.keys()) {
    counters.lookup(key, new Uint8Array(value.buffer));
    packets += Number(value.getBigUint64(direction, true));
  }
  return packets;
}

export interface KeptFigures {
  readonly tx: number;
  readonly rx: number;
  /** How many keys each map has. */
  readonly keys: Readonly<Record<MapName, number>>;
}

/** All of that at once. */
export function keptFigures(directory: string): KeptFigures {
  using tables = createFastPathTables(directory, 4);
  const keys = Object.entries(tables.maps).map(([name, map]) => [name, map.keys().length] as const);
  return {
    tx: countIn(tables, TX_PACKETS),
    rx: countIn(tables, RX_PACKETS),
    keys: Object.fromEntries(keys) as Record<MapName, number>,
  };
}
