import { writeFile } from 'node:fs/promises';
import { Command } from 'commander';
import { backendKind } from '../../backend/registry.ts';
import { DEFAULT_CONF_TEMPLATE } from '../../cni/conf-list.ts';
import { describePeer, type HostView, type PeerView, peerOf, readHostView } from '../../diagnosis/host-view.ts';
import { measure } from '../../diagnosis/measure.ts';
import { type Report, renderJunit, renderReport, type Unchecked } from '../../diagnosis/report.ts';
import { judge, type MeasuredPath, type Origin } from '../../diagnosis/verdict.ts';
import { agentChecks } from '../../doctor/agent-checks.ts';
import { type CheckResult, runChecks } from '../../doctor/check.ts';
import type { DoctorHost, DoctorPaths } from '../../doctor/host.ts';
import { kernelChecks } from '../../doctor/kernel-checks.ts';
import { overlayChecks } from '../../doctor/overlay-checks.ts';
import { subnetEnvChecks } from '../../doctor/subnet-env-checks.ts';
import { tunChecks } from '../../doctor/tun-checks.ts';
import { describeError, WeftError } from '../../errors.ts';
import { formatPrefix, type IpAddr, versionOf } from '../../ip/address.ts';
import { present } from '../../ip/family.ts';
import { describeSendErrno, openProbeSocket } from '../../linux/probe-socket.ts';
import { makeTestContainer } from '../../linux/test-container.ts';
import { printableLines } from '../../printable.ts';
import { untilStopped } from '../stop-signal.ts';
import { append, askAll, clientsOf, selfAndPeers, withRemote } from './agent-target.ts';
import type { ClusterFlags } from './cluster.ts';
import { clusterReport, renderCluster, renderClusterJunit } from './cluster-test.ts';
import { realHost } from './doctor-host.ts';
import { addressOf, portNumber } from './option-values.ts';
import { ANSWER_MS, askedOnce, impatient, overlayFacts, overlayHost, requireRoot, waysTo } from './test-host.ts';
import { checkServices, clusterServices, uncheckedServices } from './test-services.ts';
import { wantedKernel } from './wanted-kernel.ts';

const CHECK_MS = 8_000;
const BRIDGE = 'cni0';
const MAX_TEXT = 4_000;
/** Of the doctor's checks, those that `agent`, the paths and a check of the overlay by the same name know better. */
const LEFT_TO_DOCTOR: ReadonlySet<string> = new Set([
  'health',
  'last-start',
  'cap-net-raw',
  'network-config-in-use',
  'lease-entries',
]);

interface TestFlags extends ClusterFlags {
  readonly subnetFile: string;
  readonly netConfigPath: string;
  readonly healthzPort: number;
  readonly json?: true;
  readonly junit?: string;
  readonly hostOnly?: true;
  readonly clusterDns?: IpAddr;
  readonly clusterDomain?: string;
  readonly cluster?: true;
  readonly host?: readonly string[];
  readonly tokenFile?: string;
}

/**
 * `weft test`: measures the ways from this host, and from a container that it makes, to each peer, looks at the host, and names what
 * is wrong. With `--cluster` or `--host`, it asks agents for what they have measured of each other. Exit code 1 when something is
 * wrong. With `--json`, standard output gets one object and nothing else.
 */
export function testCommand(): Command {
  return withRemote(new Command('test'))
    .summary('test the paths from this host to its peers, and name what is wrong')
    .description(
      'Measure the paths from this host and from a container to each peer (round-trip time, loss, full MTU, fragments, checksums), check this host, and on a Kubernetes node also DNS and a Service. Name the broken host or pair, and the cause. Needs root. The agent need not be running.',
    )
    .argument('[peer...]', 'subnets or addresses of peers; with --cluster, names of nodes (default: all)')
    .option(
      '--host <[name=]url>',
      'ask the agent at this URL (its --api-listen) about its peers; may be repeated',
      append,
    )
    .option('--subnet-file <file>', "the agent's --subnet-file", '/run/flannel/subnet.env')
    .option('--net-config-path <file>', "the agent's --net-config-path", '/etc/kube-flannel/net-conf.json')
    .option('--healthz-port <port>', "the agent's --healthz-port", portNumber, 8081)
    .option('--host-only', 'do not create a container for the test')
    .option(
      '--cluster-dns <address>',
      "the cluster's DNS server (default: from the kubelet's configuration)",
      addressOf,
    )
    .option('--cluster-domain <name>', "the cluster's domain (default: from there, or cluster.local)")
    .option('--json', 'print one JSON object')
    .option('--junit <file>', 'also write a JUnit report')
    .action((words: readonly string[], flags: TestFlags) =>
      flags.cluster === true || flags.host !== undefined ? testPairs(words, flags) : test(words, flags),
    );
}

