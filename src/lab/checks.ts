/** What a lab does with its containers once they have a network: ordinary programs, their output read and judged. */
import { createHash, randomFillSync } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import * as v from 'valibot';
import { WeftError } from '../errors.ts';
import { formatIpv4 } from '../ip/ipv4.ts';
import { formatPrefix4 } from '../ip/prefix.ts';
import type { Lease } from '../lease/lease.ts';
import { type Child, lines } from '../linux/run.ts';
import type {
  FileResult,
  HostRoutes,
  LeaseResult,
  MtuPingResult,
  PingPair,
  PingResult,
  RouteResult,
  ThroughputResult,
} from './lab-result.ts';
import { mapLimit } from './map-limit.ts';
import { parsePing, percentile } from './ping-output.ts';
import type { LabContainer, LabHost, Topology } from './topology.ts';

/** Called as a check goes on. */
export type OnProgress = (done: number, total: number) => void;

/** Namespaces that ping at a time: enough to fill two cores, few enough that round-trip times mean something. */
const PINGING = 2;

function textOf(container: LabContainer): string {
  if (container.address === undefined) {
    throw new WeftError('WEFT_LAB_FAILED', `container ${container.name} has no address yet`);
  }
  return formatIpv4(container.address);
}

/**
 * Every container pings every other one: one shell a container, which starts one `ping` after the other. Each sends one
 * request: with several, ping waits for the last answer only twice as long as for the earlier ones, and takes what a
 * busy machine delays by a millisecond for lost.
 *
 * @param rounds echo requests a pair.
 */
export async function pingEveryPair(
  topology: Topology,
  rounds: number,
  onProgress: OnProgress,
  signal?: AbortSignal,
): Promise<PingResult> {
  const { containers } = topology;
  const byAddress = new Map(containers.map((container) => [textOf(container), container]));
  const acrossMs: number[] = [];
  let done = 0;
  const perContainer = await mapLimit(containers, PINGING, async (from) => {
    const targets = containers.filter((to) => to !== from).map(textOf);
    const loop = 'for target; do ping -n -c 1 -W 2 "$target"; done';
    const argv = ['sh', '-c', loop, 'ping-loop', ...Array.from({ length: rounds }, () => targets).flat()];
    const { stdout } = await topology.exec(from, argv, { okExitCodes: 'any', signal });
    const runs = Map.groupBy(parsePing(stdout), (run) => run.target);
    onProgress(++done, containers.length);
    return targets.map((target): PingPair => {
      const to = byAddress.get(target)!;
      const own = runs.get(target) ?? [];
      const rttMs = own.flatMap((run) => run.rttMs);
      if (to.host !== from.host) acrossMs.push(...rttMs);
      return {
        from: from.name,
        to: to.name,
        sent: own.reduce((sum, run) => sum + run.sent, 0),
        received: own.reduce((sum, run) => sum + run.received, 0),
        rttMs: summarisePair(rttMs),
      };
    });
  });
  const pairs = perContainer.flat();
  acrossMs.sort((a, b) => a - b);
  return {
    sent: pairs.reduce((sum, pair) => sum + pair.sent, 0),
    received: pairs.reduce((sum, pair) => sum + pair.received, 0),
    rttMs:
      acrossMs.length === 0
        ? null
        : {
            min: acrossMs[0]!,
            p50: percentile(acrossMs, 0.5),
            p99: percentile(acrossMs, 0.99),
            max: acrossMs.at(-1)!,
          },
    pairs,
  };
}

function summarisePair(rttMs: readonly number[]): PingPair['rttMs'] {
  if (rttMs.length === 0) return null;
  const sorted = rttMs.toSorted((a, b) => a - b);
  return { min: sorted[0]!, median: percentile(sorted, 0.5), max: sorted.at(-1)! };
}

