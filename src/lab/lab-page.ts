/** What the page of a kept lab needs on disk, and the process that serves it. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { isSea } from 'node:sea';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { API_SOCKET_NAME } from '../config/agent-sockets.ts';
import { WeftError } from '../errors.ts';
import { formatIpv4 } from '../ip/ipv4.ts';
import { logTail } from './agent.ts';
import type { LabResult } from './lab-result.ts';
import { readRecord, stateDirectoryOf } from './registry.ts';
import type { LabHost, Topology } from './topology.ts';

const READY_MS = 20_000;
const POLL_MS = 50;
/** A few packets a second between neighbours: something to look at. */
const PING_SECONDS = '0.2';

/** Of a host's agent. */
export function apiSocketOf(host: { readonly stateDirectory: string }): string {
  return join(host.stateDirectory, API_SOCKET_NAME);
}

function resultFile(stateDirectory: string): string {
  return join(stateDirectory, 'result.json');
}

/** Keeps what the run has found for {@link readKeptLab}. @param stateDirectory of the lab. */
export function writeLabResult(result: LabResult, stateDirectory: string): void {
  writeFileSync(resultFile(stateDirectory), JSON.stringify(result), { mode: 0o600 });
}

/**
 * What a lab that was kept has found, and the sockets of its agents.
 *
 * @throws WeftError WEFT_USAGE when there is no such lab, or when its run has not ended.
 */
export function readKeptLab(
  id: string,
  registry?: string,
): { readonly result: LabResult; readonly sockets: ReadonlyMap<string, string> } {
  const stateDirectory = readRecord(id, registry) === undefined ? undefined : stateDirectoryOf(id, registry);
  if (stateDirectory === undefined || !existsSync(resultFile(stateDirectory))) {
    throw new WeftError('WEFT_USAGE', `there is no kept lab ${id} on this machine`, {
      hint: 'weft lab --keep makes one and prints its id.',
    });
  }
  const result = JSON.parse(readFileSync(resultFile(stateDirectory), 'utf8')) as LabResult;
  const sockets = new Map(
    result.hosts.map(({ name }) => [name, apiSocketOf({ stateDirectory: join(stateDirectory, name) })]),
  );
  return { result, sockets };
}

/**
 * Starts `weft ui` for a lab that is kept, detached, and a little traffic between neighbouring hosts. Returns the address.
 *
 * @param open also in a browser.
 * @throws WeftError WEFT_LAB_FAILED with the end of its log when it does not come up.
 */
export async function startLabPage(topology: Topology, open: boolean, signal: AbortSignal): Promise<string> {
  const logPath = join(topology.stateDirectory, 'page.log');
  const program = isSea()
    ? [process.execPath]
    : [process.execPath, fileURLToPath(new URL('../cmd/weft/main.ts', import.meta.url))];
  // The address is for root alone, as the agents' sockets are.
  writeFileSync(logPath, '', { mode: 0o600 });
  const argv = [...program, 'ui', '--lab', topology.id, '--port', '0', ...(open ? ['--open'] : [])];
  const page = await topology.startLogged(undefined, argv, logPath);
  const ended = page.exited.then(() => 'ended' as const);
  const deadline = performance.now() + READY_MS;
  for (;;) {
    const [address] = /http:\/\/127\.0\.0\.1:\d+\/\S*(?=\n)/.exec(readFileSync(logPath, 'utf8')) ?? [];
    if (address !== undefined) {
      await startTraffic(topology);
      return address;
    }
    const hasEnded = (await Promise.race([ended, sleep(POLL_MS, undefined, { signal })])) === 'ended';
    if (!hasEnded && performance.now() < deadline) continue;
    throw new WeftError(
      'WEFT_LAB_FAILED',
      `the page of the lab ${hasEnded ? 'ended' : `was not there within ${READY_MS / 1000} s`}; its log ends:\n${await logTail(logPath)}`,
    );
  }
}

async function startTraffic(topology: Topology): Promise<void> {
  const { hosts } = topology;
  await Promise.all(
    hosts.map(async (host: LabHost, index) => {
      const to = hosts[(index + 1) % hosts.length]?.containers[0]?.address;
      const [from] = host.containers;
      if (from === undefined || to === undefined) return;
      const argv = ['ping', '-q', '-n', '-i', PING_SECONDS, formatIpv4(to)];
      await topology.start(from, argv, { stdout: 'ignore', stderr: 'ignore', detached: true });
    }),
  );
}