/** What the agents have measured of each other in the background; sends nothing itself. */
async function testPairs(only: readonly string[], flags: TestFlags): Promise<void> {
  using stopped = untilStopped();
  const { signal } = stopped;
  const startedAtMs = performance.now();
  const clients = await clientsOf(flags, signal);
  const unknown = only.find((word) => !clients.some(({ name }) => name === word));
  if (unknown !== undefined)
    throw new WeftError('WEFT_USAGE', `${JSON.stringify(unknown)} is none of the nodes that are asked`, {
      hint: `They are: ${clients.map(({ name }) => name).join(', ')}`,
    });
  const asked = await askAll(clients, (client) => selfAndPeers(client, signal), signal);
  const report = clusterReport(asked, only, Math.round(performance.now() - startedAtMs));
  process.stdout.write(flags.json ? `${JSON.stringify(report)}\n` : renderCluster(report));
  process.exitCode = report.ok ? 0 : 1;
  if (flags.junit !== undefined) await writeJunit(flags.junit, renderClusterJunit(report));
}

async function test(words: readonly string[], flags: TestFlags): Promise<void> {
  requireRoot();
  using stopped = untilStopped();
  const { signal } = stopped;
  const startedAtMs = performance.now();
  const asked = askedOnce(realHost(), signal);
  const view = await readHostView(asked, flags.subnetFile, backendKind, signal);
  const peers = words.length === 0 ? view.peers : words.map((word) => peerOf(view, word));
  const progress = progressOn(process.stderr, peers.length);
  // The checks start dozens of processes. The container is made before, for its measurement takes longest and mostly waits.
  const { promise: made, resolve: onMade } = Promise.withResolvers<void>();
  const [checks, host, container] = await Promise.all([
    made.then(() => examine(view, asked, flags, signal)),
    measureFromHost(peers, progress, signal),
    measureFromContainer(view, asked, peers, flags, onMade, signal).finally(onMade),
  ]);
  progress(undefined);
  const paths = [...host, ...container.paths];
  const all = [...checks, ...container.checks];
  const own = present(view.known.own.subnets).map(formatPrefix);
  const report: Report = {
    ...{ host: own.join(' '), paths, checks: all, problems: judge(all, paths, await waysTo(view, paths, signal)) },
    unchecked: [...(peers.length === 0 ? [NO_PEERS] : []), ...container.unchecked],
    tookMs: Math.round(performance.now() - startedAtMs),
  };
  const ok = !report.problems.some(({ severity }) => severity === 'error');
  process.stdout.write(flags.json ? `${JSON.stringify({ ok, ...report })}\n` : renderReport(report));
  process.exitCode = ok ? 0 : 1;
  if (flags.junit !== undefined) await writeJunit(flags.junit, renderJunit(report));
}

async function writeJunit(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (error) {
    throw new WeftError('WEFT_OUTPUT_UNWRITABLE', `cannot write the JUnit report to ${path}: ${describeError(error)}`, {
      hint: 'Name a file in a directory that you may write to, with --junit.',
      cause: error,
    });
  }
}

async function examine(
  view: HostView,
  asked: DoctorHost,
  flags: TestFlags,
  signal: AbortSignal,
): Promise<readonly CheckResult[]> {
  const host = impatient(asked, ANSWER_MS);
  const paths: DoctorPaths = { ...flags, cniBinDir: '', cniConfDir: '', cniConfTemplate: DEFAULT_CONF_TEMPLATE };
  const wanted = await wantedKernel(view, signal);
  const hostChecks = [
    ...tunChecks(host, paths),
    ...kernelChecks(host, paths),
    ...subnetEnvChecks(host, paths),
    ...agentChecks(host, paths),
  ];
  const checks = [
    ...overlayChecks(overlayHost(host, flags.subnetFile, wanted), paths, overlayFacts(view, wanted)),
    ...hostChecks.filter(({ name }) => !LEFT_TO_DOCTOR.has(name)),
  ];
  const results = await runChecks(checks, CHECK_MS, signal);
  return results.map((result) => ({ ...result, found: printableLines(result.found, MAX_TEXT) }));
}