/** A packet as long as the containers' MTU, don't-fragment set, around the ring of hosts; and one byte more, refused. */
export async function pingFullSize(topology: Topology, signal?: AbortSignal): Promise<MtuPingResult> {
  const firsts = topology.hosts.map((host) => host.containers[0]!);
  const packetBytes = Math.min(...topology.hosts.map((host) => host.network?.mtuBytes ?? 0));
  const headers = 28; // IPv4 and ICMP
  const pingOf = (bytes: number, ...flags: string[]) => [
    'ping',
    '-n',
    '-M',
    'do',
    '-s',
    String(bytes - headers),
    ...flags,
  ];
  const ping = async (from: LabContainer, to: LabContainer, bytes: number) => {
    // All at once, so that ping waits as long as its interval for the last answer.
    const argv = pingOf(bytes, '-c', '3', '-l', '3', '-i', '2', '-W', '2', textOf(to));
    const { stdout, stderr } = await topology.exec(from, argv, { okExitCodes: 'any', signal });
    return parsePing(`${stdout}\n`)[0] ?? { sent: 0, received: 0, errors: [stderr.trim()] };
  };
  const pairs = await mapLimit(firsts, PINGING, async (from, i) => {
    const to = firsts[(i + 1) % firsts.length]!;
    const { sent, received } = await ping(from, to, packetBytes);
    return { from: from.name, to: to.name, sent, received };
  });
  const argv = pingOf(packetBytes + 1, '-c', '1', '-W', '0.1', textOf(firsts[1]!));
  const larger = await topology.exec(firsts[0]!, argv, { okExitCodes: 'any', signal });
  const refusal = `${larger.stdout}${larger.stderr}`;
  return { packetBytes, pairs, largerRefused: refusal.includes('message too long') && larger.exitCode !== 0 };
}

const iperfSchema = v.object({
  intervals: v.array(v.object({ sum: v.object({ bits_per_second: v.number() }) })),
  end: v.object({
    sum_sent: v.object({ retransmits: v.optional(v.number(), 0) }),
    sum_received: v.object({ bits_per_second: v.number(), seconds: v.number() }),
  }),
});

/** One TCP stream by iperf3. */
export async function measureThroughput(
  topology: Topology,
  from: LabContainer,
  to: LabContainer,
  seconds: number,
  signal?: AbortSignal,
): Promise<ThroughputResult> {
  await using server = await topology.start(to, ['iperf3', '-s', '-1', '--forceflush'], { signal });
  await untilLine(server, 'Server listening', 'stdout');
  const argv = ['iperf3', '-c', textOf(to), '-t', String(seconds), '-i', '0.25', '-J'];
  const { stdout } = await topology.exec(from, argv, {
    okExitCodes: 'any',
    timeoutMs: (seconds + 15) * 1000,
    signal,
  });
  const parsed = v.safeParse(iperfSchema, parseJson(stdout));
  if (!parsed.success) {
    const error = v.safeParse(v.object({ error: v.string() }), parseJson(stdout));
    const text = error.success ? error.output.error : stdout.slice(0, 200);
    throw new WeftError('WEFT_LAB_FAILED', `iperf3 from ${from.name} to ${to.name} failed: ${text}`);
  }
  const { intervals, end } = parsed.output;
  return {
    from: from.name,
    to: to.name,
    seconds: end.sum_received.seconds,
    gbps: end.sum_received.bits_per_second / 1e9,
    retransmits: end.sum_sent.retransmits,
    intervalsGbps: intervals.map((interval) => interval.sum.bits_per_second / 1e9),
  };
}

const FILE_PORT = 9000;
const CHUNK_BYTES = 1 << 20;

