/**
 * Run in a network namespace: reads the firewall, again when nothing has changed, after another firewall has been made, and after that
 * has gone. Prints what each reading did, as JSON. For rules-unchanged.test.ts.
 */
import { readFile } from 'node:fs/promises';
import { FirewallReader } from '../../src/linux/firewall-text.ts';
import { run } from '../../src/linux/run.ts';
import { traceTo } from '../../src/trace.ts';

/** How many programs a reading ran, and whether it found the other firewall. */
export interface Reading {
  readonly programs: number;
  readonly found: boolean;
}

const CHANGES = [
  [],
  [],
  ['nft', 'add', 'chain', 'inet', 'others', 'forward', '{ type filter hook forward priority 0; policy drop; }'],
  [],
  ['nft', 'delete', 'table', 'inet', 'others'],
];
const reader = new FirewallReader((path) => readFile(path, 'utf8'));
const readings: Reading[] = [];
let programs = 0;
traceTo(() => programs++);
await run(['nft', 'add', 'table', 'inet', 'others']);
for (const change of CHANGES) {
  if (change.length > 0) await run(change);
  programs = 0;
  const { nft } = await reader.read(AbortSignal.timeout(30_000));
  readings.push({ programs, found: nft.some((text) => text.includes('"policy": "drop"')) });
}
process.stdout.write(JSON.stringify(readings));
