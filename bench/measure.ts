/** One measurement each, by programs that the field uses (iperf3, sockperf, /proc), and what a path loses by udp-load.ts. */
import { readFileSync } from 'node:fs';
import { WeftError } from '../src/errors.ts';
import { formatIpv4 } from '../src/ip/ipv4.ts';
import type { LabContainer } from '../src/lab/topology.ts';
import { lines } from '../src/linux/run.ts';
import type { BenchPath } from './paths.ts';
import { saysReady } from './says-ready.ts';
import { countUdp, datagramsReceived, LOAD, sendUdp } from './udp-load.ts';

/** A path with its load generators' servers running. */
export interface Rig extends AsyncDisposable {
  readonly path: BenchPath;
  readonly client: LabContainer;
  readonly server: LabContainer;
  readonly serverAddress: string;
  /** The process that receives TCP streams. */
  readonly receiverPid: number;
}

const SOCKPERF_PORT = 11_111;
/** Clock ticks a second of /proc (USER_HZ is 100 on every architecture that Node runs on). */
const TICKS_PER_SECOND = 100;
const BYTES_PER_GB = 1e9;

export async function createRig(path: BenchPath): Promise<Rig> {
  await using stack = new AsyncDisposableStack();
  const [client, server] = path.topology.containers as [LabContainer, LabContainer];
  const serverAddress = formatIpv4(server.address!);
  const iperf = stack.use(await path.topology.start(server, ['iperf3', '-s', '--forceflush']));
  await saysReady(iperf, /listening on/);
  stack.use(
    await path.topology.start(server, ['sockperf', 'server', '-i', serverAddress, '-p', String(SOCKPERF_PORT)], {
      stdout: 'ignore',
    }),
  );
  const shortConnections = stack.use(
    await path.topology.start(server, shortConnectionsCommand('serve', serverAddress)),
  );
  await saysReady(shortConnections, /^ready$/);
  await countUdp(path.topology, server, LOAD, AbortSignal.timeout(10_000));
  const held = stack.move();
  return {
    path,
    client,
    server,
    serverAddress,
    receiverPid: iperf.pid,
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  };
}

interface IperfSum {
  readonly bits_per_second: number;
  readonly bytes: number;
}

/** What iperf3 received over a number of streams. @param onStart is told the pid of the process that sends. */
async function iperf(
  rig: Rig,
  args: readonly string[],
  signal: AbortSignal,
  onStart?: (pid: number) => void,
): Promise<IperfSum> {
  const argv = ['iperf3', '-c', rig.serverAddress, '--json', ...args];
  const deadline = AbortSignal.any([signal, AbortSignal.timeout(60_000)]);
  await using client = await rig.path.topology.start(rig.client, argv, { signal: deadline });
  onStart?.(client.pid);
  let answer = '';
  for await (const line of lines(client.stdout!)) answer += `${line}\n`;
  const { code } = await client.exited;
  deadline.throwIfAborted();
  if (code !== 0) throw new WeftError('WEFT_LAB_FAILED', `iperf3 ended with ${code}: ${answer.slice(-500)}`);
  const sum = (JSON.parse(answer) as { end: { sum_received?: IperfSum } }).end.sum_received;
  if (sum === undefined) throw new WeftError('WEFT_LAB_FAILED', 'iperf3 reported no received bytes');
  return sum;
}

export interface TcpResult {
  readonly gbps: number;
  /** CPU seconds for each 10^9 bytes received: of the forwarding processes, and of the whole machine. */
  readonly forwarderCpuPerGb: number;
  readonly machineCpuPerGb: number;
}

export async function tcp(
  rig: Rig,
  streams: number,
  reverse: boolean,
  seconds: number,
  signal: AbortSignal,
): Promise<TcpResult> {
  const before = cpuSeconds(rig);
  const args = ['-t', String(seconds), '-P', String(streams), ...(reverse ? ['--reverse'] : [])];
  const sum = await iperf(rig, args, signal);
  const after = cpuSeconds(rig);
  const gb = sum.bytes / BYTES_PER_GB;
  return {
    gbps: sum.bits_per_second / 1e9,
    forwarderCpuPerGb: (after.forwarders - before.forwarders) / gb,
    machineCpuPerGb: (after.machine - before.machine) / gb,
  };
}