/** A file of random bytes, sent over TCP by socat; its hash before and what the other container's reader hashed. */
export async function sendFile(
  topology: Topology,
  from: LabContainer,
  to: LabContainer,
  bytes: number,
  signal?: AbortSignal,
): Promise<FileResult> {
  const path = join(topology.stateDirectory, 'file.bin');
  try {
    const sha256 = await writeRandomFile(path, bytes, signal);
    await using receiver = await topology.start(
      to,
      ['socat', '-u', '-d', '-d', '-b', '262144', `TCP4-LISTEN:${FILE_PORT},reuseaddr`, 'STDOUT'],
      { stderr: 'pipe', signal },
    );
    await untilLine(receiver, 'listening on', 'stderr');
    // Its further notices are of no interest, but a full pipe would stop it.
    receiver.stderr!.resume();
    const hash = createHash('sha256');
    let receivedBytes = 0;
    const reading = (async () => {
      for await (const chunk of receiver.stdout! as AsyncIterable<Buffer>) {
        hash.update(chunk);
        receivedBytes += chunk.length;
      }
    })();
    const startedAt = performance.now();
    const sender = [
      'socat',
      '-u',
      '-b',
      '262144',
      `OPEN:${path},rdonly`,
      `TCP4:${textOf(to)}:${FILE_PORT},connect-timeout=5`,
    ];
    const sent = await topology.exec(from, sender, { okExitCodes: 'any', timeoutMs: 60_000, signal });
    if (sent.exitCode !== 0) {
      throw new WeftError(
        'WEFT_LAB_FAILED',
        `sending a file from ${from.name} to ${to.name} failed: ${sent.stderr.trim()}`,
      );
    }
    await reading;
    return {
      from: from.name,
      to: to.name,
      bytes,
      receivedBytes,
      sha256,
      receivedSha256: hash.digest('hex'),
      seconds: (performance.now() - startedAt) / 1000,
    };
  } finally {
    await rm(path, { force: true });
  }
}

async function writeRandomFile(path: string, bytes: number, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash('sha256');
  function* chunks(): Generator<Buffer> {
    for (let left = bytes; left > 0; left -= CHUNK_BYTES) {
      const chunk = Buffer.alloc(Math.min(left, CHUNK_BYTES));
      randomFillSync(chunk);
      hash.update(chunk);
      yield chunk;
    }
  }
  await pipeline(Readable.from(chunks()), createWriteStream(path), ...(signal === undefined ? [] : [{ signal }]));
  return hash.digest('hex');
}

/** @throws WeftError WEFT_LAB_FAILED when the output ends without such a line. */
async function untilLine(child: Child, text: string, stream: 'stdout' | 'stderr'): Promise<void> {
  const seen: string[] = [];
  for await (const line of lines(child[stream]!)) {
    if (line.includes(text)) return;
    seen.push(line);
  }
  const said = [...seen, child.tail()].join('\n').trim();
  throw new WeftError('WEFT_LAB_FAILED', `${child.argv.join(' ')} ended before it was ready: ${said}`);
}

/** Each lease with the host of this lab that it belongs to; leases of nobody here are named `?`. */
export function describeLeases(leases: readonly Lease[], hosts: readonly LabHost[]): LeaseResult[] {
  const results = leases.map((lease) => ({
    host: hosts.find((host) => host.address === lease.attrs.publicAddresses.ipv4)?.name ?? '?',
    subnet: lease.subnets.ipv4 === undefined ? '' : formatPrefix4(lease.subnets.ipv4),
    publicIp: lease.attrs.publicAddresses.ipv4 === undefined ? '' : formatIpv4(lease.attrs.publicAddresses.ipv4),
    expiresAt: lease.expiresAtMs === undefined ? null : new Date(lease.expiresAtMs).toISOString(),
  }));
  const order = new Map(hosts.map((host) => [host.name, host.index]));
  return results.sort((a, b) => (order.get(a.host) ?? hosts.length) - (order.get(b.host) ?? hosts.length));
}

const routeSchema = v.array(
  v.object({
    dst: v.string(),
    gateway: v.optional(v.string()),
    dev: v.optional(v.string(), ''),
    protocol: v.optional(v.string()),
    prefsrc: v.optional(v.string()),
  }),
);

/** The IPv4 routes of each host, in the kernel’s order. */
export async function readRoutes(topology: Topology, signal?: AbortSignal): Promise<HostRoutes[]> {
  return await mapLimit(topology.hosts, 4, async (host) => {
    const { stdout } = await topology.exec(host, ['ip', '-j', '-4', 'route', 'show'], { signal });
    const routes = v.parse(routeSchema, parseJson(stdout)).map(
      (route): RouteResult => ({
        destination: route.dst,
        gateway: route.gateway ?? null,
        device: route.dev,
        protocol: route.protocol ?? null,
        source: route.prefsrc ?? null,
      }),
    );
    return { host: host.name, routes };
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