async function measureFromHost(
  peers: readonly PeerView[],
  onProgress: (settled: number) => void,
  signal: AbortSignal,
): Promise<MeasuredPath[]> {
  using io = openProbeSocket();
  const results = await measure(
    { io, describeErrno: describeSendErrno, targets: peers, hears: true, onProgress },
    signal,
  );
  return asPaths('host', peers, results);
}

const NO_PEERS: Unchecked = { name: 'paths', reason: 'this host knows no peer' };

interface FromContainer {
  readonly paths: readonly MeasuredPath[];
  readonly checks: readonly CheckResult[];
  readonly unchecked: readonly Unchecked[];
}

/** Only where there is a bridge of containers; a container that cannot be made is a finding of its own. */
async function measureFromContainer(
  { known, mtuBytes }: HostView,
  { links, readText }: DoctorHost,
  peers: readonly PeerView[],
  { clusterDns, clusterDomain, hostOnly }: TestFlags,
  onMade: () => void,
  signal: AbortSignal,
): Promise<FromContainer> {
  const services = await clusterServices({
    ...{ server: clusterDns, domain: clusterDomain, isNode: known.node !== undefined },
    ...{ readText, environment: process.env },
  });
  const without = (reason: string): FromContainer => ({
    ...{ paths: [], checks: [] },
    unchecked: [
      ...(peers.length === 0 ? [] : [{ name: 'container-paths', reason }]),
      ...uncheckedServices(services, reason),
    ],
  });
  if (hostOnly) return without('--host-only');
  if (peers.length === 0 && services === undefined) return without(NO_PEERS.reason);
  if (!(await links(signal)).some(({ name }) => name === BRIDGE))
    return without(`there is no ${BRIDGE}, which the first container of this host makes`);
  try {
    const options = { bridge: BRIDGE, subnets: known.own.subnets, mtuBytes };
    await using container = await makeTestContainer(options, signal);
    onMade();
    const { families } = container;
    const reachable = peers.filter(({ overlay }) => families.includes(versionOf(overlay)));
    using io = container.inside(() => openProbeSocket(families));
    // UDP probes need a socket each, which would be the host's.
    const targets = reachable.map((peer) => ({ ...peer, underlay: undefined, onlyEcho: true }));
    const [results, asked] = await Promise.all([
      measure({ io, describeErrno: describeSendErrno, targets, hears: false }, signal),
      services === undefined ? { checks: [], unchecked: [] } : checkServices(container, services, signal),
    ]);
    const reason = `${BRIDGE} has no address of IPv6, which the first container with IPv6 gives it`;
    const lacking = reachable.length < peers.length ? [{ name: 'container-paths-ipv6', reason }] : [];
    return {
      ...{ paths: asPaths('container', reachable, results), checks: asked.checks },
      unchecked: [...lacking, ...asked.unchecked],
    };
  } catch (error) {
    signal.throwIfAborted();
    const found = `a container for the test could not be made: ${describeError(error)}`;
    const remedy = 'New containers of this host may fail likewise; or leave it out: --host-only.';
    const check: CheckResult = { name: 'test-container', looksAt: BRIDGE, status: 'warn', found, remedy };
    return { ...without('a container for the test could not be made'), checks: [check] };
  }
}

function asPaths(from: Origin, peers: readonly PeerView[], results: readonly MeasuredPath['result'][]): MeasuredPath[] {
  return results.map((result) => ({ from, to: describePeer(peers.find(({ id }) => id === result.id)!), result }));
}

/** One line that is written over, on a terminal only. `undefined` takes it away. */
function progressOn(stream: NodeJS.WriteStream, total: number): (settled: number | undefined) => void {
  if (!stream.isTTY) return () => {};
  return (settled) =>
    stream.write(settled === undefined ? '\r\x1b[K' : `\r\x1b[Kmeasuring ${settled} of ${total} peers`);
}
