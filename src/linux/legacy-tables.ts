import type { IpFamily } from '../ip/address.ts';
import { run } from './run.ts';

const TIMEOUT_MS = 10_000;

/**
 * All tables of iptables-legacy in a network namespace, with counters. A kernel that has none of them says nothing, and gets none: the
 * program looks only at those in /proc/net/ip_tables_names.
 *
 * @param path what opens the namespace.
 * @throws WeftError WEFT_COMMAND_MISSING, WEFT_COMMAND_FAILED; the signal's reason.
 */
export async function readLegacyTables(path: string, family: IpFamily, signal: AbortSignal): Promise<string> {
  const program = family === 4 ? 'iptables-legacy-save' : 'ip6tables-legacy-save';
  const { stdout } = await run([program, '-c'], { netnsPath: path, timeoutMs: TIMEOUT_MS, signal });
  return stdout;
}