/** One TCP stream: the bytes that arrived, and the process that sent them. */
export async function tcpStream(
  rig: Rig,
  seconds: number,
  signal: AbortSignal,
): Promise<{ bytes: number; senderPid: number }> {
  let senderPid = 0;
  const { bytes } = await iperf(rig, ['-t', String(seconds)], signal, (pid) => {
    senderPid = pid;
  });
  return { bytes, senderPid };
}

export interface UdpResult {
  readonly receivedKpps: number;
  /** 0 … 1 of the packets sent. */
  readonly lost: number;
}

/** 64-byte datagrams, as many as the client can send, or `kpps` thousand a second. */
export async function udp64(
  rig: Rig,
  seconds: number,
  kpps: number | undefined,
  signal: AbortSignal,
): Promise<UdpResult> {
  const { topology } = rig.path;
  const before = await datagramsReceived(topology, rig.server, LOAD, signal);
  const to = { first: rig.server.address!, subnets: 1, hosts: 1 };
  const sent = await sendUdp(topology, rig.client, to, seconds, (kpps ?? 0) * 1000, signal);
  const received = (await datagramsReceived(topology, rig.server, LOAD, signal)) - before;
  return { receivedKpps: received / seconds / 1000, lost: 1 - received / sent };
}

export interface RoundTrips {
  /** Microseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

/** Of one UDP packet at a time, or under a load of `packetsPerSecond` packets. */
export async function roundTrips(
  rig: Rig,
  seconds: number,
  packetsPerSecond: number | undefined,
  signal: AbortSignal,
): Promise<RoundTrips> {
  const load = packetsPerSecond === undefined ? ['ping-pong'] : ['under-load', `--mps=${packetsPerSecond}`];
  const server = ['-i', rig.serverAddress, '-p', String(SOCKPERF_PORT)];
  const { stdout } = await rig.path.topology.exec(
    rig.client,
    ['sockperf', ...load, ...server, '-t', String(seconds), '--full-rtt'],
    { signal, timeoutMs: 60_000 },
  );
  const percentile = (which: string): number => {
    const found = new RegExp(`percentile ${which}\\s*=\\s*([\\d.]+)`).exec(stdout)?.[1];
    if (found === undefined)
      throw new WeftError('WEFT_LAB_FAILED', `sockperf reported no percentiles: ${stdout.slice(-500)}`);
    return Number(found);
  };
  return { p50: percentile('50\\.000'), p99: percentile('99\\.000'), p999: percentile('99\\.900') };
}

const SHORT_CONNECTIONS = new URL('./short-connections.ts', import.meta.url).pathname;

function shortConnectionsCommand(...args: readonly string[]): string[] {
  return [process.execPath, '--disable-warning=ExperimentalWarning', SHORT_CONNECTIONS, ...args];
}

/** Thousand connections a second, of one request and one answer each (TCP_CRR of netperf), so many at a time. */
export async function connections(rig: Rig, atOnce: number, seconds: number, signal: AbortSignal): Promise<number> {
  const argv = shortConnectionsCommand('connect', rig.serverAddress, String(atOnce), String(seconds));
  const { stdout } = await rig.path.topology.exec(rig.client, argv, { signal, timeoutMs: 60_000 });
  return Number(stdout) / seconds / 1_000;
}

function cpuSeconds(rig: Rig): { forwarders: number; machine: number } {
  const [, user, nice, system, , , irq, softirq] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]!
    .split(/\s+/)
    .map(Number);
  const forwarders = rig.path.forwarders.map((child) => {
    // Fields 14 and 15 of proc(5) stat; the command in parentheses may hold spaces.
    const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
      .replace(/^.*\) /, '')
      .split(' ');
    return Number(fields[11]) + Number(fields[12]);
  });
  return {
    forwarders: forwarders.reduce((sum, ticks) => sum + ticks, 0) / TICKS_PER_SECOND,
    machine: (user! + nice! + system! + irq! + softirq!) / TICKS_PER_SECOND,
  };
}
